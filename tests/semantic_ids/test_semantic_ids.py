"""SemanticIds: names of codes, room for items to come, and files that are checked when they are read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_latentrec.data.files import read_codes
from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans
from hf_latentrec.semantic_ids.semantic_ids import SemanticIds


FILES = ("semantic_ids.index.json", "semantic_ids.json", "semantic_ids.safetensors")
CODES = np.array([[2, 0, 0], [0, 1, 0], [2, 0, 1], [1, 1, 0]])


def make_ids(**changes) -> SemanticIds:
    quantizer = ResidualKMeans(np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32))
    settings = {
        "item_ids": ["B2", "é", "A", "C"],
        "codes_IL": CODES,
        "quantizer": quantizer,
        "policy": "extra_level",
        "raw_codes_IL": CODES[:, :2],
        "seed": 3,
        "embedding_model": "some/model",
        "text_fields": ("title", "brand"),
    }
    return SemanticIds(**{**settings, **changes})


def test_tokens_are_level_letter_and_number():
    ids = make_ids()
    slow = [[f"<{'abc'[level]}_{code}>" for level, code in enumerate(row)] for row in CODES.tolist()]
    assert ids.tokens() == slow and slow[0] == ["<a_2>", "<b_0>", "<c_0>"]
    assert ids.level_sizes == (3, 3, 2) and (len(ids), ids.version) == (4, 1)
    assert ids.all_tokens() == [["<a_0>", "<a_1>", "<a_2>"], ["<b_0>", "<b_1>", "<b_2>"], ["<c_0>", "<c_1>"]]


def test_room_is_kept_in_the_extra_level_alone():
    with_room = make_ids().all_tokens(with_room=True)
    assert [len(tokens) for tokens in with_room] == [3, 3, 2 + 32] and with_room[2][-1] == "<c_33>"
    crowded = np.column_stack([np.zeros((50, 2), dtype=int), np.arange(50)])
    many = make_ids(item_ids=list(map(str, range(50))), codes_IL=crowded, raw_codes_IL=crowded[:, :2])
    assert [len(tokens) for tokens in many.all_tokens(with_room=True)] == [3, 3, 100]
    share = make_ids(codes_IL=CODES[:, :2], policy="share")
    assert share.all_tokens(with_room=True) == share.all_tokens() and share.level_sizes == (3, 3)


def test_save_and_load(tmp_path):
    ids = make_ids()
    ids.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == list(FILES)
    loaded = SemanticIds.load(tmp_path / "new" / "folder")
    assert np.array_equal(loaded.codes_IL, ids.codes_IL) and np.array_equal(loaded.raw_codes_IL, ids.raw_codes_IL)
    assert np.array_equal(loaded.quantizer.codebooks_LKD, ids.quantizer.codebooks_LKD)
    for name in ("item_ids", "policy", "balanced", "seed", "embedding_model", "text_fields", "versions"):
        assert getattr(loaded, name) == getattr(ids, name)
    index = read_codes(tmp_path / "new" / "folder" / FILES[0])
    assert index["item_id"].to_list() == ids.item_ids and index["semantic_id"].to_list() == ids.tokens()


def test_the_same_bytes_each_time(tmp_path):
    make_ids().save(tmp_path / "one")
    SemanticIds.load(tmp_path / "one").save(tmp_path / "two")
    make_ids().save(tmp_path / "two")  # over itself
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in FILES)


def test_an_index_may_leave_out_items_that_the_data_have_lost(tmp_path):
    make_ids().save(tmp_path, listed={"A", "B2", "unknown"})
    assert list(json.loads((tmp_path / FILES[0]).read_text())) == ["B2", "A"]
    assert SemanticIds.load(tmp_path).item_ids == make_ids().item_ids


def test_fingerprint_changes_with_what_it_covers():
    quantizer = ResidualKMeans(np.ones((2, 3, 4), dtype=np.float32))
    moved = CODES.copy()
    moved[3, 1] = 2
    changes = [
        {}, {"item_ids": ["é", "B2", "A", "C"]}, {"codes_IL": moved}, {"quantizer": quantizer},
        {"codes_IL": CODES[:, :2], "policy": "share"}, {"codes_IL": CODES[:, :2], "policy": "nearest_free"},
    ]  # fmt: skip
    prints = [make_ids(**change).fingerprint for change in changes]
    assert len(set(prints)) == len(changes)
    assert make_ids(seed=9, embedding_model=None).fingerprint == prints[0]


def test_damaged_and_foreign_files_are_named(tmp_path):
    make_ids().save(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in FILES}
    for name in FILES:
        (tmp_path / name).write_bytes(whole[name][:-25])
        with pytest.raises(ValueError, match=name):
            SemanticIds.load(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file.*build_semantic_ids.py"):
            SemanticIds.load(tmp_path)
        (tmp_path / name).write_bytes(whole[name])
    for name, old, new, message in (
        ("semantic_ids.json", '"B2"', '"B3"', "item order of version 1 .4 items. are not those"),
        ("semantic_ids.json", '"B2",\n  "é"', '"é",\n  "B2"', "item order of version 1"),
        ("semantic_ids.json", '"format": 1', '"format": 2', "format 2"),
        ("semantic_ids.json", '"policy"', '"plan"', "with format, plan"),
        ("semantic_ids.index.json", "<a_0>", "<a_1>", r"1 item\(s\) have other tokens.*'é'.*<a_1>.*instead of.*<a_0>"),
        ("semantic_ids.index.json", '"A"', '"X"', "first 'X'.*instead of None"),
    ):
        assert old in whole[name].decode()
        (tmp_path / name).write_bytes(whole[name].replace(old.encode(), new.encode()))
        with pytest.raises(ValueError, match=message):
            SemanticIds.load(tmp_path)
        (tmp_path / name).write_bytes(whole[name])
    arrays = load_file(tmp_path / "semantic_ids.safetensors")
    for name in ("codes", "codebooks"):
        save_file({**arrays, name: np.roll(arrays[name], 1, axis=0)}, tmp_path / "semantic_ids.safetensors")
        with pytest.raises(ValueError, match="codes, codebooks or item order of version 1"):
            SemanticIds.load(tmp_path)
    save_file({"codes": arrays["codes"]}, tmp_path / "semantic_ids.safetensors")
    with pytest.raises(ValueError, match="no 'codebooks' in it"):
        SemanticIds.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes_IL": CODES[:3]}, r"codes of shape \(3, 3\).*expected \(4, 3\)"),
        ({"codes_IL": CODES[:, :2]}, r"codes of shape \(4, 2\).*policy 'extra_level'"),
        ({"raw_codes_IL": CODES}, r"raw codes of shape \(4, 3\)"),
        ({"codes_IL": CODES + [1, 0, 0]}, r"'B2' \(row 0\) has the codes \[3, 0, 0\], but the codebooks hold 0 to 2"),
        ({"codes_IL": CODES - [0, 0, 1]}, r"has the codes \[2, 0, -1\]"),
        (
            {
                "quantizer": ResidualKMeans(np.zeros((27, 3, 4))),
                "policy": "share",
                **dict.fromkeys(("codes_IL", "raw_codes_IL"), np.zeros((4, 27))),
            },
            "27 levels, but their names are the letters a to z",
        ),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make_ids(**changes)
