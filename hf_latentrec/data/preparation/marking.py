"""The split of coded events: the same as of the functions in `splitting`, without building an example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..splitting import temporal_parts
from .coding import CodedEvents
from .rules import PreparationRules


def mark_split(events: CodedEvents, rules: PreparationRules) -> np.ndarray:
    """
    The split in which each event is a target; a user's first event is none and counts as training.

    Args:
        events ([`CodedEvents`]):
            What the rules left.
        rules ([`PreparationRules`]):
            Its `split` and `ratios`.

    Returns:
        `np.ndarray` of shape `[E]`, int8: 0 (train), 1 (valid) or 2 (test).

    Raises:
        `ValueError`: A split would be empty, or a published one does not go on in time.
    """
    if rules.split == "leave_one_out":
        split_E = np.maximum(2 - (events.lengths() - events.positions() - 1), 0).astype(np.int8)
    elif rules.split == "temporal":
        split_E = temporal_parts(events.time_E, ~events.is_first(), rules.ratios)
    else:
        split_E = _published(events)
    for name, size in zip(("train", "validation", "test"), split_sizes(events, split_E), strict=True):
        if size == 0:
            raise ValueError(
                f"no target for {name}: {len(events):,} events of {events.num_users():,} user(s) leave none for it in "
                f"split={rules.split!r}; use more data, weaker rules or another split"
            )
    return split_E


def split_sizes(events: CodedEvents, split_E: np.ndarray) -> Sequence[int]:
    """Targets for training, validation and test."""
    return np.bincount(split_E[~events.is_first()], minlength=3).tolist()


def _published(events: CodedEvents) -> np.ndarray:
    """Rules may have left a later event as the first of its user: it has no history to be predicted from."""
    first_E = events.is_first()
    split_E = np.where(first_E, np.int8(0), events.split_E)
    back = np.flatnonzero((split_E[1:] < split_E[:-1]) & ~first_E[1:])
    if len(back):
        user = events.user_ids[int(events.user_E[back[0] + 1])]
        raise ValueError(
            f"split='published': {len(back):,} event(s) follow one of a later split, first of user {user!r}; within a "
            "user the order must be train, valid, test; use another split"
        )
    return split_E


__all__ = ["mark_split", "split_sizes"]
