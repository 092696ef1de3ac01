"""Examples as integer sequences, against the examples themselves."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from datasets import Dataset

from hf_latentrec import ItemTable
from hf_latentrec.data import SequenceDataset, training_popularity
from hf_latentrec.data.sequences import IGNORE_INDEX, random_bits


ITEMS = ItemTable([f"i{row}" for row in range(9)])
MAX_HISTORY = 3


def make_examples() -> Dataset:
    """Users of one to six examples; histories longer than the maximum; a user that comes again, one with gaps."""
    sequences = {
        "u0": [0, 1, 2, 3, 4, 5, 6],
        "u1": [7, 1],
        "u2": [8, 7, 6, 5],
        "u3": [2, 1, 4, 1],
    }
    rows = [(user, items[:end], items[end]) for user, items in sequences.items() for end in range(1, len(items))]
    del rows[8]  # the middle one of u2's three examples
    rows.append(("u1", [7, 1, 3, 8, 0], 5))
    return Dataset.from_dict(
        {
            "user_id": [user for user, _, _ in rows],
            "history": [[f"i{item}" for item in history] for _, history, _ in rows],
            "target": [f"i{target}" for _, _, target in rows],
        }
    )


def make_dataset(packed: bool, max_history: int = MAX_HISTORY) -> SequenceDataset:
    return SequenceDataset(make_examples(), ITEMS, max_history, packed)


def numbered(item_ids: list[str]) -> list[int]:
    return [int(item_id[1:]) + 1 for item_id in item_ids]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("max_history", [1, 3, 20])
def test_the_rows_hold_exactly_the_examples(packed, max_history):
    dataset, found = make_dataset(packed, max_history), []
    for row in dataset:
        assert row["input_ids"].shape == row["labels"].shape and row["input_ids"].dtype == np.int64
        places = np.flatnonzero(row["labels"] != IGNORE_INDEX)
        assert len(places) == len(row["samples"]) and len(row["input_ids"]) <= max_history
        for place, sample in zip(places, row["samples"], strict=True):
            found.append((row["user_id"], row["input_ids"][: place + 1].tolist(), row["labels"][place], sample))
    assert found == [
        (example["user_id"], numbered(example["history"])[-max_history:], numbered([example["target"]])[0], sample)
        for sample, example in enumerate(make_examples())
    ]
    assert len(dataset) == (len(found) if not packed else len(list(dataset)))


def test_examples_that_continue_each_other_share_a_row():
    assert [row["samples"].tolist() for row in make_dataset(True, 20)] == [
        [0, 1, 2, 3, 4, 5], [6], [7], [8], [9, 10, 11], [12],
    ]  # fmt: skip
    assert [row["samples"].tolist() for row in make_dataset(True)] == [
        [0, 1, 2], [3], [4], [5], [6], [7], [8], [9, 10, 11], [12],
    ]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_histories_and_targets_of_samples(packed):
    dataset, examples = make_dataset(packed), make_examples()
    assert dataset.num_samples == len(examples) == 13
    assert dataset.targets.tolist() == numbered(examples["target"])
    for sample, history in enumerate(examples["history"]):
        assert dataset.prefix(sample).tolist() == numbered(history)[-MAX_HISTORY:]


@pytest.mark.parametrize("packed", [False, True])
def test_rows_by_number(packed):
    dataset = make_dataset(packed)
    assert dataset[-1]["input_ids"].tolist() == dataset[len(dataset) - 1]["input_ids"].tolist() == [4, 9, 1]
    for row in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[row]


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_a_user_have_a_number_in_common(packed):
    rows = list(make_dataset(packed, max_history=2))
    pairs = {(row["user_number"], row["user_id"]) for row in rows}
    assert len(rows) > len(pairs) == len({number for number, _ in pairs}) == len(set(make_examples()["user_id"]))


def same_targets() -> dict[int, list[int]]:
    groups = defaultdict(list)
    for sample, target in enumerate(make_examples()["target"]):
        groups[target].append(sample)
    return {sample: group for group in groups.values() for sample in group}


@pytest.mark.parametrize("packed", [False, True])
def test_another_sample_with_the_same_target(packed):
    dataset, groups = make_dataset(packed), same_targets()
    samples = np.arange(13)
    assert {len(group) for group in groups.values()} >= {1, 2, 4}
    drawn = [Counter() for _ in samples]
    for epoch in range(600):
        for sample, partner in zip(samples, dataset.same_target(samples, seed=3, epoch=epoch), strict=True):
            drawn[sample][int(partner)] += 1
    for sample, counts in enumerate(drawn):
        others = [other for other in groups[sample] if other != sample] or [sample]
        assert sorted(counts) == others
        for count in counts.values():
            assert abs(count - 600 / len(others)) <= 4 * (600 / len(others) * (1 - 1 / len(others))) ** 0.5


def test_the_choice_depends_on_sample_seed_and_epoch_alone():
    dataset = make_dataset(True)
    whole = dataset.same_target(np.arange(13), seed=1, epoch=2)
    shares = [dataset.same_target(np.array(share), seed=1, epoch=2) for share in ([5, 0, 12], [11, 3])]
    assert shares[0].tolist() == whole[[5, 0, 12]].tolist() and shares[1].tolist() == whole[[11, 3]].tolist()
    assert whole.tolist() == make_dataset(False).same_target(np.arange(13), seed=1, epoch=2).tolist()
    many = [[dataset.same_target(np.arange(13), seed, epoch).tolist() for seed in range(9)] for epoch in range(9)]
    assert len({tuple(choice) for row in many for choice in row}) > 20


def test_random_bits_of_seeds_epochs_and_numbers_have_nothing_in_common():
    numbers = np.arange(300)
    streams = np.concatenate([random_bits(numbers, seed, epoch) for seed in range(5) for epoch in range(5)])
    assert len(np.unique(streams)) == len(streams)
    bits = (streams[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 4 * 0.5 / len(streams) ** 0.5
    assert random_bits(numbers, 0, 0).tolist() == random_bits(numbers, 0, 0).tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("histories", "targets", "message"),
    [
        ([], [], "there are no examples"),
        ([["i1"], []], ["i2", "i3"], "'u1'.* empty"),
        ([["i1"], ["i1", "x"]], ["i2", "i3"], "item_id 'x'"),
        ([["i1"]], ["x"], "item_id 'x'"),
    ],
)
def test_examples_that_are_none(packed, histories, targets, message):
    columns = {"user_id": [f"u{row}" for row in range(len(targets))], "history": histories, "target": targets}
    with pytest.raises(ValueError, match=message):
        SequenceDataset(Dataset.from_dict(columns), ITEMS, packed=packed)


def test_popularity_counts_every_training_event_once():
    """Against a count of the events themselves: histories repeat them, and long ones are cut."""
    rng = np.random.default_rng(3)
    events = {f"u{user}": [f"i{item}" for item in rng.integers(0, 9, rng.integers(2, 30))] for user in range(12)}
    rows = [
        {"user_id": user, "history": sequence[max(0, end - 5) : end], "target": sequence[end]}
        for user, sequence in events.items()
        for end in range(1, len(sequence))
    ]
    ids = [f"i{item}" for item in range(11)]  # two of them never occur
    counts = [sum(sequence.count(item_id) for sequence in events.values()) for item_id in ids]
    assert training_popularity(Dataset.from_list(rows), ids).tolist() == counts
    assert counts[-2:] == [0, 0]
