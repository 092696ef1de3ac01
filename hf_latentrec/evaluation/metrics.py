"""Ranking metrics of one relevant item per user, computed from the item's rank alone.

With one relevant item some metrics coincide: Recall@k is HR@k, MAP@k is MRR@k, and Precision@k is HR@k / k. For
several relevant items they differ; `.metric_modules` takes those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


METRICS = ("HR", "NDCG", "Recall", "MRR", "MAP", "Precision")
DEFAULT_CUTOFFS = (5, 10, 20)
WITHOUT_CUTOFF = ("MRR", "MAP")  # what is also defined for a whole ranking


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
    return float(np.mean(_values(ranks, "HR", k)))


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
    return float(np.mean(_values(ranks, "NDCG", k)))


def recall(ranks: ArrayLike, k: int) -> float:
    """
    Share of a user's relevant items that are among the first `k` candidates, averaged over users. With one relevant
    item it is [`hit_rate`], whose arguments and errors it has.

    Example:
        >>> recall([1, 3, 0, 12], k=10)
        0.5
    """
    return float(np.mean(_values(ranks, "Recall", k)))


def precision(ranks: ArrayLike, k: int) -> float:
    r"""
    Share of the first `k` candidates that are relevant, averaged over users. Arguments and errors are those of
    [`hit_rate`].

    $$\text{Precision@}k = \frac{1}{U} \sum_u \frac{[1 \le r_u \le k]}{k}$$

    Example:
        >>> precision([1, 3, 0, 12], k=10)
        0.05
    """
    return float(np.mean(_values(ranks, "Precision", k)))


def mrr(ranks: ArrayLike, k: int | None = None) -> float:
    r"""
    Mean reciprocal rank. A target that is not among the candidates, or beyond `k`, counts 0.

    $$\text{MRR@}k = \frac{1}{U} \sum_u \frac{[1 \le r_u \le k]}{r_u}$$

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        k (`int`, *optional*):
            Cutoff, at least 1; by default the whole ranking counts.

    Returns:
        `float`: MRR in [0, 1].

    Raises:
        `ValueError`: as [`hit_rate`].

    Example:
        >>> mrr([1, 4, 0, 20])
        0.325
        >>> mrr([1, 4, 0, 20], k=10)
        0.3125
    """
    return float(np.mean(_values(ranks, "MRR", k)))


def mean_average_precision(ranks: ArrayLike, k: int | None = None) -> float:
    """
    Mean over users of the average precision at the ranks of the relevant items. With one relevant item it is [`mrr`],
    whose arguments and errors it has.

    Example:
        >>> mean_average_precision([1, 4, 0, 20], k=10)
        0.3125
    """
    return float(np.mean(_values(ranks, "MAP", k)))


def metric_values(ranks: ArrayLike, metric: str) -> np.ndarray:
    """
    What each user contributes to a metric, which is the mean of these values.

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        metric (`str`):
            Name and cutoff, such as `"NDCG@10"`; `"MRR"` and `"MAP"` stand without one too.

    Returns:
        `np.ndarray` of `float64`, shape `[U]`: each in [0, 1].

    Raises:
        `ValueError`: as [`hit_rate`] and [`split_metric`].

    Example:
        >>> metric_values([1, 3, 0, 12], "NDCG@10")
        array([1. , 0.5, 0. , 0. ])
    """
    return _values(ranks, *split_metric(metric))


def split_metric(metric: str) -> tuple[str, int | None]:
    """
    Name and cutoff of a metric.

    Args:
        metric (`str`):
            Such as `"NDCG@10"`, or `"MRR"` for the whole ranking.

    Returns:
        `tuple[str, int | None]`.

    Raises:
        `ValueError`: an unknown name, or a cutoff that is missing or not a whole number from 1.

    Example:
        >>> split_metric("NDCG@10"), split_metric("MRR")
        (('NDCG', 10), ('MRR', None))
    """
    name, at, cutoff = metric.partition("@")
    if name not in METRICS:
        raise ValueError(f"metric {metric!r} is unknown; choose among {METRICS}, with a cutoff such as 'NDCG@10'")
    if not at and name in WITHOUT_CUTOFF:
        return name, None
    if not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) > 0):
        raise ValueError(f"metric {metric!r} has no cutoff that is a whole number from 1; write it as '{name}@10'")
    return name, int(cutoff)


def ranking_metrics(
    ranks: ArrayLike, ks: Sequence[int] = (5, 10, 20), names: Sequence[str] = ("HR", "NDCG")
) -> dict[str, float]:
    """
    Metrics at several cutoffs, in the order in which tables print them.

    Args:
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target; 0 where the target is not among the candidates.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`):
            Cutoffs, each at least 1.
        names (`Sequence[str]`, *optional*, defaults to `("HR", "NDCG")`):
            Which of `"HR"`, `"NDCG"`, `"Recall"`, `"MRR"`, `"MAP"` and `"Precision"`.

    Returns:
        `dict[str, float]`: `{"HR@5": ..., "NDCG@5": ..., "HR@10": ...}`.

    Raises:
        `ValueError`: as [`hit_rate`]; `ks` is empty, or a name is unknown.

    Example:
        >>> ranking_metrics([1, 3, 0, 12], ks=(1, 10))
        {'HR@1': 0.25, 'NDCG@1': 0.25, 'HR@10': 0.5, 'NDCG@10': 0.375}
    """
    if len(ks) == 0:
        raise ValueError("ranking_metrics: ks is empty; name at least one cutoff, for example ks=(5, 10, 20)")
    return {f"{name}@{k}": float(np.mean(_values(ranks, name, k))) for k in ks for name in names}


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


def default_cutoffs(num_beams: int) -> tuple[int, ...]:
    """
    The cutoffs 5, 10 and 20 as far as so many beams go.

    Example:
        >>> default_cutoffs(50), default_cutoffs(10), default_cutoffs(3)
        ((5, 10, 20), (5, 10), (3,))
    """
    return tuple(k for k in DEFAULT_CUTOFFS if k <= num_beams) or (num_beams,)


def check_cutoff(k: int) -> None:
    """
    Raise where `k` is no cutoff.

    Example:
        >>> check_cutoff(10)
    """
    if k != int(k) or k < 1:
        raise ValueError(f"k: a cutoff is a whole number from 1, found {k}")


def _values(ranks: ArrayLike, name: str, k: int | None) -> np.ndarray:
    """Values of each user, shape [U]; `k` is None for the whole ranking."""
    ranks_U = check_ranks(ranks)
    hit_U = ranks_U >= 1
    if k is not None:
        check_cutoff(k)
        hit_U &= ranks_U <= k
    # A miss is given rank 1, which is finite in every denominator, and counts 0.
    rank_U = np.where(hit_U, ranks_U, 1)
    match name:
        case "HR" | "Recall":
            return hit_U.astype(np.float64)
        case "NDCG":
            return hit_U / np.log2(rank_U + 1.0)
        case "MRR" | "MAP":
            return hit_U / rank_U
        case "Precision":
            return hit_U / k
    raise ValueError(f"metric {name!r} is unknown; choose among {METRICS}")


__all__ = [
    "DEFAULT_CUTOFFS",
    "METRICS",
    "check_cutoff",
    "check_cutoffs",
    "check_ranks",
    "default_cutoffs",
    "hit_rate",
    "mean_average_precision",
    "metric_values",
    "mrr",
    "ndcg",
    "precision",
    "ranking_metrics",
    "recall",
    "split_metric",
]
