"""Keeping the dense part of the interactions."""

from __future__ import annotations

import polars as pl

from .schema import RecData, in_user_order, to_dataset, to_polars
from .validation import validate


def k_core(data: RecData, k: int = 5) -> RecData:
    """
    The largest subset in which every user and every item has at least `k` interactions.

    Users and items with fewer are removed until none is left to remove (a removed item may take a user below `k`, and
    so on). Positions are counted anew; items without interactions go, and the order of the rest stays.

    Args:
        data ([`RecData`]):
            Interactions and items.
        k (`int`, *optional*, defaults to 5):
            Least number of interactions of a user and of an item; repeated ones count each time.

    Returns:
        [`RecData`]: The k-core.

    Raises:
        `ValueError`: `k` is below 1, or nothing is left.
    """
    if k < 1:
        raise ValueError(f"k_core: k={k}, but at least 1 interaction is needed; use k >= 1 (5 is usual)")
    events = to_polars(validate(data).interactions)
    enough = (pl.len().over("user_id") >= k) & (pl.len().over("item_id") >= k)
    before, rounds = -1, 0
    while events.height != before:
        before = events.height
        events = events.filter(enough)
        rounds += 1
    if events.height == 0:
        raise ValueError(
            f"k_core: with k={k} nothing is left of {data.num_interactions} interactions of {data.num_users} users "
            f"with {data.num_items} items after {rounds} rounds; use a smaller k or more data"
        )
    events = in_user_order(events, by=["position"])
    items = to_polars(data.items).join(events.select("item_id"), on="item_id", how="semi", maintain_order="left")
    return RecData(to_dataset(events), to_dataset(items))


__all__ = ["k_core"]
