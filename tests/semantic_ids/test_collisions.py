"""Collisions against slow loops, and what must hold on any codes."""

from __future__ import annotations

import numpy as np
import pytest

from hf_latentrec.semantic_ids import collisions
from hf_latentrec.semantic_ids.collisions import count_collisions, prefix_groups, resolve_collisions
from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans


def make(seed: int, num_items: int, num_levels: int = 3, num_codes: int = 3, dimension: int = 4, spread: float = 1.0):
    """Random codebooks that get finer by level, and embeddings with the codes of their nearest centroids."""
    rng = np.random.default_rng(seed)
    scale_L11 = 0.4 ** np.arange(num_levels)[:, None, None]
    quantizer = ResidualKMeans(rng.normal(size=(num_levels, num_codes, dimension)) * scale_L11)
    embeddings_ID = (spread * rng.normal(size=(num_items, dimension))).astype(np.float32)
    return quantizer, embeddings_ID, quantizer.encode(embeddings_ID)


def slow_count(codes: np.ndarray) -> int:
    rows = [tuple(row) for row in codes.tolist()]
    return sum(rows.count(row) > 1 for row in rows)


def slow_nearest_free(codes: np.ndarray, embeddings: np.ndarray, quantizer: ResidualKMeans, taken=()) -> list[tuple]:
    """The policy item by item, on plain tuples."""
    books = quantizer.codebooks_LKD.astype(np.float64)
    L, K = books.shape[:2]
    final = [tuple(row) for row in codes.tolist()]
    old = {tuple(row) for row in taken}
    distance = [
        np.square(x - sum(books[level, k] for level, k in enumerate(code))).sum()
        for x, code in zip(embeddings.astype(np.float64), final, strict=True)
    ]
    movers = []
    for item, code in enumerate(final):
        group = [other for other, its in enumerate(final) if its == code]
        if code in old or min(group, key=lambda other: (distance[other], other)) != item:
            movers.append(item)
    settled = old | {code for item, code in enumerate(final) if item not in movers}

    def room(prefix: tuple) -> int:
        return K ** (L - len(prefix)) - sum(code[: len(prefix)] == prefix for code in settled)

    for depth in range(L - 1, -1, -1):
        left = []
        # All of one prefix who still fit go down together, but who fits and who chooses first is the items' order.
        for item in movers:
            prefix = final[item][:depth]
            if not room(prefix):
                left.append(item)
                continue
            while len(prefix) < L:
                rest = embeddings[item] - sum((books[level, k] for level, k in enumerate(prefix)), np.zeros(1))
                free = [k for k in range(K) if room((*prefix, k))]
                prefix = (*prefix, min(free, key=lambda k: np.square(rest - books[len(prefix), k]).sum()))
            final[item] = prefix
            settled.add(prefix)
        movers = left
    assert not movers
    return final


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("num_items", "levels", "codes"), [(12, 3, 3), (27, 3, 3), (25, 2, 5), (14, 4, 2), (16, 4, 2)]
)
def test_nearest_free_is_the_slow_search(seed, num_items, levels, codes):
    quantizer, embeddings, first = make(seed, num_items, levels, codes, spread=[0.2, 1.0][seed % 2])
    final = resolve_collisions(first, embeddings, quantizer, "nearest_free")
    assert [tuple(row) for row in final.tolist()] == slow_nearest_free(first, embeddings, quantizer)
    assert count_collisions(final) == 0


@pytest.mark.parametrize("seed", range(10))
def test_nearest_free_beside_older_items_is_the_slow_search(seed):
    quantizer, embeddings, first = make(seed, 24, 3, 3)
    taken = resolve_collisions(first[:10], embeddings[:10], quantizer, "nearest_free")
    final = resolve_collisions(first[10:], embeddings[10:], quantizer, "nearest_free", taken_ML=taken)
    expected = slow_nearest_free(first[10:], embeddings[10:], quantizer, taken.tolist())
    assert [tuple(row) for row in final.tolist()] == expected
    assert count_collisions(np.concatenate([taken, final])) == 0


@pytest.mark.parametrize("numbers", [1, 40, 10_000])
def test_pieces_of_any_size_give_the_same_codes(numbers, monkeypatch):
    quantizer, embeddings, first = make(3, 200, 3, 6, spread=0.3)
    expected = resolve_collisions(first, embeddings, quantizer, "nearest_free")
    monkeypatch.setattr(collisions, "CHUNK_NUMBERS", numbers)
    monkeypatch.setattr(collisions, "FIRST_WINDOW", 1)
    assert (resolve_collisions(first, embeddings, quantizer, "nearest_free") == expected).all()


@pytest.mark.parametrize("seed", range(5))
def test_who_shares_nothing_stays_and_one_of_each_group_stays(seed):
    quantizer, embeddings, first = make(seed, 150, 3, 8)
    before = first.copy()
    final = resolve_collisions(first, embeddings, quantizer, "nearest_free")
    assert (first == before).all()
    sizes = np.bincount(prefix_groups(first, 3))[prefix_groups(first, 3)]
    stays = (final == first).all(1)
    assert 0 < (sizes > 1).sum() < 150
    assert stays[sizes == 1].all()
    for group in np.unique(first[sizes > 1], axis=0):
        members = np.flatnonzero((first == group).all(1))
        distances = np.square(embeddings[members] - quantizer.reconstruct(group[None])).sum(1)
        assert stays[members].tolist() == (np.arange(len(members)) == distances.argmin()).tolist()


@pytest.mark.parametrize("policy", ["extra_level", "nearest_free", "share"])
def test_same_input_same_codes(policy):
    quantizer, embeddings, first = make(1, 100, 3, 5)
    runs = [resolve_collisions(first, embeddings, quantizer, policy) for _ in range(2)]
    assert (runs[0] == runs[1]).all()
    assert runs[0].dtype == np.int32


@pytest.mark.parametrize("seed", range(5))
def test_extra_level_numbers_equal_codes_in_their_order(seed):
    quantizer, embeddings, first = make(seed, 80)
    final = resolve_collisions(first, embeddings, quantizer, "extra_level")
    seen: dict[tuple, int] = {}
    for row, code in zip(final.tolist(), first.tolist(), strict=True):
        assert row == [*code, seen.get(tuple(code), 0)]
        seen[tuple(code)] = row[-1] + 1
    assert count_collisions(final) == 0


def test_extra_level_goes_on_after_older_items():
    quantizer, embeddings, first = make(0, 60)
    taken = resolve_collisions(first[:40], embeddings[:40], quantizer, "extra_level")
    final = resolve_collisions(first[40:], embeddings[40:], quantizer, "extra_level", taken_ML=taken)
    together = resolve_collisions(first, embeddings, quantizer, "extra_level")
    assert (np.concatenate([taken, final]) == together).all()
    # A gap of a deleted item stays a gap, so no code ever changes hands from the middle.
    gap = resolve_collisions(first[:1], embeddings[:1], quantizer, "extra_level", taken_ML=np.array([[*first[0], 7]]))
    assert gap[0, -1] == 8


def test_share_leaves_codes():
    quantizer, embeddings, first = make(0, 60)
    assert (resolve_collisions(first, embeddings, quantizer, "share", taken_ML=first[:5]) == first).all()


@pytest.mark.parametrize("seed", range(5))
def test_counts(seed):
    _, _, codes = make(seed, 50)
    assert count_collisions(codes) == slow_count(codes) > 0
    assert count_collisions(codes[:0]) == 0


def test_groups_do_not_overflow():
    codes = np.random.default_rng(0).integers(0, 60_000, (50, 9))
    codes[7] = codes[3]
    groups = prefix_groups(codes, 9)
    assert groups[7] == groups[3]
    assert len(np.unique(groups)) == 49
    assert (prefix_groups(codes, 0) == 0).all()


def test_half_of_the_catalog_in_one_place():
    quantizer, embeddings, _ = make(0, 1200, 4, 8)
    embeddings[::2] = embeddings[0]
    codes = quantizer.encode(embeddings)
    final = resolve_collisions(codes, embeddings, quantizer, "nearest_free")
    assert count_collisions(codes) >= 600
    assert count_collisions(final) == 0
    # Equal items fill the prefixes one after the other, the nearest first.
    assert len(np.unique(final[::2, :3], axis=0)) <= 600 / 8 * 3
    assert np.bincount(resolve_collisions(codes, embeddings, quantizer, "extra_level")[:, -1])[599] >= 1


def test_a_full_tree_and_one_item_more():
    quantizer, embeddings, codes = make(0, 9, 2, 3)
    full = resolve_collisions(codes, embeddings, quantizer, "nearest_free")
    assert sorted(map(tuple, full.tolist())) == [(a, b) for a in range(3) for b in range(3)]
    with pytest.raises(ValueError, match="10 items, but 2 levels of 3 codes name only 9; pass more levels"):
        resolve_collisions(codes[:1], embeddings[:1], quantizer, "nearest_free", taken_ML=full)


def test_unusable_input():
    quantizer, embeddings, codes = make(0, 10)
    with pytest.raises(ValueError, match="policy 'none' for collisions; pass one of 'extra_level'"):
        resolve_collisions(codes, embeddings, quantizer, "none")
    with pytest.raises(ValueError, match="9 rows of codes for 10 embeddings"):
        resolve_collisions(codes[1:], embeddings, quantizer, "share")
    with pytest.raises(ValueError, match="taken codes of shape .10, 3., but 'extra_level' gives 4 levels"):
        resolve_collisions(codes, embeddings, quantizer, "extra_level", taken_ML=codes)
    with pytest.raises(ValueError, match="2 of 2 older items share all their codes"):
        resolve_collisions(codes, embeddings, quantizer, "nearest_free", taken_ML=codes[[1, 1]])
    with pytest.raises(ValueError, match=r"code 3 \(item 0, level 0\) outside a codebook of 3"):
        resolve_collisions(codes * 0 + 3, embeddings, quantizer, "share")
    with pytest.raises(ValueError, match="embeddings have 3 numbers, but the codebooks 4"):
        resolve_collisions(codes, embeddings[:, :3], quantizer, "share")
