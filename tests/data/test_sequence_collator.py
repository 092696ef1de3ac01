"""Rows of a batch: every sequence whole, apart from its neighbours, with its labels and views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_latentrec import ItemTable
from hf_latentrec.data import SequenceDataset
from hf_latentrec.data.sequence_collator import SequenceCollator, next_fit, same_target_view
from hf_latentrec.data.sequences import IGNORE_INDEX


ITEMS = ItemTable([f"i{row}" for row in range(9)])
SEQUENCES = [[1, 2], [3, 4, 5, 6], [7, 2], [8, 9, 1, 2, 3, 4], [5, 2], [6, 1, 5]]
MAX_HISTORY = 4


def make_dataset(packed: bool) -> SequenceDataset:
    rows = [(user, items[:end], items[end]) for user, items in enumerate(SEQUENCES) for end in range(1, len(items))]
    columns = {
        "user_id": [f"u{user}" for user, _, _ in rows],
        "history": [[f"i{item - 1}" for item in history] for _, history, _ in rows],
        "target": [f"i{target - 1}" for _, _, target in rows],
    }
    return SequenceDataset(Dataset.from_dict(columns), ITEMS, MAX_HISTORY, packed)


def sequences_of(input_ids: torch.Tensor, position_ids: torch.Tensor | None) -> list[tuple[int, int, list[int]]]:
    """Row, first slot and items of every sequence of a batch."""
    found = []
    for row, ids in enumerate(input_ids.tolist()):
        starts = [0] if position_ids is None else [s for s, p in enumerate(position_ids[row].tolist()) if p == 0]
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            items = [item for item in ids[start:stop] if item != 0]
            if items:
                assert ids[start : start + len(items)] == items  # padding stands behind
                if position_ids is not None:
                    assert position_ids[row, start : start + len(items)].tolist() == list(range(len(items)))
                found.append((row, start, items))
    return found


def samples_of(batch: dict) -> list[tuple[list[int], int]]:
    """History and target of every label, row by row."""
    samples = []
    for row, start, items in sequences_of(batch["input_ids"], batch.get("position_ids")):
        for place in range(len(items)):
            if (label := batch["labels"][row, start + place].item()) != IGNORE_INDEX:
                samples.append((items[: place + 1], label))
    assert len(samples) == batch["labels"].ne(IGNORE_INDEX).sum()  # no label at padding
    return samples


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_holds_its_rows(packed):
    dataset = make_dataset(packed)
    rows = [dataset[row] for row in range(len(dataset))]
    batch = SequenceCollator(dataset)(rows)
    samples = [(dataset.prefix(sample).tolist(), target) for sample, target in enumerate(dataset.targets)]
    assert sorted(samples_of(batch)) == sorted(samples)
    assert sorted(batch["user_ids"]) == sorted(row["user_id"] for row in rows)
    found = [items for _, _, items in sequences_of(batch["input_ids"], batch.get("position_ids"))]
    assert sorted(found) == sorted(row["input_ids"].tolist() for row in rows)
    assert ("position_ids" in batch) == packed and batch["input_ids"].shape[1] == MAX_HISTORY
    if packed:  # 21 items in rows of 4, the longest first
        assert len(batch["input_ids"]) < len(rows) and batch["input_ids"].ne(0).float().mean() > 0.75
    assert set(batch) == {"input_ids", "labels", "user_ids", "sample_users"} | ({"position_ids"} if packed else set())


def test_users_stand_in_the_order_of_the_labels():
    dataset = make_dataset(True)
    batch = SequenceCollator(dataset)([dataset[row] for row in (0, 1, 2)])
    assert batch["user_ids"] == ["u1", "u0", "u2"]
    assert [target for _, target in samples_of(batch)] == [4, 5, 6, 2, 2]
    first, second, third, *others = batch["sample_users"].tolist()
    assert first == second == third and len({first, *others}) == 3


def test_a_batch_is_no_wider_than_it_must_be():
    dataset = make_dataset(False)
    assert SequenceCollator(dataset)([dataset[0]])["input_ids"].tolist() == [[1]]


@pytest.mark.parametrize("packed", [False, True])
def test_views_of_the_samples(packed):
    """A view of the batch itself and one of other histories: `view_index` finds the states, sample by sample."""
    dataset = make_dataset(packed)
    collator = SequenceCollator(dataset, views=(None, same_target_view), seed=5)
    collator.set_epoch(2)
    batch = collator([dataset[row] for row in range(len(dataset))])
    samples = samples_of(batch)
    flat_ids = batch["view_input_ids"].flatten()
    ends = {}  # flat place of every position to the items up to it
    width = batch["view_input_ids"].shape[1]
    for row, start, items in sequences_of(batch["view_input_ids"], batch.get("view_position_ids")):
        for place in range(len(items)):
            ends[row * width + start + place] = items[: place + 1]
    views = [ends[index] for index in batch["view_index"].tolist()]
    assert len(views) == 2 * len(samples) and (flat_ids[batch["view_index"]] != 0).all()
    assert views[: len(samples)] == [history for history, _ in samples]
    numbers = {(tuple(dataset.prefix(sample)), dataset.targets[sample]): sample for sample in range(13)}
    assert len(numbers) == 13
    for (history, target), view in zip(samples, views[len(samples) :], strict=True):
        sample = numbers[tuple(history), target]
        [partner] = dataset.same_target(np.array([sample]), seed=5, epoch=2)
        assert view == dataset.prefix(partner).tolist()
    several = [list(dataset.targets).count(target) > 1 for _, target in samples]
    assert [view != history for view, (history, _) in zip(views[len(samples) :], samples, strict=True)] == several


def test_views_change_with_the_epoch_and_not_with_the_call():
    dataset = make_dataset(True)
    collator = SequenceCollator(dataset, views=(same_target_view,))
    rows = [dataset[row] for row in range(len(dataset))]
    drawn = []
    for epoch in (0, 0, 1, 2, 3):
        collator.set_epoch(epoch)
        drawn.append(collator(rows)["view_input_ids"].tolist())
    assert drawn[0] == drawn[1] and any(other != drawn[0] for other in drawn[2:])


def test_rows_are_filled_one_after_the_other():
    row, start = next_fit(np.array([4, 3, 1, 2, 2, 1]), width=4)
    assert row.tolist() == [0, 1, 1, 2, 2, 3] and start.tolist() == [0, 0, 3, 0, 2, 0]


def test_workers_that_outlive_an_epoch_draw_new_views():
    dataset = make_dataset(packed=True)
    collator = SequenceCollator(dataset, (None, same_target_view))
    loader = DataLoader(dataset, batch_size=len(dataset), collate_fn=collator, num_workers=1, persistent_workers=True)
    found, expected = [], []
    for epoch in range(4):
        collator.set_epoch(epoch)
        found += [batch["view_input_ids"] for batch in loader]
        expected.append(collator([dataset[row] for row in range(len(dataset))])["view_input_ids"])
    torch.testing.assert_close(found, expected)
    assert any(view.shape != found[0].shape or not torch.equal(view, found[0]) for view in found)
