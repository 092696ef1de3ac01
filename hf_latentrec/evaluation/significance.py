"""Is the difference of two models on the same users more than chance? Paired tests and intervals of its mean.

Shapes: U users, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


CORRECTIONS = ("holm", "bonferroni", "none")
BLOCK_ENTRIES = 4_000_000  # counts that a block of resamples takes at once, 32 MB


def paired_t_test(differences: ArrayLike) -> float:
    r"""
    Two-sided p-value of Student's paired t-test: the mean difference is 0, in the hypothesis.

    $$t = \frac{\bar d}{s_d / \sqrt U}, \quad U - 1 \text{ degrees of freedom}$$

    Args:
        differences (`ArrayLike` of `float`, shape `[U]`): each user's value of one model less that of the other.

    Returns:
        `float`: 1 where no user differs.

    Raises:
        `ValueError`: fewer than two users, or a difference that is NaN or infinite.

    Example:
        >>> round(paired_t_test([1.0, 2.0, 3.0]), 4)
        0.0742
    """
    differences_U = _check_differences(differences)
    if not differences_U.any():
        return 1.0
    if np.ptp(differences_U) == 0:
        return 0.0  # the same difference everywhere: its spread is 0 and t infinite
    return float(stats.ttest_1samp(differences_U, 0.0).pvalue)


def wilcoxon_test(differences: ArrayLike) -> float:
    """
    Two-sided p-value of Wilcoxon's signed-rank test: differences are symmetric around 0, in the hypothesis.

    Users without a difference are left out, as Wilcoxon does. The p-value is exact for up to 50 users where no
    absolute differences tie, and of the normal approximation otherwise.

    Args:
        differences (`ArrayLike` of `float`, shape `[U]`): each user's value of one model less that of the other.

    Returns:
        `float`: 1 where no user differs.

    Raises:
        `ValueError`: as [`paired_t_test`].

    Example:
        >>> wilcoxon_test([1.0, 2.0, 3.0])
        0.25
    """
    differences_U = _check_differences(differences)
    if not differences_U.any():
        return 1.0
    # scipy leaves zeros out too, but some releases then give up the exact p-value.
    return float(stats.wilcoxon(differences_U[differences_U != 0]).pvalue)


def bootstrap_interval(
    differences: ArrayLike, num_samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """
    Percentile interval of the mean difference over users drawn anew, with replacement.

    Where many users share a difference, as with a metric at a cutoff, a resample is drawn as how often each of the
    different values occurs in it, which is multinomial: the same distribution, at a fraction of the work.

    Args:
        differences (`ArrayLike` of `float`, shape `[U]`): each user's value of one model less that of the other.
        num_samples (`int`, *optional*, defaults to 10,000): resamples, S.
        confidence (`float`, *optional*, defaults to 0.95): share of the resampled means inside the interval.
        seed (`int`, *optional*, defaults to 0): the same seed gives the same interval.

    Returns:
        `tuple[float, float]`: lower and upper end.

    Raises:
        `ValueError`: as [`paired_t_test`]; no resamples, or a confidence outside of (0, 1).

    Example:
        >>> low, high = bootstrap_interval([0.0, 1.0] * 50)
        >>> round(low, 1), round(high, 1)
        (0.4, 0.6)
    """
    differences_U = _check_differences(differences)
    if num_samples < 1:
        raise ValueError(f"bootstrap_interval: num_samples is {num_samples}; draw at least 1, better 10,000")
    if not 0 < confidence < 1:
        raise ValueError(f"bootstrap_interval: confidence is {confidence}; pass a share between 0 and 1, such as 0.95")
    values, counts = np.unique(differences_U, return_counts=True)
    generator, num_users = np.random.default_rng(seed), len(differences_U)
    few_values = len(values) * 10 < num_users
    block = max(1, BLOCK_ENTRIES // (len(values) if few_values else num_users))
    means_S = np.empty(num_samples)
    for start in range(0, num_samples, block):
        size = min(block, num_samples - start)
        if few_values:
            drawn = generator.multinomial(num_users, counts / num_users, size=size)
            means_S[start : start + size] = drawn @ values / num_users
        else:
            drawn = generator.integers(0, num_users, size=(size, num_users), dtype=np.int32)
            means_S[start : start + size] = differences_U[drawn].mean(1)
    low, high = np.quantile(means_S, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def differences_of_users(differences: ArrayLike, users: ArrayLike | None) -> np.ndarray:
    r"""
    One difference for each user, where some have several examples, which are not independent of each other.

    $$d_u = \frac{U}{E} \sum_{e \in u} d_e$$

    so that the mean over the U users is that over the E examples.

    Args:
        differences (`ArrayLike` of `float`, shape `[E]`): each example's value of one model less that of the other.
        users (`ArrayLike`, shape `[E]`, *optional*): whose each example is; without them, every example is a user's.

    Returns:
        `np.ndarray` of `float`, shape `[U]`: in the order of their ids.

    Example:
        >>> differences_of_users([0.5, 1.0, 0.0], ["ann", "bob", "ann"]).tolist()
        [0.3333333333333333, 0.6666666666666666]
    """
    differences_E = np.asarray(differences, dtype=np.float64)
    if users is None:
        return differences_E
    names_U, user_E = np.unique(np.asarray(users), return_inverse=True)
    return np.bincount(user_E, weights=differences_E) * (len(names_U) / len(differences_E))


def correct_p_values(p_values: Sequence[float], correction: str = "holm") -> list[float]:
    r"""
    p-values of several hypotheses, made such that the chance of any false rejection among them stays at the level of
    one test.

    Bonferroni multiplies each by their number $m$. Holm multiplies the smallest by $m$, the next by $m - 1$ and so on,
    and lets none fall below an earlier one: never less powerful, and as safe.

    Args:
        p_values (`Sequence[float]`): one for each hypothesis, such as a metric.
        correction (`str`, *optional*, defaults to `"holm"`): or `"bonferroni"`, or `"none"`.

    Returns:
        `list[float]`: in the same order, at most 1.

    Raises:
        `ValueError`: an unknown correction, or what is no p-value.

    Example:
        >>> correct_p_values([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correct_p_values: correction is {correction!r}; choose one of {CORRECTIONS}")
    p = np.asarray(p_values, dtype=np.float64)
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        raise ValueError(f"correct_p_values: {p[wrong][0]} at place {int(np.argmax(wrong))} is no p-value")
    if correction == "bonferroni":
        p = np.minimum(p * len(p), 1)
    elif correction == "holm":
        order = np.argsort(p, kind="stable")
        p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return p.tolist()


def _check_differences(differences: ArrayLike) -> np.ndarray:
    differences_U = np.asarray(differences, dtype=np.float64)
    if differences_U.ndim != 1 or len(differences_U) < 2:
        raise ValueError(
            f"differences: of shape {list(differences_U.shape)}; a paired test takes one for each of two users or more"
        )
    if not np.isfinite(differences_U).all():
        row = int(np.argmin(np.isfinite(differences_U)))
        raise ValueError(f"differences: {differences_U[row]} in row {row} is not a number that can be compared")
    return differences_U


__all__ = [
    "CORRECTIONS",
    "bootstrap_interval",
    "correct_p_values",
    "differences_of_users",
    "paired_t_test",
    "wilcoxon_test",
]
