from __future__ import annotations

import random

import polars as pl
import pytest

from hf_latentrec.data.sources.item_table import distinct_items


SCHEMA = {"item_id": pl.String, "title": pl.String, "categories": pl.List(pl.String)}


def table(*rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_same_text_is_one_row_and_missing_text_is_empty():
    rows = [("b", "Tea", ["x", "y"]), ("a", None, None), ("b", "Tea", ["x", "y"]), ("a", "", []), ("c", "Tea", [])]
    frame, dropped = distinct_items(table(*rows), "meta")
    assert frame.rows() == [("b", "Tea", ["x", "y"]), ("a", "", []), ("c", "Tea", [])]
    assert dropped == {"item rows that repeat another one": 2}


def test_without_repeats_nothing_is_dropped():
    items = table(("b", "Tea", ["x"]), ("a", "Tea", ["x"]))
    frame, dropped = distinct_items(items, "meta")
    assert frame.equals(items) and dropped == {}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            ("b", "Coffee", ["x"]),
            r"meta: item_id 'b'.*row 1 has title 'Tea', row 3 has 'Coffee'.*1 such item.*'first'",
        ),
        (("b", "Tea", ["y", "x"]), r"row 1 has categories \['x'\], row 3 has \['y', 'x'\]"),
        (("b", None, ["x"]), r"row 1 has title 'Tea', row 3 has ''"),
        (("a", "2", []), r"item_id 'a'.*row 0 has title '1', row 3 has '2'"),
    ],
)
def test_other_text_is_an_error(other, message):
    rows = [("a", "1", []), ("b", "Tea", ["x"]), ("b", "Tea", ["x"]), other, ("c", "3", [])]
    with pytest.raises(ValueError, match=message):
        distinct_items(table(*rows), "meta")


def test_the_first_of_several_texts():
    rows = [("b", "Tea", []), ("a", "x", []), ("b", "Coffee", []), ("b", "Tea", []), ("b", "Milk", [])]
    frame, dropped = distinct_items(table(*rows), "meta", on_conflict="first")
    assert frame.rows() == [("b", "Tea", []), ("a", "x", [])]
    assert dropped == {
        "item rows that repeat another one": 1,
        "item rows with another text than their item's first one": 2,
    }


def test_like_a_slow_loop():
    draw = random.Random(0)
    rows = [
        (draw.choice("abcd"), draw.choice([None, "", "x", "y"]), draw.choice([None, [], ["p"]])) for _ in range(99)
    ]
    frame, dropped = distinct_items(table(*rows), "meta", on_conflict="first")
    kept, seen = {}, set()
    for item_id, title, categories in rows:
        row = (item_id, title or "", categories or [])
        seen.add(repr(row))
        kept.setdefault(item_id, row)
    assert frame.rows() == list(kept.values())
    assert list(dropped.values()) == [99 - len(seen), len(seen) - len(kept)]


@pytest.mark.parametrize("missing", [None, ""])
def test_a_row_without_an_id(missing):
    with pytest.raises(ValueError, match=r"meta: 1 item row.*without an item_id, first row 1.*'Tea'"):
        distinct_items(table(("a", "x", []), (missing, "Tea", [])), "meta")


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="meta: on_conflict='last'; use 'error' or 'first'"):
        distinct_items(table(("a", "x", [])), "meta", on_conflict="last")
