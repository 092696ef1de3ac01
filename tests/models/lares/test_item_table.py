"""Which item stands in which row."""

from __future__ import annotations

import numpy as np
import pytest

from hf_latentrec import ItemTable


IDS = ["B1", "B22", "é3", "4"]


def test_rows_of_ids():
    items = ItemTable(IDS)
    assert items.rows(["4", "B1", "4"]).tolist() == [3, 0, 3] and items.rows([]).tolist() == []
    assert items.find(["é3", "?"]).tolist() == [2, -1] and items.find(["?"]).dtype == np.int64
    assert len(items) == 4 and not items.is_cold.any() and items.titles == [None] * 4


def test_an_unknown_id_is_named_with_the_closest_ones():
    with pytest.raises(ValueError, match=r"item_id 'B2' is not among the 4 items; closest: \['B22'.*position 1"):
        ItemTable(IDS).rows(["B1", "B2", "also unknown"])


@pytest.mark.parametrize(
    ("ids", "columns", "message"),
    [
        ([], {}, "there are no items"),
        (["a", "b", "a"], {}, "item_id 'a' in row 0 is repeated"),
        (["a", None], {}, "item_id None in row 1 is no text"),
        (["a", 7], {}, "item_id 7 in row 1 is no text"),
        (["a", "b"], {"titles": ["A", 3.5]}, "title 3.5 in row 1 is no text"),
        (["a", "b"], {"titles": ["A"]}, "2 item_ids but 1 titles"),
        (["a", "b"], {"popularity": [1, 2, 3]}, "2 item_ids but 3 popularity"),
    ],
)
def test_what_is_no_table(ids, columns, message):
    with pytest.raises(ValueError, match=message):
        ItemTable(ids, **columns)


@pytest.mark.parametrize("popularity", [None, [5, 0, 1, 0]])
def test_saved_and_loaded(tmp_path, popularity):
    items = ItemTable(IDS, titles=["One", None, "Drei ✓", ""], popularity=popularity)
    items.save(tmp_path / "items.json")
    loaded = ItemTable.load(tmp_path / "items.json")
    assert loaded.item_ids == items.item_ids and loaded.titles == items.titles
    assert loaded.is_cold.tolist() == [popularity is not None and n in (1, 3) for n in range(4)]
    assert loaded.fingerprint == items.fingerprint
    assert (loaded.popularity is None) if popularity is None else loaded.popularity.tolist() == popularity


def test_the_fingerprint_knows_the_order():
    assert ItemTable(IDS).fingerprint != ItemTable(IDS[::-1]).fingerprint
    assert ItemTable(["a,b"]).fingerprint != ItemTable(["a", "b"]).fingerprint
    assert ItemTable(IDS).fingerprint == "3145788800501a6f738165c90b22e8a81da116cfae78efdb010d2a9220a6d547"
    assert ItemTable(IDS).fingerprint == ItemTable(IDS, titles=IDS, popularity=[1] * 4).fingerprint


def test_files_that_are_no_table(tmp_path):
    path = tmp_path / "items.json"
    ItemTable(IDS).save(path)
    whole = path.read_bytes()
    for part in (whole[:-20], b"", b"PAR1" + bytes([0xFF] * 8)):
        path.write_bytes(part)
        with pytest.raises(ValueError, match="items.json is truncated or no JSON"):
            ItemTable.load(path)
    for other, found in (('{"item": ["B1"]}', r"\['item'\]"), ('["B1"]', "list")):
        path.write_text(other)
        with pytest.raises(ValueError, match=f"has columns {found}; write it"):
            ItemTable.load(path)
