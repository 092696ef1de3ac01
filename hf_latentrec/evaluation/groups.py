"""Metrics of groups of users: by how long they have been there, how cold their target is, how deep the model thought.

Shapes: U users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .metrics import check_ranks, ranking_metrics


@dataclass(frozen=True)
class GroupMetrics:
    """
    Metrics of the users of one group.

    Args:
        num_users (`int`): how many they are.
        metrics (`dict[str, float]`): by name, such as `"NDCG@10"`; NaN where there is none.
    """

    num_users: int
    metrics: dict[str, float]


def metrics_by_group(
    ranks: ArrayLike,
    labels: ArrayLike,
    ks: Sequence[int] = (5, 10, 20),
    names: Sequence[str] = ("HR", "NDCG"),
    groups: Sequence[str] | None = None,
) -> dict[str, GroupMetrics]:
    """
    Metrics of each group of users.

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`): 1-based rank of each user's target; 0 where the target is not among
            the candidates.
        labels (`ArrayLike` of `str` or `int`, shape `[U]`): the group of each user.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): Cutoffs.
        names (`Sequence[str]`, *optional*, defaults to `("HR", "NDCG")`): See [`ranking_metrics`].
        groups (`Sequence`, *optional*): Labels in the order wanted, with or without users; by default those that
            occur, sorted.

    Returns:
        `dict[str, GroupMetrics]`: by label, as text.

    Raises:
        `ValueError`: as [`ranking_metrics`]; not as many labels as ranks, or a label that is not one of `groups`.

    Example:
        >>> metrics_by_group([1, 0, 3], labels=[4, 2, 4], ks=(1,))["4"]
        GroupMetrics(num_users=2, metrics={'HR@1': 0.5, 'NDCG@1': 0.5})
    """
    ranks_U, labels_U = check_ranks(ranks), np.asarray(labels)
    if labels_U.shape != ranks_U.shape:
        raise ValueError(
            f"metrics_by_group: {len(ranks_U)} ranks but labels of shape {list(labels_U.shape)}; give the group of "
            "every user"
        )
    found, group_U = np.unique(labels_U, return_inverse=True)
    wanted = found.tolist() if groups is None else list(groups)
    if unknown := set(found.tolist()) - set(wanted):
        raise ValueError(f"metrics_by_group: the label {min(unknown)!r} is not one of groups={wanted}; add it")
    nobody = GroupMetrics(0, dict.fromkeys(ranking_metrics(ranks_U, ks, names), math.nan))
    metrics = dict.fromkeys(map(str, wanted), nobody)
    for row, label in enumerate(found.tolist()):
        members_U = group_U == row
        metrics[str(label)] = GroupMetrics(int(members_U.sum()), ranking_metrics(ranks_U[members_U], ks, names))
    return metrics


def length_buckets(lengths: ArrayLike, bounds: Sequence[int] = (3, 5, 10, 20)) -> tuple[np.ndarray, list[str]]:
    """
    Users by the length of their history.

    Args:
        lengths (`ArrayLike` of `int`, shape `[U]`): Items of each user's history.
        bounds (`Sequence[int]`, *optional*, defaults to `(3, 5, 10, 20)`): The longest history of each bucket but the
            last, which has no end; increasing, from 1.

    Returns:
        `tuple[np.ndarray, list[str]]`: the bucket of each user, shape `[U]`, and all buckets in order. Users without
        a history are a bucket of their own, `"0"`.

    Raises:
        `ValueError`: bounds that do not increase from 1, or a negative length.

    Example:
        >>> labels, buckets = length_buckets([2, 7, 50], bounds=(3, 10))
        >>> labels.tolist(), buckets
        (['1-3', '4-10', '11+'], ['0', '1-3', '4-10', '11+'])
    """
    lengths_U, edges = np.asarray(lengths), [0, *bounds]
    if any(low >= high for low, high in zip(edges[:-1], edges[1:], strict=True)):
        raise ValueError(f"length_buckets: bounds={tuple(bounds)} do not increase from 1; pass e.g. (3, 5, 10, 20)")
    if (lengths_U < 0).any():
        row = int(np.argmax(lengths_U < 0))
        raise ValueError(f"length_buckets: the length in row {row} is {lengths_U[row]}; a history has 0 items or more")
    ranges = [(low + 1, high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    names = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    buckets = ["0", *names, f"{edges[-1] + 1}+"]
    return np.array(buckets)[np.searchsorted(edges, lengths_U)], buckets


__all__ = ["GroupMetrics", "length_buckets", "metrics_by_group"]
