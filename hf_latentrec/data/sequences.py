"""Examples as integer sequences for item-ID recommenders: one row per history, or one per example.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from datasets import Dataset

from .packing import pack_examples
from .schema import to_polars


IGNORE_INDEX = -100


class SequenceDataset:
    """
    Item rows + 1 of every history, and at each position the next item where it is a target.

    ```text
    examples     a -> b   a b -> c   a b c -> d
    packed       input_ids  a b c    labels  b c d
    unpacked     input_ids  a        labels  b
                 input_ids  a b      labels  - c
                 input_ids  a b c    labels  - - d
    ```

    An example's number counts the targets row by row, the same in both layouts: a *sample*.

    Args:
        examples (`datasets.Dataset`): rows of `user_id, history, target`, as the splits give them.
        items (`ItemTable`): which item stands in which row.
        max_history (`int`, *optional*, defaults to 20): newest items of a history that count, as many as the model
            reads.
        packed (`bool`, *optional*, defaults to `True`): all examples that continue each other in one row (see
            [`pack_examples`]), for models whose positions see only what is before them.

    Raises:
        ValueError: for an unknown item, an empty history, or no examples.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_latentrec import ItemTable
    >>> from hf_latentrec.data import SequenceDataset
    >>> examples = Dataset.from_dict(
    ...     {"user_id": ["u", "u"], "history": [["a"], ["a", "b"]], "target": ["b", "c"]}
    ... )
    >>> row = SequenceDataset(examples, ItemTable(["a", "b", "c"]))[0]
    >>> row["input_ids"].tolist(), row["labels"].tolist()
    ([1, 2], [2, 3])

    ```
    """

    def __init__(self, examples: Dataset, items: Any, max_history: int = 20, packed: bool = True):
        if len(examples) == 0:
            raise ValueError("SequenceDataset: there are no examples; pass a split with at least one")
        if packed:
            rows = to_polars(pack_examples(examples, max_history))
        else:
            rows = to_polars(examples).select(
                "user_id",
                items=pl.concat_list(pl.col("history").list.tail(max_history), "target"),
                targets=pl.concat_list(pl.col("history").list.tail(max_history).list.len().cast(pl.Int64)),
            )
        self.packed, self.max_history, self.items_fingerprint = packed, max_history, items.fingerprint
        self.user_ids: list[str] = rows["user_id"].to_list()
        self._user_number = rows["user_id"].rank("dense").to_numpy().astype(np.int64)
        length = rows["items"].list.len().to_numpy().astype(np.int64)
        if (length < 2).any():
            row = int(np.argmin(length))
            raise ValueError(
                f"SequenceDataset: the history of user_id {self.user_ids[row]!r} (row {row}) is empty; remove the row"
            )
        self.offsets = np.concatenate([[0], np.cumsum(length)])
        self.items = items.rows(rows["items"].list.explode().to_list()) + 1  # row r: offsets[r] to offsets[r + 1]
        targets = rows["targets"].list.explode().to_numpy()
        self.sample_row = np.repeat(np.arange(len(rows)), rows["targets"].list.len().to_numpy())
        self._target_at = self.offsets[self.sample_row] + targets  # where in `items` the target of a sample stands
        self._is_target = np.zeros(len(self.items), dtype=bool)
        self._is_target[self._target_at] = True
        self._first_sample = np.searchsorted(self.sample_row, np.arange(len(rows) + 1))
        self._group_by_target()

    def _group_by_target(self) -> None:
        """The samples of each target, side by side, and the place of each sample among them."""
        self._by_target = np.argsort(self.targets, kind="stable")
        ordered = self.targets[self._by_target]
        start = np.searchsorted(ordered, ordered)
        self._group_start, self._group_size, self._place = np.empty((3, len(ordered)), dtype=np.int64)
        self._group_start[self._by_target] = start
        self._group_size[self._by_target] = np.searchsorted(ordered, ordered, side="right") - start
        self._place[self._by_target] = np.arange(len(ordered)) - start

    def __len__(self) -> int:
        """Rows."""
        return len(self.user_ids)

    @property
    def num_samples(self) -> int:
        """Examples, in all rows together."""
        return len(self.sample_row)

    @property
    def targets(self) -> np.ndarray:
        """Target (item row + 1) of each sample, [S]."""
        return self.items[self._target_at]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """
        `input_ids` and `labels` [n] int64 (-100: no target), `samples` [targets] int64, `user_id`, and `user_number`,
        the same in all rows of a user.
        """
        row = range(len(self))[row]  # also from the end; an IndexError beyond
        start, stop = self.offsets[row], self.offsets[row + 1]
        following = self.items[start + 1 : stop]
        return {
            "input_ids": self.items[start : stop - 1],
            "labels": np.where(self._is_target[start + 1 : stop], following, IGNORE_INDEX),
            "samples": np.arange(self._first_sample[row], self._first_sample[row + 1]),
            "user_id": self.user_ids[row],
            "user_number": self._user_number[row],
        }

    def prefix(self, sample: int) -> np.ndarray:
        """The history of a sample, item rows + 1, oldest first."""
        return self.items[self.offsets[self.sample_row[sample]] : self._target_at[sample]]

    def same_target(self, samples: np.ndarray, seed: int = 0, epoch: int = 0) -> np.ndarray:
        """
        For each sample another one with the same target, or itself where there is none.

        Which one depends on the sample, the seed and the epoch alone, so that a run draws the same on any number of
        processes and after a restart.

        Args:
            samples (`np.ndarray` [G]): numbers of samples.
            seed (`int`, *optional*, defaults to 0): of the choice.
            epoch (`int`, *optional*, defaults to 0): of the choice.

        Returns:
            `np.ndarray` [G], int64.
        """
        others = np.maximum(self._group_size[samples] - 1, 1)
        choice = (random_bits(samples, seed, epoch) % others.astype(np.uint64)).astype(np.int64)
        choice += choice >= self._place[samples]  # not the sample itself
        choice = np.where(self._group_size[samples] > 1, choice, 0)
        return self._by_target[self._group_start[samples] + choice]


def training_popularity(train: Dataset, item_ids: Sequence[str]) -> np.ndarray:
    """
    How often each item occurs in the sequences that a model trains on, as an input or as a target.

    Args:
        train (`datasets.Dataset`): examples `user_id, history, target` of the training split, a user's in time order.
        item_ids (`Sequence[str]`, length I): of the catalog.

    Returns:
        `np.ndarray` [I], int64: 0 for a cold item. What `ItemTable(..., popularity=...)` takes.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_latentrec.data import training_popularity
    >>> examples = {"user_id": ["u", "u"], "history": [["a"], ["a", "b"]], "target": ["b", "a"]}
    >>> training_popularity(Dataset.from_dict(examples), ["a", "b", "c"])
    array([2, 1, 0])

    ```
    """
    rows = to_polars(train)
    # Of a user's first example the history counts, too; later histories repeat what was a target before.
    first = rows.group_by("user_id", maintain_order=True).first()["history"].list.explode()
    counts = pl.concat([first, rows["target"]]).value_counts(name="count")
    named = pl.DataFrame({"item_id": list(item_ids)}).join(
        counts, left_on="item_id", right_on=counts.columns[0], how="left", maintain_order="left"
    )
    return named["count"].fill_null(0).to_numpy().astype(np.int64)


def random_bits(numbers: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """64 random bits for each number, seed and epoch (the finalizer of SplitMix64), uint64."""
    with np.errstate(over="ignore"):
        key = np.uint64(seed * 0xD6E8FEB86659FD93 + epoch * 0xD1342543DE82EF95 & 0xFFFFFFFFFFFFFFFF)
        bits = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))


__all__ = ["SequenceDataset", "random_bits", "training_popularity"]
