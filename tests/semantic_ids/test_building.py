"""Building semantic IDs from embeddings, and adding items to them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hf_latentrec.semantic_ids.building import add_items, build_semantic_ids
from hf_latentrec.semantic_ids.semantic_ids import SemanticIds


SIZES = {"num_levels": 2, "codebook_size": 4}
POLICIES = ("extra_level", "nearest_free", "share")


def embeddings(num_items: int, seed: int = 0, twins: int = 0) -> np.ndarray:
    """Random vectors, the last of them equal to the first."""
    vectors = np.random.default_rng(seed).normal(size=(num_items, 5)).astype(np.float32)
    vectors[num_items - twins :] = vectors[:1]
    return vectors


def names(num_items: int, letter: str = "B") -> list[str]:
    return [f"{letter}{row}" for row in range(num_items)]


def test_building_is_quantizing_and_then_resolving():
    vectors = embeddings(12, twins=2)
    ids = build_semantic_ids(
        names(12), vectors, **SIZES, balanced=False, seed=5, embedding_model="m", text_fields=["title"]
    )
    assert (ids.embedding_model, ids.text_fields, ids.seed, ids.policy) == ("m", ("title",), 5, "extra_level")
    assert np.array_equal(ids.raw_codes_IL, ids.quantizer.encode(vectors))
    assert np.array_equal(ids.codes_IL[:, :2], ids.raw_codes_IL)
    seen: Counter = Counter()
    for codes in ids.codes_IL.tolist():  # the number among the items before it
        assert codes[2] == seen[tuple(codes[:2])]
        seen[tuple(codes[:2])] += 1
    assert np.array_equal(ids.raw_codes_IL[0], ids.raw_codes_IL[10])
    again = build_semantic_ids(names(12), vectors, **SIZES, balanced=False, seed=5)
    assert again.fingerprint == ids.fingerprint


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(policy):
    ids = build_semantic_ids(names(12), embeddings(12, twins=3), **SIZES, on_collision=policy)
    distinct = len(np.unique(ids.codes_IL, axis=0))
    assert distinct == 12 if policy != "share" else distinct < 12
    assert ids.codes_IL.shape[1] == (3 if policy == "extra_level" else 2)


def test_balance_holds_for_the_codes_and_is_kept():
    vectors = np.concatenate([embeddings(3), np.tile(embeddings(1), (9, 1))])
    ids = build_semantic_ids(names(12), vectors, **SIZES, balanced=True, on_collision="share")
    assert ids.balanced and max(Counter(ids.codes_IL[:, 0].tolist()).values()) == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_added_items_leave_the_others_where_they_are(policy, tmp_path):
    first = build_semantic_ids(names(8), embeddings(8, twins=2), **SIZES, on_collision=policy)
    news = np.concatenate([embeddings(8)[:1], embeddings(3, seed=1)])  # a twin of the twins, and others
    second = add_items(first, names(4, "N"), news)
    third = add_items(second, ["Z"], embeddings(1))
    for older, newer in ((first, second), (second, third)):
        assert np.array_equal(newer.codes_IL[: len(older)], older.codes_IL)
        assert np.array_equal(newer.quantizer.codebooks_LKD, older.quantizer.codebooks_LKD)
        assert newer.item_ids[: len(older)] == older.item_ids
        for before, after in zip(older.all_tokens(), newer.all_tokens(), strict=True):
            assert after[: len(before)] == before  # no token changes its meaning
    assert np.array_equal(second.raw_codes_IL[8:], first.quantizer.encode(news))
    if policy != "share":
        assert len(np.unique(third.codes_IL, axis=0)) == 13
    assert [version["num_items"] for version in third.versions] == [8, 12, 13]
    assert [version["fingerprint"] for version in third.versions] == [
        ids.fingerprint for ids in (first, second, third)
    ]
    third.save(tmp_path)
    loaded = SemanticIds.load(tmp_path)
    assert (loaded.version, loaded.versions, loaded.item_ids[-1]) == (3, third.versions, "Z")


def test_the_extra_level_grows_at_its_end():
    first = build_semantic_ids(names(6), embeddings(6, twins=1), **SIZES, balanced=False)
    second = add_items(first, names(3, "N"), np.tile(embeddings(1), (3, 1)))
    assert first.level_sizes == (4, 4, 2) and second.level_sizes == (4, 4, 5)
    assert second.codes_IL[6:, 2].tolist() == [2, 3, 4]


def test_an_older_version_that_was_changed_is_noticed(tmp_path):
    first = build_semantic_ids(names(6), embeddings(6), **SIZES)
    second = add_items(first, ["N"], embeddings(1, seed=1))
    path = tmp_path / "semantic_ids.json"
    second.save(tmp_path)
    path.write_text(path.read_text().replace(first.fingerprint, second.fingerprint))
    with pytest.raises(ValueError, match=r"item order of version 1 \(6 items\) are not those"):
        SemanticIds.load(tmp_path)


@pytest.mark.parametrize(
    ("item_ids", "vectors", "settings", "message"),
    [
        (names(5), embeddings(6), {}, r"5 item ids and embeddings of shape \(6, 5\)"),
        ([], embeddings(0), {}, "0 item ids"),
        (["B1", "B2", "B1"], embeddings(3), {}, r"item_id 'B1' appears 2 times \(rows 0, 2\); keep one row"),
        (names(6), embeddings(6), {"on_collision": "move"}, "'move'; choose one of extra_level, nearest_free, share"),
        (names(3), embeddings(3), {}, "3 items.*4 codes"),
        (names(6), np.full((6, 5), np.nan), {}, "row 0.*NaN"),
        (names(17), np.ones((17, 5)), {"on_collision": "nearest_free"}, "17 items.*16|16.*17"),
    ],
)
def test_what_is_refused(item_ids, vectors, settings, message):
    with pytest.raises(ValueError, match=message):
        build_semantic_ids(item_ids, vectors, **SIZES, **settings)


@pytest.mark.parametrize(
    ("item_ids", "vectors", "message"),
    [
        (["N1", "B3"], embeddings(2), r"1 of 2 items have codes already, first \['B3'\].*new items only"),
        (["N1", "N1"], embeddings(2), "'N1' appears 2 times"),
        (["N1"], embeddings(1)[:, :4], "4 numbers.*codebooks 5"),
        (["N1"], np.full((1, 5), np.inf), "row 0 holds NaN, infinity"),
    ],
)
def test_what_cannot_be_added(item_ids, vectors, message):
    first = build_semantic_ids(names(6), embeddings(6), **SIZES)
    with pytest.raises(ValueError, match=message):
        add_items(first, item_ids, vectors)
