"""Rows of a [`SequenceDataset`] to batches of item-ID recommenders.

Shapes: R rows of a batch, W slots, G targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .sequences import IGNORE_INDEX, SequenceDataset


View = Callable[[SequenceDataset, np.ndarray, int, int], list[np.ndarray]]
"""Sequences for samples [G] of a data set, given a seed and an epoch: one per sample."""


def same_target_view(dataset: SequenceDataset, samples: np.ndarray, seed: int, epoch: int) -> list[np.ndarray]:
    """Histories of other samples with the same targets (DuoRec, LARES)."""
    return [dataset.prefix(sample) for sample in dataset.same_target(samples, seed, epoch)]


class SequenceCollator:
    """
    Puts sequences into rows. Where the data set is packed, several short sequences share a row, which wastes next to
    nothing on padding; `position_ids` that start again at 0 keep them apart.

    ```text
    a b c      d e                input_ids     a b c d e 0
                          ->      position_ids  0 1 2 0 1 0
    ```

    Args:
        dataset (`SequenceDataset`): where the rows come from.
        views (`Sequence`, *optional*): what contrastive losses compare: for each view None, the batch itself once
            more (dropout makes it another one), or a function such as [`same_target_view`].
        seed (`int`, *optional*, defaults to 0): of the views.

    Returns (when called with a list of rows):
        `dict`: `input_ids`, `labels` and, packed, `position_ids` [R, W]; `user_ids`; with views `view_input_ids` and,
        packed, `view_position_ids` [V, W], and `view_index` [views * G]: where in these rows, end to end, the states
        are that are compared, one view after the other, each in the order of the G targets in `labels`; and
        `sample_users` [G], a number for the user of each of these targets.
    """

    def __init__(self, dataset: SequenceDataset, views: Sequence[View | None] = (), seed: int = 0):
        self.dataset, self.views, self.seed = dataset, tuple(views), seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that outlive an epoch see it, too

    def set_epoch(self, epoch: int) -> None:
        """Selects what the views draw in that epoch; the trainer calls this."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.dataset.packed:  # long sequences first, so that short ones fill up what they leave
            rows = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)
        layout = _Layout([row["input_ids"] for row in rows], self.dataset)
        batch = {
            **layout.inputs(),
            "labels": layout.filled(np.concatenate([row["labels"] for row in rows]), IGNORE_INDEX),
        }
        users, counts = zip(*((row["user_number"], len(row["samples"])) for row in rows), strict=True)
        batch["sample_users"] = torch.from_numpy(np.repeat(users, counts))
        if self.views:
            samples = np.concatenate([row["samples"] for row in rows])
            batch |= _stack([self._view(view, layout, batch["labels"], samples) for view in self.views])
        return {**batch, **self.extras(rows, layout), "user_ids": [row["user_id"] for row in rows]}

    def extras(self, rows: list[dict[str, Any]], layout: _Layout) -> dict[str, Any]:
        """What a subclass adds to a batch of rows, which are in the order of the layout."""
        return {}

    def _view(
        self, view: View | None, layout: _Layout, labels: torch.Tensor, samples: np.ndarray
    ) -> tuple[dict[str, torch.Tensor], tuple[np.ndarray, np.ndarray]]:
        """Rows of a view, and in which of them and where the state of each sample is."""
        if view is None:
            return layout.inputs(), labels.ne(IGNORE_INDEX).numpy().nonzero()
        sequences = view(self.dataset, samples, self.seed, int(self._epoch))
        layout = _Layout(sequences, self.dataset)
        return layout.inputs(), layout.ends()


class NumberedCollator(SequenceCollator):
    """
    [`SequenceCollator`] that tells what is where, so that random numbers can belong to an item of a sequence, however
    rows are laid out and dealt to processes.

    Returns (when called with a list of rows):
        `dict`: as [`SequenceCollator`], `token_ids` [R, W], another number for every item of every row of the data
        set, 0 for padding; and `samples` [G], the numbers of the samples in the order of `labels`.
    """

    def extras(self, rows: list[dict[str, Any]], layout: _Layout) -> dict[str, Any]:
        # The rows' first samples differ, and a row has at most max_history items.
        first = np.repeat([row["samples"][0] for row in rows], layout.lengths)
        return {
            "token_ids": layout.filled(first * self.dataset.max_history + layout.slot + 1, 0),
            "samples": torch.from_numpy(np.concatenate([row["samples"] for row in rows])),
        }


class _Layout:
    """Where in a batch of rows each of several sequences stands."""

    def __init__(self, sequences: list[np.ndarray], dataset: SequenceDataset):
        self.packed, self.values = dataset.packed, np.concatenate(sequences)
        self.lengths = np.array([len(sequence) for sequence in sequences])
        if dataset.packed:
            order = np.argsort(-self.lengths, kind="stable")
            self.row, self.start = np.empty((2, len(order)), dtype=np.int64)
            self.row[order], self.start[order] = next_fit(self.lengths[order], dataset.max_history)
        else:
            self.row, self.start = np.arange(len(self.lengths)), np.zeros_like(self.lengths)
        self.slot = np.arange(len(self.values)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        self.place = np.repeat(self.row, self.lengths), np.repeat(self.start, self.lengths) + self.slot

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model reads."""
        inputs = {"input_ids": self.filled(self.values, 0)}
        return inputs | {"position_ids": self.filled(self.slot, 0)} if self.packed else inputs

    def filled(self, values: np.ndarray, filler: int) -> torch.Tensor:
        """[R, W] with a value for each item of the sequences, and the filler elsewhere."""
        array = np.full((self.row.max() + 1, (self.start + self.lengths).max()), filler, dtype=np.int64)
        array[self.place] = values
        return torch.from_numpy(array)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and slot of the last item of each sequence."""
        return self.row, self.start + self.lengths - 1


def _stack(parts: list[tuple[dict[str, torch.Tensor], tuple[np.ndarray, np.ndarray]]]) -> dict[str, torch.Tensor]:
    """The rows of all views below each other, and the flat index of the states of their samples."""
    width = max(inputs["input_ids"].shape[1] for inputs, _ in parts)
    names, first_row, index = list(parts[0][0]), 0, []
    for inputs, (row, slot) in parts:
        index.append((first_row + row) * width + slot)
        first_row += len(inputs["input_ids"])
    stacked = {
        f"view_{name}": torch.cat([F.pad(inputs[name], (0, width - inputs[name].shape[1])) for inputs, _ in parts])
        for name in names
    }
    return {**stacked, "view_index": torch.from_numpy(np.concatenate(index))}


def next_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Row and first slot of each sequence; a sequence that does not fit into the row of the one before opens the next.

    Example:
        >>> row, start = next_fit(np.array([2, 3, 4]), width=6)
        >>> row.tolist(), start.tolist()
        ([0, 0, 1], [0, 2, 0])
    """
    rows, starts, row, used = [], [], 0, 0
    for length in lengths.tolist():
        if used + length > width:
            row, used = row + 1, 0
        rows.append(row)
        starts.append(used)
        used += length
    return np.array(rows), np.array(starts)


__all__ = ["NumberedCollator", "SequenceCollator", "View", "next_fit", "same_target_view"]
