"""Many examples of one user in one row, so that a causal model learns them all in one pass."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from datasets import Dataset

from .schema import to_dataset, to_polars


def pack_examples(train: Dataset, max_history: int | None = None) -> Dataset:
    """
    Put consecutive examples that continue each other into one row.

    Example r+1 joins the row of example r when it has the same user and `history[r+1] == history[r] + [target[r]]`.

    ```
    history      target               items          targets
    a            b
    a b          c          ->        a b c d        1 2 3
    a b c        d
    b c d        e                    b c d e        3
    ```

    Args:
        train (`datasets.Dataset`):
            Examples with `user_id`, `history` (list[str], not empty) and `target`, as the splits give them.
        max_history (`int`, *optional*):
            Histories are cut to their newest `max_history` items first, as the processor cuts prompts.

    Returns:
        `datasets.Dataset`: Rows `user_id` (str), `items` (list[str]: the longest history and its target) and
        `targets` (list[int64]: the positions in `items` that are targets, ascending). The example of target position
        `t` is `items[:t] -> items[t]`; these are exactly the given examples, in their order.

    Raises:
        `ValueError`: An example has an empty history.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_latentrec.data import pack_examples
    >>> examples = {"user_id": ["u", "u"], "history": [["a"], ["a", "b"]], "target": ["b", "c"]}
    >>> pack_examples(Dataset.from_dict(examples))[0]
    {'user_id': 'u', 'items': ['a', 'b', 'c'], 'targets': [1, 2]}

    ```
    """
    examples = to_polars(train).select("user_id", "history", "target").rechunk()
    if max_history is not None:
        examples = examples.with_columns(pl.col("history").list.tail(max_history))
    length = examples["history"].list.len().fill_null(0).to_numpy().astype(np.int64)
    if not length.all():
        row = int(np.argmin(length))
        raise ValueError(
            f"pack_examples: row {row}: user {examples['user_id'][row]!r} has an empty history before target "
            f"{examples['target'][row]!r} ({(length == 0).sum()} such row(s)); remove the row"
        )
    # all histories, each followed by its target: example r stands at [start[r], start[r] + length[r]]
    items = examples.select(pl.concat_list("history", "target").list.explode()).to_series()
    start = np.cumsum(length + 1) - (length + 1)
    ends = ~_continued(examples["user_id"], items, start, length)
    last = np.flatnonzero(ends)
    first = np.concatenate([[0], last + 1])[: len(last)]
    packed = _slices(items, start[last], length[last] + 1)
    targets = pl.Series(length)  # a target's position is the length of its history
    columns = {
        "user_id": examples["user_id"].gather(last),
        "items": packed,
        "targets": _slices(targets, first, last - first + 1),
    }
    return to_dataset(pl.DataFrame(columns))


def _continued(user_ids: pl.Series, items: pl.Series, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Whether example r+1 continues example r, for each r (the last: no)."""
    codes = items.rank("dense").to_numpy()
    candidate = np.zeros(len(start), dtype=bool)
    candidate[:-1] = (user_ids == user_ids.shift(-1)).to_numpy()[:-1] & (length[1:] == length[:-1] + 1)
    # element e of a candidate must equal element e of the next one, which lies length + 1 further on
    example = np.repeat(np.arange(len(start)), length + 1)
    element = np.flatnonzero(candidate[example])
    differs = codes[element] != codes[element + length[example[element]] + 1]
    candidate[example[element[differs]]] = False
    return candidate


def _slices(values: pl.Series, start: np.ndarray, length: np.ndarray) -> pl.Series:
    """The list column of `values[start[r] : start[r] + length[r]]`."""
    offsets = np.concatenate([[0], np.cumsum(length)])
    element = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), values.gather(element).to_arrow()))


__all__ = ["pack_examples"]
