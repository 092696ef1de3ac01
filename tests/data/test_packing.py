from __future__ import annotations

import random

import pytest
from datasets import Dataset

from hf_latentrec.data import pack_examples


def unpack(packed: Dataset) -> list[tuple[str, list[str], str]]:
    return [(row["user_id"], row["items"][:t], row["items"][t]) for row in packed for t in row["targets"]]


def rows_of(examples: Dataset) -> list[tuple[str, list[str], str]]:
    return [(row["user_id"], row["history"], row["target"]) for row in examples]


def slow_row_count(rows: list[tuple[str, list[str], str]]) -> int:
    follows = [b[0] == a[0] and b[1] == a[1] + [a[2]] for a, b in zip(rows, rows[1:], strict=False)]
    return len(rows) - sum(follows)


def random_examples(seed: int) -> Dataset:
    """Few items and users, so that near misses (same length, other user, other items) are frequent."""
    rng = random.Random(seed)
    rows = []
    for _ in range(60):
        user, sequence = f"u{rng.randrange(2)}", [rng.choice("abc") for _ in range(rng.randrange(2, 9))]
        window, gap = rng.choice([2, 4, 20]), rng.random() < 0.3
        for p in range(1, len(sequence)):
            if not (gap and p == 2):
                rows.append({"user_id": user, "history": sequence[max(0, p - window) : p], "target": sequence[p]})
    return Dataset.from_list(rows)


@pytest.mark.parametrize("seed", range(8))
def test_unpacks_to_exactly_the_given_examples(seed):
    examples = random_examples(seed)
    packed = pack_examples(examples)
    assert unpack(packed) == rows_of(examples)
    assert len(packed) == slow_row_count(rows_of(examples))
    assert all(row["targets"][-1] == len(row["items"]) - 1 for row in packed)


def test_near_misses_stay_apart():
    rows = [
        ("u", ["a"], "b"),
        ("v", ["a", "b"], "c"),  # another user
        ("v", ["a", "b", "x"], "d"),  # another target in between
        ("v", ["y", "b", "x", "d"], "e"),  # another first item
        ("v", ["y", "b", "x", "d"], "f"),  # not longer
    ]
    examples = Dataset.from_list([dict(zip(("user_id", "history", "target"), row, strict=True)) for row in rows])
    assert [row["targets"] for row in pack_examples(examples)] == [[1], [2], [3], [4], [4]]


@pytest.mark.parametrize("max_history", [1, 3])
def test_histories_are_cut_before_they_are_packed(max_history):
    examples = random_examples(1)
    cut = [(user, history[-max_history:], target) for user, history, target in rows_of(examples)]
    packed = pack_examples(examples, max_history)
    assert unpack(packed) == cut
    assert len(packed) == slow_row_count(cut)


def test_selected_rows_are_respected():
    examples = random_examples(0).select(range(10, 30))
    assert unpack(pack_examples(examples)) == rows_of(examples)


def test_empty_history_is_named():
    examples = Dataset.from_dict({"user_id": ["u", "v"], "history": [["a"], []], "target": ["b", "c"]})
    with pytest.raises(ValueError, match=r"row 1: user 'v' has an empty history before target 'c' \(1 such row"):
        pack_examples(examples)
