"""Ranking metrics of one relevant item per user, computed from the item's rank alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def hit_rate(ranks: ArrayLike, k: int) -> float:
    r"""
    Share of users whose target is among the first `k` candidates.

    $$\text{HR@}k = \frac{1}{U} \sum_u [1 \le r_u \le k]$$

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        k (`int`):
            Cutoff, at least 1.

    Returns:
        `float`: HR@k in [0, 1].

    Raises:
        `ValueError`: `ranks` is empty, not one-dimensional, not whole numbers or negative; `k` is below 1.

    Example:
        >>> hit_rate([1, 3, 0, 12], k=10)
        0.5
    """
    ranks_U = check_ranks(ranks)
    _check_cutoff(k)
    return float(np.mean((ranks_U >= 1) & (ranks_U <= k)))


def ndcg(ranks: ArrayLike, k: int) -> float:
    r"""
    Normalized discounted cumulative gain. With one relevant item the ideal gain is 1, so nothing is left to divide by.

    $$\text{NDCG@}k = \frac{1}{U} \sum_u \frac{[1 \le r_u \le k]}{\log_2(r_u + 1)}$$

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        k (`int`):
            Cutoff, at least 1.

    Returns:
        `float`: NDCG@k in [0, 1].

    Raises:
        `ValueError`: `ranks` is empty, not one-dimensional, not whole numbers or negative; `k` is below 1.

    Example:
        >>> ndcg([1, 3, 0, 12], k=10)
        0.375
    """
    ranks_U = check_ranks(ranks)
    _check_cutoff(k)
    hit_U = (ranks_U >= 1) & (ranks_U <= k)
    # A miss is given rank 1 inside the logarithm, which is finite, and counts 0.
    return float(np.mean(hit_U / np.log2(np.where(hit_U, ranks_U, 1) + 1.0)))


def ranking_metrics(ranks: ArrayLike, ks: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """
    HR and NDCG at several cutoffs, in the order in which tables print them.

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`):
            Cutoffs, each at least 1.

    Returns:
        `dict[str, float]`: `{"HR@5": ..., "NDCG@5": ..., "HR@10": ...}`.

    Raises:
        `ValueError`: as [`hit_rate`], or `ks` is empty.

    Example:
        >>> ranking_metrics([1, 3, 0, 12], ks=(1, 10))
        {'HR@1': 0.25, 'NDCG@1': 0.25, 'HR@10': 0.5, 'NDCG@10': 0.375}
    """
    if len(ks) == 0:
        raise ValueError("ranking_metrics: ks is empty; name at least one cutoff, for example ks=(5, 10, 20)")
    metrics = {}
    for k in ks:
        metrics[f"HR@{k}"] = hit_rate(ranks, k)
        metrics[f"NDCG@{k}"] = ndcg(ranks, k)
    return metrics


def check_ranks(ranks: ArrayLike) -> np.ndarray:
    """
    Return `ranks` as an int64 array, or say which value cannot be a rank.

    Args:
        ranks (`ArrayLike`, shape `[U]`):
            1-based ranks, 0 for a target that is not among the candidates. Whole numbers; floats such as 3.0 pass.

    Returns:
        `np.ndarray` of `int64`, shape `[U]`.

    Raises:
        `ValueError`: empty, not one-dimensional, not numbers, NaN, infinite, fractional or negative.

    Example:
        >>> check_ranks([1.0, 0.0])
        array([1, 0])
    """
    array = np.asarray(ranks)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"ranks: expected one rank per user, shape [U] with U >= 1, found shape {list(array.shape)}")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"ranks: expected whole numbers, found dtype {array.dtype}; give 1-based ranks, 0 for a miss")
    # NaN and infinity differ from their own floor or exceed any rank, so one comparison finds every bad value.
    bad_U = ~((array >= 0) & (array == np.floor(array)) & (array < 2**63))
    if bad_U.any():
        row = int(np.argmax(bad_U))
        raise ValueError(
            f"ranks: {array[row]} in row {row} is not a rank ({int(bad_U.sum())} such rows); "
            "ranks are whole numbers from 1, and 0 means that the target is not among the candidates"
        )
    return array.astype(np.int64)


def check_cutoffs(ks: Sequence[int], num_items: int) -> None:
    """
    Raise where a cutoff leaves nothing to tell apart.

    Args:
        ks (`Sequence[int]`):
            Cutoffs.
        num_items (`int`):
            Items of the catalog.

    Raises:
        `ValueError`: a cutoff above `num_items`, with which every target is a hit.

    Example:
        >>> check_cutoffs((5, 10), num_items=12)
    """
    if len(ks) > 0 and max(ks) > num_items:
        raise ValueError(
            f"ks: the cutoff {max(ks)} is above the size of the catalog, {num_items} items, so that any ranking is a "
            f"hit; choose cutoffs of at most {num_items}"
        )


def _check_cutoff(k: int) -> None:
    if k != int(k) or k < 1:
        raise ValueError(f"k: a cutoff is a whole number from 1, found {k}")


__all__ = ["check_cutoffs", "check_ranks", "hit_rate", "ndcg", "ranking_metrics"]
