"""Whether the same users buy items that share a prefix.

Shapes: I items, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class CoPurchase:
    """
    How often the same users buy two items that share a prefix. Nothing is sampled but the users.

    Args:
        length (`int`): codes of the prefix; 0: any two items.
        num_pairs (`int`): of different items with this prefix in common.
        num_co_purchases (`int`): over all users, pairs of their items that share the prefix.
        per_pair (`float`): users who bought both, mean over the pairs.
        lift (`float`): `per_pair` over that of any two items.
        lift_same_popularity (`float`): `num_co_purchases` over as many as the prefix would have if users bought pairs
            in proportion to the product of the items' numbers of users: what popularity alone explains is taken out.
        relative_error (`float`): the standard error of both lifts, relative to them, over the users.
    """

    length: int
    num_pairs: int
    num_co_purchases: int
    per_pair: float
    lift: float
    lift_same_popularity: float
    relative_error: float


@dataclass(frozen=True)
class CoPurchaseQuality:
    """
    Args:
        num_users (`int`): whose histories were judged by.
        num_users_in_data (`int`): all; more where they were sampled.
        co_purchases (`tuple[CoPurchase, ...]`): by length of the prefix, from 0.
    """

    num_users: int
    num_users_in_data: int
    co_purchases: tuple[CoPurchase, ...]


def measure_co_purchases(
    groups: Sequence[np.ndarray],
    item_ids: Sequence[str],
    interactions: pl.DataFrame | pl.LazyFrame,
    max_users: int = 200_000,
    seed: int = 0,
) -> CoPurchaseQuality:
    r"""
    Counts pairs within histories, exactly. With $n_i$ users of item $i$, $w_u$ pairs of items of user $u$, $s_u$ of
    them with a prefix of length $l$ in common, and $\mathcal{P}_l$ the pairs of items with such a prefix:

    $$\text{lift} = \frac{\sum_u s_u / |\mathcal{P}_l|}{\sum_u w_u / |\mathcal{P}_0|}, \qquad
    \text{lift at the same popularity} = \frac{\sum_u s_u}{\sum_u w_u}
    \Big/ \frac{\sum_{\mathcal{P}_l} n_i n_j}{\sum_{\mathcal{P}_0} n_i n_j}$$

    The error of the ratio $r = \sum s_u / \sum w_u$ is $\sqrt{\sum_u (s_u - r w_u)^2} / \sum_u w_u$.

    Args:
        groups (`Sequence[np.ndarray]`, each `[I]`): the items' prefixes of 0, 1, ... codes ([`prefix_groups`]).
        item_ids (`Sequence[str]`, length I): in the same order.
        interactions (`pl.DataFrame` or `pl.LazyFrame`): `user_id`, `item_id`; an item that a user bought again counts
            once, items without a code are left out.
        max_users (`int`, *optional*, defaults to 200,000): with more, so many are sampled.
        seed (`int`, *optional*, defaults to 0): of the sample.

    Raises:
        `ValueError`: columns are missing, no interaction names an item of the codes, or no user bought two of them.
    """
    events, num_users_in_data = _bought_rows(item_ids, interactions, max_users, seed)
    users_I = np.bincount(events["row"].to_numpy(), minlength=len(item_ids)).astype(np.float64)
    num_users = int(events["user"].max()) + 1
    all_pairs_U, found = None, []
    for length, groups_I in enumerate(groups):
        sizes = np.bincount(groups_I)
        num_pairs = int((sizes * (sizes - 1) // 2).sum())
        pairs_U = _pairs_by_user(events, groups_I, num_users)
        # sum of n_i n_j over the pairs of a group: half of what the square of the sum has beyond the squares
        expected = ((np.bincount(groups_I, users_I) ** 2).sum() - (users_I**2).sum()) / 2
        if all_pairs_U is None:
            all_pairs_U, all_num_pairs, all_expected = pairs_U, num_pairs, expected
            if not pairs_U.any():
                raise ValueError("measure_co_purchases: no user bought two of the items; pass whole histories")
        if not num_pairs:
            continue
        total, ratio = int(pairs_U.sum()), pairs_U.sum() / all_pairs_U.sum()
        error = np.sqrt(((pairs_U - ratio * all_pairs_U) ** 2).sum()) / all_pairs_U.sum()
        found.append(
            CoPurchase(
                length,
                num_pairs,
                total,
                per_pair=total / num_pairs,
                lift=float(ratio * all_num_pairs / num_pairs),
                lift_same_popularity=float(ratio * all_expected / expected) if expected else float("nan"),
                relative_error=float(error / ratio) if ratio else float("nan"),
            )
        )
    return CoPurchaseQuality(num_users, num_users_in_data, tuple(found))


def _bought_rows(
    item_ids: Sequence[str], interactions: pl.DataFrame | pl.LazyFrame, max_users: int, seed: int
) -> tuple[pl.DataFrame, int]:
    """Who bought what, once each: `user` (from 0) and `row` of the item; and the number of users in the data."""
    interactions = interactions.lazy()
    columns = interactions.collect_schema().names()
    if missing := {"user_id", "item_id"} - set(columns):
        raise ValueError(f"interactions: the columns {sorted(missing)} are missing, found {columns}; rename them")
    rows = pl.LazyFrame({"item_id": list(item_ids), "row": np.arange(len(item_ids), dtype=np.int32)})
    events = interactions.select(pl.col("user_id", "item_id").cast(pl.String)).join(rows, on="item_id")
    users = events.select(pl.col("user_id").unique().sort()).collect(engine="streaming")
    num_users = users.height
    if not num_users:
        named = interactions.select(pl.col("item_id").head(3)).collect()["item_id"].to_list()
        raise ValueError(
            f"interactions: none names an item that has a code (items {list(item_ids)[:3]}, events {named}); use "
            "the same ids in both"
        )
    if num_users > max_users:
        chosen = np.sort(np.random.default_rng(seed).choice(num_users, max_users, replace=False))
        users = users[chosen]
    users = users.lazy().with_row_index("user")
    events = events.join(users, on="user_id").select("user", "row").unique().collect(engine="streaming")
    return events, num_users


def _pairs_by_user(events: pl.DataFrame, groups_I: np.ndarray, num_users: int) -> np.ndarray:
    """Pairs of each user's items that are in the same group, [U]."""
    groups = pl.Series("group", groups_I[events["row"].to_numpy()])
    counts = events.select("user", groups).group_by("user", "group").agg(pl.len().cast(pl.Int64))
    pairs = (counts["len"] * (counts["len"] - 1) // 2).to_numpy()
    return np.bincount(counts["user"].to_numpy(), pairs, minlength=num_users)


__all__ = ["CoPurchase", "CoPurchaseQuality", "measure_co_purchases"]
