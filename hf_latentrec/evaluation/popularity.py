"""Metrics of popular and of long-tail items apart.

Shapes: U users, I items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .groups import GroupMetrics, metrics_by_group


POPULARITY_GROUPS = ("popular", "long-tail")


def popular_items(popularity: ArrayLike, share: float = 0.2) -> np.ndarray:
    """
    The items that count as popular: the most frequent ones of the training data (LatentR³, App. H); all others are the
    long tail.

    Exactly `ceil(share * I)` items are popular. Of items that tie at the border, those that stand first in the catalog
    are.

    Args:
        popularity (`ArrayLike` of shape `[I]`): Training interactions of each item, `catalog.popularity`.
        share (`float`, *optional*, defaults to 0.2): Share of the items, between 0 and 1.

    Returns:
        `np.ndarray` of `bool`, shape `[I]`.

    Raises:
        `ValueError`: a share outside of (0, 1), or no item with an interaction.

    Example:
        >>> popular_items([3, 9, 3, 0, 3], share=0.4)
        array([ True,  True, False, False, False])
    """
    popularity_I = np.asarray(popularity)
    if not 0 < share < 1:
        raise ValueError(f"popular_items: share is {share}; pass the share of popular items, between 0 and 1")
    if not popularity_I.any():
        raise ValueError(
            f"popular_items: none of the {len(popularity_I)} items has a training interaction; build the catalog with "
            "popularity={item_id: count}"
        )
    is_popular_I = np.zeros(len(popularity_I), dtype=bool)
    is_popular_I[np.argsort(-popularity_I, kind="stable")[: math.ceil(share * len(popularity_I))]] = True
    return is_popular_I


def metrics_by_popularity(
    ranks: ArrayLike,
    target_rows: ArrayLike,
    popularity: ArrayLike,
    ks: Sequence[int] = (5, 10, 20),
    share: float = 0.2,
    names: Sequence[str] = ("HR", "NDCG"),
) -> dict[str, GroupMetrics]:
    """
    Metrics of the users with a popular target and of those with a long-tail target.

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`): 1-based rank of each user's target; 0 where the target is not among
            the candidates.
        target_rows (`ArrayLike` of `int`, shape `[U]`): Catalog row of each user's target, `catalog.rows(targets)`.
        popularity (`ArrayLike` of shape `[I]`): Training interactions of each item, `catalog.popularity`.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): Cutoffs.
        share (`float`, *optional*, defaults to 0.2): See [`popular_items`].
        names (`Sequence[str]`, *optional*, defaults to `("HR", "NDCG")`): See [`ranking_metrics`].

    Returns:
        `dict[str, GroupMetrics]`: of `"popular"` and `"long-tail"`.

    Raises:
        `ValueError`: as [`popular_items`] and [`ranking_metrics`]; not as many targets as ranks.

    Example:
        >>> groups = metrics_by_popularity([1, 0, 3], target_rows=[1, 1, 4], popularity=[3, 9, 3, 0, 3], ks=(1,))
        >>> groups["popular"]
        GroupMetrics(num_users=2, metrics={'HR@1': 0.5, 'NDCG@1': 0.5})
        >>> groups["long-tail"].num_users
        1
    """
    if len(target_rows) != len(ranks):
        raise ValueError(
            f"metrics_by_popularity: {len(ranks)} ranks but {len(target_rows)} target_rows; give the catalog row of "
            "every user's target"
        )
    is_popular_U = popular_items(popularity, share)[np.asarray(target_rows)]
    return metrics_by_group(ranks, np.where(is_popular_U, *POPULARITY_GROUPS), ks, names, POPULARITY_GROUPS)


__all__ = ["POPULARITY_GROUPS", "metrics_by_popularity", "popular_items"]
