"""Ids that look like one that is not known: what an error about it can offer.

The same file stands with every kind of model, since each kind travels alone.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable
from typing import Any


NUM_CANDIDATES = 500


def similar_ids(unknown: Any, known_ids: Iterable[str], num_ids: int = 3) -> list[str]:
    """
    The known ids that are most like an unknown one.

    Only those that share most pairs of adjacent letters with it are compared letter by letter, which would take a
    minute for a catalog of some 100,000.

    Args:
        unknown: the id; of any type, since a number in place of a string is a usual mistake.
        known_ids (iterable of `str`): where to look.
        num_ids (`int`, *optional*, defaults to 3): ids at most.

    Returns:
        `list[str]`: the most similar one first.

    Example:
        >>> similar_ids(17, ["i16", "i17", "i2"], num_ids=1)
        ['i17']
    """
    text = str(unknown)
    pairs = {*zip(text, text[1:], strict=False)}

    def num_shared(known: str) -> int:
        return sum(pair in pairs for pair in zip(known, known[1:], strict=False))

    candidates = heapq.nlargest(NUM_CANDIDATES, known_ids, key=num_shared)
    return difflib.get_close_matches(text, candidates, n=num_ids, cutoff=0.0)


__all__ = ["similar_ids"]
