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
    return _with_items(events, data)


def min_rating(data: RecData, threshold: float) -> RecData:
    """
    The interactions that are rated `threshold` or higher.

    Positions are counted anew; items without interactions go, and the order of the rest stays.

    Args:
        data ([`RecData`]):
            Interactions with a `rating`, and items.
        threshold (`float`):
            Least rating that is kept.

    Returns:
        [`RecData`]: What is left.

    Raises:
        `ValueError`: There is no column `rating`, a rating is missing or no number, or nothing is left.
    """
    events = to_polars(validate(data).interactions)
    if "rating" not in events.columns or not events.schema["rating"].is_numeric():
        found = events.schema.get("rating")
        raise ValueError(
            f"min_rating: interactions have {'no column rating' if found is None else f'ratings of type {found}'} "
            f"(columns: {events.columns}); ratings must be numbers, or leave the threshold out"
        )
    rating = events["rating"].cast(pl.Float64)
    missing = rating.is_null() | rating.is_nan()
    if missing.any():
        row = missing.arg_true()[0]
        raise ValueError(
            f"min_rating: {missing.sum()} interaction(s) without a rating, first that of user "
            f"{events['user_id'][row]!r} with item {events['item_id'][row]!r}; fill them in or remove the rows"
        )
    kept = events.filter(rating >= threshold)
    if kept.height == 0:
        raise ValueError(
            f"min_rating: no interaction of {events.height} is rated {threshold:g} or higher (ratings from "
            f"{rating.min():g} to {rating.max():g}); use a lower threshold"
        )
    return _with_items(kept, data)


def _with_items(events: pl.DataFrame, data: RecData) -> RecData:
    """Events that are left, numbered anew, and the items that they name."""
    events = in_user_order(events, by=["position"])
    items = to_polars(data.items).join(events.select("item_id"), on="item_id", how="semi", maintain_order="left")
    return RecData(to_dataset(events), to_dataset(items))


__all__ = ["k_core", "min_rating"]
