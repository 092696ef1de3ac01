"""Teacher text, read and checked."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from hf_latentrec.cot import match_examples, read_teacher_text


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "cot.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


def row(user_id="u", target="a", cot="Text."):
    return {"user_id": user_id, "target": target, "cot": cot}


def test_rows_in_order_with_ids_as_text(write):
    path = write(row(5, 7), {"user_id": "u", "cot": "For all.", "more": 1}, row("u", None) | {"user_id": "v"})
    assert read_teacher_text(path).to_list() == [
        {"user_id": "5", "target": "7", "cot": "Text."},
        {"user_id": "u", "target": None, "cot": "For all."},
        {"user_id": "v", "target": None, "cot": "Text."},
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), {"user_id": "u"}], r"line 2: expected user_id, cot .*found \['user_id'\]"),
        ([row(), {"cot": "Text."}], "line 2: expected user_id"),
        ([row(), row("v", cot=3)], "line 2: cot is 3, not text"),
        ([row(), row("v", cot=None)], "line 2: cot is None"),
        ([row(), row("v", cot=" \n"), row("w", cot="")], r"line 2: user 'v' has an empty cot \(2 such row"),
        ([row(), row("v"), row()], r"user 'u' with target 'a' has 2 texts \(lines 1, 3; 2 such row"),
        ([row("v", None), row(), row("v", None)], r"user 'v' with target None has 2 texts \(lines 1, 3"),
        ([row(1.5)], "line 1: 1.5 is not an item id"),
        ([row(), "{"], "line 2 is not JSON"),
        ([], "no row"),
    ],
)
def test_bad_files_are_one_clear_error(write, rows, message):
    with pytest.raises(ValueError, match=message):
        read_teacher_text(write(*rows))


def test_text_and_examples_are_counted():
    examples = Dataset.from_list([{"user_id": u, "target": t} for u, t in ["ua", "ub", "va", "wa", "wb", "xa"]])
    keys = [("u", "a"), ("u", None), ("v", "z"), ("w", "b"), ("n", "a"), ("m", None)]
    text = Dataset.from_list([{"user_id": u, "target": t, "cot": "Text."} for u, t in keys])
    assert match_examples(text, examples) == {
        "examples": 6,
        "with_cot": 3,  # u's own, u's general one, w's own
        "without_cot": 3,
        "unknown_users": 2,
        "unknown_targets": 1,
    }
