"""Interactions -> examples `user_id, history, target` for training, validation and test."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from datasets import DatasetDict

from .schema import RecData, in_user_order, to_dataset, to_polars
from .validation import SPLITS, validate


logger = logging.getLogger(__name__)

MIN_INTERACTIONS = 3  # one to start from, one for validation, one for test


def split_leave_one_out(
    data: RecData, max_history: int = 20, *, window_stride: int = 1, on_short: str = "error"
) -> DatasetDict:
    """
    Each user's last item is the test target, the one before it the validation target, all others train.

    ```
    sequence     a b c d e f
    train        a -> b    a b -> c    a b c -> d
    validation   a b c d -> e
    test         a b c d e -> f
    ```

    Args:
        data ([`RecData`]):
            Interactions with at least 3 per user.
        max_history (`int`, *optional*, defaults to 20):
            A training history keeps its newest `max_history` items. Validation and test histories are whole: what a
            user has seen may be excluded, and the processor cuts prompts.
        window_stride (`int`, *optional*, defaults to 1):
            Where a training target lies more than `max_history` into the sequence, its history starts at a multiple
            of the stride: items `[s, p)` for the target at position `p`, with
            `s = ceil((p - max_history) / window_stride) * window_stride`. With 1 that is exactly the newest
            `max_history`; a larger stride lets more targets share one window ([`pack_examples`]), at the price of
            histories that are up to `window_stride - 1` items shorter. Validation and test are not touched.
        on_short (`str`, *optional*, defaults to `"error"`):
            What to do with users with fewer than 3 interactions: `"error"`, or `"drop"` (counted and logged).

    Returns:
        `datasets.DatasetDict`: `train`, `validation` and `test` with `user_id` (str), `history` (list[str], oldest
        first) and `target` (str). Rows of a user are consecutive and in time order.

    Raises:
        `ValueError`: A user has fewer than 3 interactions, a part would be empty, or an argument is out of range.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_latentrec.data import RecData, split_leave_one_out
    >>> rows = {"user_id": ["u"] * 4, "item_id": ["a", "b", "c", "d"], "position": [0, 1, 2, 3]}
    >>> data = RecData(Dataset.from_dict(rows), items=Dataset.from_dict({"item_id": ["a", "b", "c", "d"]}))
    >>> splits = split_leave_one_out(data, max_history=2)
    >>> {name: [(row["history"], row["target"]) for row in rows] for name, rows in splits.items()}
    {'train': [(['a'], 'b')], 'validation': [(['a', 'b'], 'c')], 'test': [(['a', 'b', 'c'], 'd')]}

    ```
    """
    if on_short not in ("error", "drop"):
        raise ValueError(f"split_leave_one_out: on_short={on_short!r}; use 'error' or 'drop'")
    events = in_user_order(to_polars(validate(data).interactions), by=["position"])
    length = pl.len().over("user_id")
    short = events.filter(length < MIN_INTERACTIONS)
    if short.height:
        num_users = short["user_id"].n_unique()
        if on_short == "error":
            user = short["user_id"][0]
            raise ValueError(
                f"split_leave_one_out: user {user!r} has {(short['user_id'] == user).sum()} interaction(s), fewer "
                f"than {MIN_INTERACTIONS} ({num_users} such user(s)); filter with k_core or pass on_short='drop'"
            )
        logger.warning("split_leave_one_out: dropped %d user(s) with fewer than 3 interactions", num_users)
        events = events.filter(length >= MIN_INTERACTIONS)
    from_end = length - pl.col("position")
    split = pl.when(from_end == 1).then(pl.lit("test")).when(from_end == 2).then(pl.lit("valid"))
    return _examples(events.with_columns(split=split.otherwise(pl.lit("train"))), max_history, window_stride)


def split_temporal(
    data: RecData, ratios: Sequence[float] = (8, 1, 1), max_history: int = 20, *, window_stride: int = 1
) -> DatasetDict:
    """
    Split the targets by time: the oldest part trains, the newest is the test.

    All events but the first of each user are targets. They are sorted by timestamp (ties: by user, then position) and
    cut by count at the given ratios; a history holds what its user did before the target, in whichever part.

    Args:
        data ([`RecData`]):
            Interactions with a `timestamp`.
        ratios (`Sequence[float]`, *optional*, defaults to `(8, 1, 1)`):
            Shares of train, validation and test.
        max_history (`int`, *optional*, defaults to 20):
            A training history keeps its newest `max_history` items. Validation and test histories are whole: what a
            user has seen may be excluded, and the processor cuts prompts.
        window_stride (`int`, *optional*, defaults to 1):
            As in [`split_leave_one_out`].

    Returns:
        `datasets.DatasetDict`: As [`split_leave_one_out`].

    Raises:
        `ValueError`: There are no timestamps, a part would be empty, or an argument is out of range.
    """
    if len(ratios) != 3 or min(ratios) <= 0:
        raise ValueError(f"split_temporal: ratios={tuple(ratios)}; give three positive numbers such as (8, 1, 1)")
    events = in_user_order(to_polars(validate(data).interactions), by=["position"])
    if "timestamp" not in events.columns:
        raise ValueError(
            f"split_temporal: interactions have no timestamp, only {events.columns}; use split_leave_one_out, or "
            "split_published where the data bring a split"
        )
    is_target = (events["position"] > 0).to_numpy()
    by_time = np.argsort(events["timestamp"].to_numpy(), kind="stable")
    by_time = by_time[is_target[by_time]]
    bounds = (np.cumsum(ratios)[:2] / np.sum(ratios) * len(by_time) + 1e-9).astype(np.int64)
    part = np.zeros(events.height, dtype=np.int64)
    part[by_time] = np.searchsorted(bounds, np.arange(len(by_time)), side="right")
    split = pl.Series("split", np.array(SPLITS)[part])
    return _examples(events.with_columns(split), max_history, window_stride)


def split_published(data: RecData, max_history: int = 20, *, window_stride: int = 1) -> DatasetDict:
    """
    Split the targets as their publisher did: by the `split` column of the interactions.

    Args:
        data ([`RecData`]):
            Interactions with a `split` (`train`, `valid` or `test`) for each event; a user's first event is no target.
        max_history (`int`, *optional*, defaults to 20):
            A training history keeps its newest `max_history` items. Validation and test histories are whole: what a
            user has seen may be excluded, and the processor cuts prompts.
        window_stride (`int`, *optional*, defaults to 1):
            As in [`split_leave_one_out`].

    Returns:
        `datasets.DatasetDict`: As [`split_leave_one_out`].

    Raises:
        `ValueError`: There is no `split` column, a part would be empty, or an argument is out of range.
    """
    events = in_user_order(to_polars(validate(data).interactions), by=["position"])
    if "split" not in events.columns:
        raise ValueError(
            f"split_published: interactions have no column 'split', only {events.columns}; use split_leave_one_out or "
            "split_temporal"
        )
    return _examples(events, max_history, window_stride)


def split_fingerprint(splits: DatasetDict) -> str:
    """
    A sha256 (64 hex digits) over the examples of all splits: the same for the same examples, in any process and in
    any order of rows, splits and columns; different where any user, history or target differs.
    """
    digest = hashlib.sha256()
    for name in sorted(splits):
        frame = to_polars(splits[name])
        history = pl.col("history").list.eval(_netstring(pl.element())).list.join("")
        rows = frame.select(pl.concat_str(_netstring(pl.col("user_id")), _netstring(pl.col("target")), history))
        lines = rows.to_series().sort()
        digest.update(f"{name}:{len(lines)}\n".encode())
        digest.update("\n".join(lines).encode())
    return digest.hexdigest()


def _netstring(text: pl.Expr) -> pl.Expr:
    """`12:...`: with its length before it, no text can run into the next one."""
    return pl.concat_str(text.str.len_bytes().cast(pl.String), pl.lit(":"), text)


def _examples(events: pl.DataFrame, max_history: int, window_stride: int) -> DatasetDict:
    """Events in user order with their `split` -> one example for each target."""
    if max_history < 1:
        raise ValueError(f"max_history={max_history}; a history needs at least 1 item")
    if not 1 <= window_stride < max(max_history, 2):
        raise ValueError(
            f"window_stride={window_stride} with max_history={max_history}; the stride must be at least 1 and smaller "
            "than max_history"
        )
    user_ids, item_ids = events["user_id"].to_arrow(), events["item_id"].to_arrow()
    position, split = events["position"].to_numpy(), events["split"].to_numpy()
    parts = {}
    for name, published in zip(("train", "validation", "test"), SPLITS, strict=True):
        row = np.flatnonzero((position > 0) & (split == published))
        if len(row) == 0:
            raise ValueError(
                f"no target for {name}: {events.height} events of {events['user_id'].n_unique()} user(s) leave none "
                "for it; use more data or another split"
            )
        # Validation and test keep the whole history: what was seen may be excluded, and a prompt is cut later.
        over = np.maximum(position[row] - max_history, 0) if name == "train" else np.zeros_like(row)
        length = position[row] - -(-over // window_stride) * window_stride
        offsets = np.concatenate([[0], np.cumsum(length)])
        # row of history element e of example r: (row[r] - length[r]) + (e - offsets[r])
        element = np.arange(offsets[-1]) + np.repeat(row - length - offsets[:-1], length)
        history = pa.LargeListArray.from_arrays(pa.array(offsets), item_ids.take(pa.array(element)))
        columns = {"user_id": user_ids.take(pa.array(row)), "history": history, "target": item_ids.take(pa.array(row))}
        parts[name] = to_dataset(pl.from_arrow(pa.table(columns)))
    return DatasetDict(parts)


__all__ = ["split_fingerprint", "split_leave_one_out", "split_published", "split_temporal"]
