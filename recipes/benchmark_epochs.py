"""Batches that stand for an epoch, one example per target or packed, for `benchmark_training.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from datasets import Dataset

from hf_latentrec.data import pack_examples
from hf_latentrec.data.schema import to_polars


@dataclass
class Epoch:
    """Batches of an epoch, sorted by length, and how many items each reads per target."""

    batches: list[Dataset]
    items_per_target: np.ndarray


def cut(rows: Dataset, num_items: np.ndarray, num_targets: np.ndarray, size: int) -> Epoch:
    """Sorts rows by length and cuts them into batches of about `size` targets."""
    order = np.lexsort([num_targets, num_items])
    batch_of_row = (num_targets[order].cumsum() - 1) // size
    starts = np.flatnonzero(np.diff(batch_of_row, prepend=-1))
    items, targets = (np.add.reduceat(counts[order], starts) for counts in (num_items, num_targets))
    return Epoch([rows.select(part) for part in np.split(order, starts[1:])], items / targets)


def unpack(rows: Dataset) -> Dataset:
    """One example per target of packed rows."""
    examples = [
        {"user_id": row["user_id"], "history": row["items"][:target], "target": row["items"][target]}
        for row in rows
        for target in row["targets"]
    ]
    return Dataset.from_list(examples)


def separate_epoch(examples: Dataset, size: int) -> Epoch:
    """One example per target."""
    lengths = to_polars(examples)["history"].list.len().to_numpy()
    return cut(examples, lengths, np.ones_like(lengths), size)


def packed_epoch(examples: Dataset, size: int) -> Epoch:
    """All targets of a history in one row."""
    packed = pack_examples(examples)
    counts = to_polars(packed).select(pl.col("items").list.len(), pl.col("targets").list.len())
    return cut(packed, counts["items"].to_numpy(), counts["targets"].to_numpy(), size)


def sample(epoch: Epoch, num_batches: int) -> list[Dataset]:
    """Batches that stand for the epoch: of each `num_batches`-th of it, sorted by work per target, the one that is
    closest to the mean work there."""
    parts = np.array_split(epoch.items_per_target.argsort(kind="stable"), min(num_batches, len(epoch.batches)))
    work = [epoch.items_per_target[part] for part in parts]
    return [
        epoch.batches[part[np.abs(items - items.mean()).argmin()]] for part, items in zip(parts, work, strict=True)
    ]


def collate(collator, batches: list[Dataset]) -> list[dict]:
    """What the model's forward takes."""
    collated = [collator(rows.to_list()) for rows in batches]
    return [{name: value for name, value in batch.items() if name != "user_ids"} for batch in collated]


__all__ = ["Epoch", "collate", "packed_epoch", "sample", "separate_epoch", "unpack"]
