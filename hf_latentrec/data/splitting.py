"""Interactions -> examples `user_id, history, target` for training, validation and test."""

from __future__ import annotations

import hashlib
import logging
import math
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

    All events but the first of each user are targets. They are sorted by timestamp and cut by count at the given
    ratios ([`temporal_parts`]); a history holds what its user did before the target, in whichever part. Targets of
    equal time at a cut all go to the later part, so that no training example, history or target, holds an event at or
    after the time of a validation or test target. Events of one user at one time keep the order of their positions.

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
    check_ratios(ratios)
    events = in_user_order(to_polars(validate(data).interactions), by=["position"])
    if "timestamp" not in events.columns:
        raise ValueError(
            f"split_temporal: interactions have no timestamp, only {events.columns}; use split_leave_one_out, or "
            "split_published where the data bring a split"
        )
    part = temporal_parts(events["timestamp"].to_numpy(), (events["position"] > 0).to_numpy(), ratios)
    split = pl.Series("split", np.array(SPLITS)[part])
    return _examples(events.with_columns(split), max_history, window_stride)


def temporal_parts(times_E: np.ndarray, is_target_E: np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    """
    The part of each event in a split by time.

    With the T target times in order, validation begins at the time of target `floor(T * r0 / (r0 + r1 + r2))` and the
    test at that of target `floor(T * (r0 + r1) / (r0 + r1 + r2))`; a target belongs to the last part that has begun.

    Args:
        times_E (`np.ndarray` of shape `[E]`):
            Time of each event.
        is_target_E (`np.ndarray` of shape `[E]`, bool):
            Whether the event is a target. The others count as training events, whatever their time.
        ratios (`Sequence[float]`):
            Shares of train, validation and test.

    Returns:
        `np.ndarray` of shape `[E]`, int8: 0 (train), 1 (validation) or 2 (test).

    Raises:
        `ValueError`: A part would be empty.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_latentrec.data.splitting import temporal_parts
    >>> times = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0])
    >>> temporal_parts(times, times > 0, ratios=(3, 1, 1))  # both targets at 3.0 go to the later part
    array([0, 0, 0, 1, 1, 2], dtype=int8)

    ```
    """
    target_times = np.sort(times_E[is_target_E])
    if len(target_times) == 0:
        raise ValueError(f"no target: none of the {len(times_E)} events follows another of its user; use more data")
    # 1e-9: 0.8 + 0.1 is less than 0.9
    bounds = (np.cumsum(ratios)[:2] / np.sum(ratios) * len(target_times) + 1e-9).astype(np.int64)
    cuts = target_times[np.minimum(bounds, len(target_times) - 1)]
    part_E = np.searchsorted(cuts, times_E, side="right").astype(np.int8)
    part_E[~is_target_E] = 0
    sizes = np.bincount(part_E[is_target_E], minlength=3)
    if not sizes.all():
        empty = ("train", "validation", "test")[int(np.argmin(sizes))]
        ties = [int((target_times == cut).sum()) for cut in cuts]
        raise ValueError(
            f"no target for {empty}: {len(target_times)} targets, cut by time at {tuple(ratios)}, where {ties[0]} "
            f"have the time {cuts[0]:.15g} of the first cut and {ties[1]} the time {cuts[1]:.15g} of the second "
            "(equal times go to the later part); use more data, other ratios, or finer timestamps"
        )
    return part_E


def check_ratios(ratios: Sequence[float]) -> None:
    """Three positive, finite numbers, or a ValueError."""
    if len(ratios) != 3 or not all(0 < ratio < math.inf for ratio in ratios):
        raise ValueError(f"split_temporal: ratios={tuple(ratios)}; give three positive numbers such as (8, 1, 1)")


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


def history_rows(
    target_T: np.ndarray, position_T: np.ndarray, max_history: int | None, window_stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """
    Where the histories of targets stand among events in user order.

    Args:
        target_T (`np.ndarray` of shape `[T]`):
            Row of each target.
        position_T (`np.ndarray` of shape `[T]`):
            Its position within the user.
        max_history (`int`, *optional*):
            Longest history; all that came before for `None`: what was seen may be excluded, and a prompt is cut later.
        window_stride (`int`, *optional*, defaults to 1):
            As in [`split_leave_one_out`].

    Returns:
        `tuple[np.ndarray, np.ndarray]`: offsets of shape `[T + 1]` into the rows of all histories, one after another.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_latentrec.data.splitting import history_rows
    >>> history_rows(np.array([7, 9]), np.array([1, 3]), max_history=2)
    (array([0, 1, 3]), array([6, 7, 8]))

    ```
    """
    over_T = np.zeros_like(position_T) if max_history is None else np.maximum(position_T - max_history, 0)
    length_T = position_T - -(-over_T // window_stride) * window_stride
    offsets = np.concatenate([[0], np.cumsum(length_T)])
    # row of history element e of target t: (target[t] - length[t]) + (e - offsets[t])
    return offsets, np.arange(offsets[-1]) + np.repeat(target_T - length_T - offsets[:-1], length_T)


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
        offsets, element = history_rows(row, position[row], max_history if name == "train" else None, window_stride)
        history = pa.LargeListArray.from_arrays(pa.array(offsets), item_ids.take(pa.array(element)))
        columns = {"user_id": user_ids.take(pa.array(row)), "history": history, "target": item_ids.take(pa.array(row))}
        parts[name] = to_dataset(pl.from_arrow(pa.table(columns)))
    return DatasetDict(parts)


__all__ = [
    "check_ratios",
    "history_rows",
    "split_fingerprint",
    "split_leave_one_out",
    "split_published",
    "split_temporal",
    "temporal_parts",
]
