"""The rules as passes over columns: each says which events stay."""

from __future__ import annotations

import numpy as np
import polars as pl

from .coding import CodedEvents


def dense_core(user_E: np.ndarray, item_E: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """
    The k-core: the largest set of events in which every user and every item has at least `k`.

    Users and items below `k` are removed until none is left to remove. The set does not depend on the order of the
    removals; repeated events count each time.

    Args:
        user_E (`np.ndarray` of shape `[E]`):
            User codes from 0.
        item_E (`np.ndarray` of shape `[E]`):
            Item codes from 0.
        k (`int`):
            Least number of events.

    Returns:
        `tuple[np.ndarray, int]`: which events stay (bool, shape `[E]`), and the rounds it took, the last of which
        removed nothing.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_latentrec.data.preparation.filters import dense_core
    >>> dense_core(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1]), k=2)
    (array([ True,  True, False,  True,  True]), 2)

    ```
    """
    alive_E = np.ones(len(user_E), dtype=bool)
    users, items, rounds = user_E, item_E, 0
    while True:
        rounds += 1
        stays = (np.bincount(users, minlength=1) >= k)[users] & (np.bincount(items, minlength=1) >= k)[items]
        if stays.all():
            return alive_E, rounds
        alive_E[alive_E] = stays
        users, items = users[stays], items[stays]


def distinct_pairs(left_E: np.ndarray, right_E: np.ndarray, keep: str) -> np.ndarray:
    """Whether an event is the `"first"` or the `"last"` one with its pair of codes (bool, shape `[E]`)."""
    pairs = pl.Series(left_E.astype(np.uint64) << np.uint64(32) | right_E)
    return (pairs.is_first_distinct() if keep == "first" else pairs.is_last_distinct()).to_numpy()


def without_duplicates(events: CodedEvents) -> np.ndarray:
    """Whether an event is the first of its user, item and time (bool, shape `[E]`)."""
    begins_E = events.is_first()
    begins_E[1:] |= events.time_E[1:] != events.time_E[:-1]
    moment_E = np.cumsum(begins_E, dtype=np.uint32)  # one number for each user and time
    tied_E = ~begins_E
    tied_E[:-1] |= ~begins_E[1:]
    keep_E = np.ones(len(events), dtype=bool)
    keep_E[tied_E] = distinct_pairs(moment_E[tied_E], events.item_E[tied_E], "first")
    return keep_E


def newest(events: CodedEvents, count: int) -> np.ndarray:
    """Whether an event is among the last `count` of its user (bool, shape `[E]`)."""
    return events.lengths() - events.positions() <= count


__all__ = ["dense_core", "distinct_pairs", "newest", "without_duplicates"]
