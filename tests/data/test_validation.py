from __future__ import annotations

import math

import pytest
from datasets import Dataset

from hf_latentrec.data import RecData, validate


def make(interactions: dict | None = None, items: dict | None = None) -> RecData:
    """Sound data of two users, with some columns replaced (`None` removes one)."""
    events = {"user_id": ["u", "u", "u", "v"], "item_id": ["a", "b", "c", "a"], "position": [0, 1, 2, 0]}
    catalog = {"item_id": ["a", "b", "c"], "semantic_id": [["<a_0>", "<b_0>"], ["<a_0>", "<b_1>"], ["<a_1>", "<b_0>"]]}
    events, catalog = events | (interactions or {}), catalog | (items or {})
    return RecData(
        Dataset.from_dict({name: column for name, column in events.items() if column is not None}),
        Dataset.from_dict({name: column for name, column in catalog.items() if column is not None}),
    )


def test_sound_data_pass_unchanged():
    extra = {"timestamp": [1.0, 1.0, 2.0, 0.5], "split": ["train", "train", "valid", "train"], "rating": [1, 2, 3, 4]}
    data = make(extra, {"title": ["A", "", "C"]})
    assert validate(data, require_codes=True) is data
    assert validate(make(items={"semantic_id": None}))  # codes are optional
    same_codes = [["<a_0>", "<b_0>"]] * 3
    assert validate(make(items={"semantic_id": same_codes}))  # the catalog has a policy for these


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": ["a", "b", "a"]}, r"items: item_id 'a' appears 2 times \(rows 0, 2\)"),
        ({"item_id": ["a", None, "c"]}, r"1 row\(s\) without item_id, first row 1"),
        ({"item_id": ["a", "b", ""]}, r"1 row\(s\) without item_id, first row 2"),
        ({"item_id": [1, 2, 3]}, r"column 'item_id' holds Int64, it must hold String"),
        ({"title": ["A", None, "C"]}, r"1 row\(s\) without title, first row 1"),
        ({"semantic_id": None}, r"no 'semantic_id' column \(columns: \['item_id'\]\)"),
        ({"semantic_id": ["<a_0>", "<a_1>", "<a_2>"]}, r"'semantic_id' holds String; it must hold lists of strings"),
        ({"semantic_id": [["<a_0>"], [], ["<a_1>"]]}, r"1 item\(s\) have no code sequence, first item_id='b', row=1"),
        (
            {"semantic_id": [["<a_0>"], None, ["<a_1>"]]},
            r"1 item\(s\) have no code sequence, first item_id='b', row=1",
        ),
        ({"semantic_id": [["x", "y"], ["x", ""], ["x", "z"]]}, r"empty code token, first item_id='b', row=1"),
        (
            {"semantic_id": [["x", "y"], ["x"], ["z", "y"]]},
            r"different depths: 2 item\(s\) have 2 levels, but 1 .*'b'",
        ),
    ],
)
def test_unsound_items_are_named(items, message):
    with pytest.raises(ValueError, match=message):
        validate(make(items=items), require_codes=True)


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        ({"item_id": ["a", "x", "y", "x"]}, r"3 interaction\(s\) with 2 unknown item\(s\) .*user_id='u', position=1"),
        ({"item_id": ["a", None, "c", "a"]}, r"1 row\(s\) without item_id, first row 1"),
        ({"user_id": ["u", "u", "u", ""]}, r"1 row\(s\) without user_id, first row 3"),
        ({"user_id": [1, 1, 1, 2]}, r"column 'user_id' holds Int64, it must hold String"),
        ({"position": None}, r"no column 'position'"),
        ({"position": [0, 1, 3, 0]}, r"without gaps or repeats, first user_id='u', position=3, expected=2"),
        ({"position": [0, 1, 1, 0]}, r"without gaps or repeats, first user_id='u', position=1, expected=2"),
        ({"position": [0, 1, 2, 1]}, r"without gaps or repeats, first user_id='v', position=1, expected=0"),
        ({"timestamp": [1.0, math.nan, 2.0, 0.0]}, r"1 .*without a finite timestamp, first user_id='u', position=1"),
        ({"timestamp": [1.0, None, 2.0, 0.0]}, r"1 interaction\(s\) without a finite timestamp"),
        ({"timestamp": [1, None, 2, 0]}, r"1 interaction\(s\) without a finite timestamp"),
        ({"timestamp": [1.0, math.inf, 2.0, 0.0]}, r"without a finite timestamp"),
        ({"timestamp": ["1", "2", "3", "4"]}, r"column 'timestamp' holds String; use numbers"),
        (
            {"timestamp": [1.0, 3.0, 2.0, 0.0]},
            r"1 interaction\(s\) are earlier .*position=2, item_id='c', timestamp=2",
        ),
        (
            {"split": ["train", "train", "dev", "train"]},
            r"1 interaction\(s\) of an unknown split, first .*split='dev'",
        ),
        ({"split": ["train", "train", None, "train"]}, r"1 interaction\(s\) of an unknown split"),
        ({"split": ["train", "test", "valid", "train"]}, r"1 interaction\(s\) follow one of a later split"),
        ({"split": ["train", "train", "train", "test"]}, r"1 target\(s\) have an empty history, first user_id='v'"),
    ],
)
def test_unsound_interactions_are_named(interactions, message):
    with pytest.raises(ValueError, match=message):
        validate(make(interactions), sources=("my events", "my items"))
    with pytest.raises(ValueError, match="^my events: "):
        validate(make(interactions), sources=("my events", "my items"))


def test_no_rows():
    with pytest.raises(ValueError, match="interactions: no rows"):
        validate(RecData(make().interactions.select([]), make().items))
    with pytest.raises(ValueError, match="items: no rows"):
        validate(RecData(make().interactions, make().items.select([])))
