"""Events as columns of numbers: ids become dense codes, so that all rules work on numpy arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ..sources.raw_data import RawData
from ..sources.times import EARLIEST, LATEST, check_times
from ..validation import SPLITS


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodedEvents:
    """
    Events sorted by user, then time; ties keep the order of the files.

    Args:
        user_E (`np.ndarray` of shape `[E]`, uint32):
            Row of the event's user in `user_ids`.
        item_E (`np.ndarray` of shape `[E]`, uint32):
            Row of its item in `item_ids`.
        time_E (`np.ndarray` of shape `[E]`, float64, *optional*):
            Seconds since 1970.
        rating_E (`np.ndarray` of shape `[E]`, float32, *optional*):
            Ratings; NaN where there is none.
        split_E (`np.ndarray` of shape `[E]`, int8, *optional*):
            The published split: 0 (train), 1 (valid) or 2 (test).
        user_ids (`polars.Series`):
            All users of the source, sorted.
        item_ids (`polars.Series`):
            All items of its interactions, sorted.
    """

    user_E: np.ndarray
    item_E: np.ndarray
    time_E: np.ndarray | None
    rating_E: np.ndarray | None
    split_E: np.ndarray | None
    user_ids: pl.Series
    item_ids: pl.Series

    def __len__(self) -> int:
        return len(self.user_E)

    def select(self, keep_E: np.ndarray) -> CodedEvents:
        """The events for which `keep_E` (bool, shape `[E]`) is true."""
        if keep_E.all():
            return self
        columns = {name: getattr(self, name) for name in ("user_E", "item_E", "time_E", "rating_E", "split_E")}
        return replace(self, **{name: None if c is None else c[keep_E] for name, c in columns.items()})

    def num_users(self) -> int:
        """Users with an event."""
        return int(np.count_nonzero(self.is_first()))

    def num_items(self) -> int:
        """Items with an event."""
        return int(np.count_nonzero(np.bincount(self.item_E, minlength=1)))

    def is_first(self) -> np.ndarray:
        """Whether the event is its user's first (bool, shape `[E]`)."""
        first_E = np.ones(len(self), dtype=bool)
        np.not_equal(self.user_E[1:], self.user_E[:-1], out=first_E[1:])
        return first_E

    def positions(self) -> np.ndarray:
        """Place within the user, counted from 0 (int64, shape `[E]`)."""
        starts, lengths = self._runs()
        return np.arange(len(self)) - np.repeat(starts, lengths)

    def lengths(self) -> np.ndarray:
        """Number of events of the event's user (int64, shape `[E]`)."""
        _, lengths = self._runs()
        return np.repeat(lengths, lengths)

    def dense(self) -> CodedEvents:
        """The same events; users and items without any are forgotten."""
        user_ids, user_E = _only_used(self.user_ids, self.user_E)
        item_ids, item_E = _only_used(self.item_ids, self.item_E)
        return replace(self, user_E=user_E, item_E=item_E, user_ids=user_ids, item_ids=item_ids)

    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        starts = np.flatnonzero(self.is_first())
        return starts, np.diff(starts, append=len(self))


def code_events(raw: RawData) -> CodedEvents:
    """
    Read the interactions of a source once, in a stream, and keep numbers of them: 12 to 21 bytes per event.

    Args:
        raw ([`RawData`]):
            Interactions with `user_id` and `item_id`. Where they have a `timestamp`, it gives the order, and a
            `position`, where there is one, the order at one time; the order of the rows is the last to decide.

    Returns:
        [`CodedEvents`]: All events, sorted.

    Raises:
        `ValueError`: No rows, missing ids, times that are no seconds of 1990 to 2100, or an unknown `split`.
    """
    columns = raw.interactions.collect_schema()
    optional = {
        "timestamp": pl.col("timestamp").cast(pl.Float64).alias("time"),
        "position": pl.col("position").cast(pl.Int64).fill_null(np.iinfo(np.int64).min),
        "rating": pl.col("rating").cast(pl.Float32).fill_null(float("nan")),
        "split": pl.col("split").replace_strict(SPLITS, range(3), default=-1, return_dtype=pl.Int8),
    }
    logger.info("%s: reading the events", raw.name)
    events = raw.interactions.select(
        *(pl.col(name).cast(pl.Categorical(pl.Categories.random())) for name in ("user_id", "item_id")),
        *(expression for name, expression in optional.items() if name in columns),
    ).collect(engine="streaming")
    (user_ids, user_E), (item_ids, item_E) = (_sorted_codes(raw, events[name]) for name in ("user_id", "item_id"))
    if "time" in events.columns and not _all_are_seconds(events["time"]):
        check_times(raw.interactions, raw.name)  # says which
    if "split" in events.columns and (events["split"] < 0).any():
        row = (events["split"] < 0).arg_true()[0]
        raise ValueError(
            f"{raw.name}: the split of row {row} (user {user_ids[int(user_E[row])]!r}) is none of "
            f"{', '.join(SPLITS)}; correct it, or leave the column out"
        )
    arrays = {name: events[name].to_numpy() for name in ("time", "position", "rating", "split") if name in events}
    arrays |= {"user": user_E, "item": item_E}
    order = ["user", *(name for name in ("time", "position") if name in arrays)]
    logger.info("%s: sorting %s events by %s", raw.name, f"{events.height:,}", " and ".join(order))
    row_E = _sorted_rows([arrays[name] for name in order])
    columns_E = {f"{name}_E": arrays.get(name) for name in ("user", "item", "time", "rating", "split")}
    sorted_E = {name: None if column_E is None else column_E[row_E] for name, column_E in columns_E.items()}
    return CodedEvents(**sorted_E, user_ids=user_ids, item_ids=item_ids)


def _sorted_codes(raw: RawData, id_E: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """All ids, sorted, and where each event's stands there: categories come in the order in which threads met them."""
    if len(id_E) == 0:
        raise ValueError(f"{raw.name}: no interactions; nothing can be prepared")
    if id_E.null_count():
        raise _missing_ids(raw, id_E.name)
    category_E = id_E.to_physical()
    category_I = pl.Series(id_E.name, range(category_E.max() + 1), dtype=pl.UInt32)
    ids = category_I.cat.to(id_E.dtype).cast(pl.String).sort()  # to sort them by their rows would take five times that
    if ids[0] == "":
        raise _missing_ids(raw, id_E.name)
    code_I = np.empty(len(ids), dtype=np.uint32)
    code_I[ids.cast(id_E.dtype).to_physical().to_numpy()] = np.arange(len(ids), dtype=np.uint32)
    return ids, code_I[category_E.to_numpy()]


def _missing_ids(raw: RawData, name: str) -> ValueError:
    missing = pl.col(name).is_null() | (pl.col(name) == "")
    rows = raw.interactions.with_row_index("row").filter(missing).select("row").collect(engine="streaming")
    return ValueError(
        f"{raw.name}: {rows.height} interaction(s) without {name}, first row {rows['row'][0]}; fill them in or "
        "remove the rows"
    )


def _sorted_rows(columns_E: Sequence[np.ndarray]) -> np.ndarray:
    """Rows in the order of the first column, ties in that of the next, the last ties in that of the rows."""
    *first, last = columns_E
    row_E = _stable_order(last)
    for column_E in reversed(first):
        row_E = row_E[_stable_order(column_E[row_E])]
    return row_E


def _stable_order(value_E: np.ndarray) -> np.ndarray:
    """As a stable `argsort`; whole numbers with 32 bits between them are sorted many times as fast with their rows."""
    lowest = value_E.min()
    fits = len(value_E) <= 1 << 32 and int(value_E.max()) - int(lowest) < 1 << 32
    if not fits or not np.array_equal(value_E, np.trunc(value_E)):
        return np.argsort(value_E, kind="stable")
    key_E = (value_E - lowest).astype(np.uint64) << np.uint64(32)
    key_E |= np.arange(len(key_E), dtype=np.uint64)
    key_E.sort()
    return (key_E & np.uint64(0xFFFFFFFF)).view(np.int64)


def _all_are_seconds(time: pl.Series) -> bool:
    return time.null_count() == 0 and time.is_between(EARLIEST, LATEST, closed="left").all()


def _only_used(ids: pl.Series, code_E: np.ndarray) -> tuple[pl.Series, np.ndarray]:
    used = np.bincount(code_E, minlength=len(ids)) > 0
    new_code = (np.cumsum(used) - 1).astype(np.uint32)
    return ids.filter(pl.Series(used)), new_code[code_E]


__all__ = ["CodedEvents", "code_events"]
