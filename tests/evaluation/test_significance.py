"""Paired tests against their definitions, written out."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from hf_latentrec.evaluation import (
    bootstrap_interval,
    correct_p_values,
    metric_values,
    paired_t_test,
    significance,
    wilcoxon_test,
)


def slow_t_test(differences: list[float]) -> float:
    """The statistic by sums, its tail by integrating the density of t."""
    n = len(differences)
    mean = sum(differences) / n
    variance = sum((d - mean) ** 2 for d in differences) / (n - 1)
    t, freedom = abs(mean) / math.sqrt(variance / n), n - 1
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    x = np.linspace(0, t, 200_001)
    density = scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    return 1 - 2 * float((density[1:] + density[:-1]).sum() / 2 * x[1])


def ranks_of(values: list[float]) -> list[float]:
    """Places from 1 of the sorted values; those that tie share their mean place."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def slow_exact_wilcoxon(differences: list[float]) -> float:
    """Share of all assignments of signs whose sum of positive ranks is as far from the middle as the found one."""
    ranks = ranks_of([abs(d) for d in differences])
    middle = sum(ranks) / 2
    found = abs(sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0) - middle)
    far = [
        abs(sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) - middle) >= found
        for signs in product([False, True], repeat=len(ranks))
    ]
    return sum(far) / len(far)


def slow_normal_wilcoxon(differences: list[float]) -> float:
    differences = [d for d in differences if d != 0]
    sizes, n = [abs(d) for d in differences], len(differences)
    ranks = ranks_of(sizes)
    positive = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    ties = sum(sizes.count(size) ** 3 - sizes.count(size) for size in set(sizes))
    z = (positive - n * (n + 1) / 4) / math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48)
    return math.erfc(abs(z) / math.sqrt(2))


def differences_of_ranks(num_users: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 15, num_users), rng.integers(0, 13, num_users)
    return metric_values(b, "NDCG@10") - metric_values(a, "NDCG@10")


@pytest.mark.parametrize("num_users", [2, 7, 200])
def test_t_test_equals_its_definition(num_users):
    differences = np.random.default_rng(num_users).normal(0.3, 1, num_users).tolist()
    assert paired_t_test(differences) == pytest.approx(slow_t_test(differences), abs=1e-7)


def test_t_test_is_that_of_two_samples():
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert paired_t_test(b - a) == pytest.approx(stats.ttest_rel(b, a).pvalue)


def test_wilcoxon_is_exact_for_few_users():
    differences = [0.3, -0.1, 0.7, 0.9, -0.25, 1.4, 0.6, 2.0]
    assert wilcoxon_test(differences) == pytest.approx(slow_exact_wilcoxon(differences))
    assert wilcoxon_test([0, *differences, 0.0]) == wilcoxon_test(differences)


@pytest.mark.parametrize("num_users", [30, 300])
def test_wilcoxon_with_ties_equals_its_normal_approximation(num_users):
    differences = differences_of_ranks(num_users)
    assert (differences == 0).any()
    assert wilcoxon_test(differences) == pytest.approx(slow_normal_wilcoxon(differences.tolist()))


@pytest.mark.parametrize("differences", [[-0.5, 0.25, 0.25, 1.0, 3.0], [0, 0, 0, 0, 0, 0, 0, 0, 1]])
def test_bootstrap_has_the_quantiles_of_all_resamples(differences):
    n = len(differences)
    values = sorted(set(differences))
    chance: dict[float, float] = {}
    for resample in product(values, repeat=n):
        mean = round(sum(resample) / n, 9)
        chance[mean] = chance.get(mean, 0) + math.prod(differences.count(value) / n for value in resample)
    low, high = bootstrap_interval(differences, 40_000, confidence=0.8)
    below = [sum(p for mean, p in chance.items() if mean < end - 1e-9) for end in (low, high)]
    up_to = [sum(p for mean, p in chance.items() if mean <= end + 1e-9) for end in (low, high)]
    for share, less, or_equal in zip((0.1, 0.9), below, up_to, strict=True):
        assert less - 0.01 < share < or_equal + 0.01


@pytest.mark.parametrize("num_users", [150, 2000], ids=["many values", "few values"])
def test_bootstrap_agrees_with_drawing_users_one_by_one(num_users):
    differences, rng = differences_of_ranks(num_users), np.random.default_rng(1)
    assert (len(set(differences.tolist())) * 10 < num_users) == (num_users == 2000)
    means = [differences[rng.integers(0, num_users, num_users)].mean() for _ in range(10_000)]
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(differences) == pytest.approx(expected, abs=0.04 * (expected[1] - expected[0]))


@pytest.mark.parametrize("num_users", [60, 2000], ids=["many values", "few values"])
def test_bootstrap_depends_on_its_seed_and_not_on_its_blocks(num_users, monkeypatch):
    differences = differences_of_ranks(num_users)
    first = bootstrap_interval(differences, 500, seed=3)
    assert bootstrap_interval(differences, 500, seed=4) != first
    monkeypatch.setattr(significance, "BLOCK_ENTRIES", 150)
    assert bootstrap_interval(differences, 500, seed=3) == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("num_users", [2, 100])
def test_no_difference_is_no_evidence(num_users):
    same = np.zeros(num_users)
    assert paired_t_test(same) == wilcoxon_test(same) == 1
    assert bootstrap_interval(same) == (0, 0)


def test_one_difference_for_all_leaves_no_spread():
    assert paired_t_test([0.5] * 9) == 0
    assert bootstrap_interval([0.5] * 9) == (0.5, 0.5)
    assert 0 < wilcoxon_test([0.5] * 9) < 0.05


@pytest.mark.parametrize("test", [paired_t_test, wilcoxon_test, bootstrap_interval])
@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ([0.5], r"shape \[1\]; a paired test takes"),
        ([], r"shape \[0\]"),
        ([[1, 2]], r"shape \[1, 2\]"),
        ([0.1, math.nan], "nan in row 1"),
        ([math.inf, 0.1], "inf in row 0"),
    ],
)
def test_what_cannot_be_tested_is_named(test, differences, message):
    with pytest.raises(ValueError, match=message):
        test(differences)


def test_bad_settings_of_the_bootstrap_are_named():
    with pytest.raises(ValueError, match="num_samples is 0"):
        bootstrap_interval([1, 2], 0)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match=f"confidence is {confidence}"):
            bootstrap_interval([1, 2], confidence=confidence)


def test_holm_step_by_step():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p_values = rng.random(6).round(1).tolist()
        expected, least = {}, 0.0
        for step, place in enumerate(sorted(range(6), key=p_values.__getitem__)):
            least = max(least, min(1.0, (6 - step) * p_values[place]))
            expected[place] = least
        assert correct_p_values(p_values) == pytest.approx([expected[place] for place in range(6)])


def test_other_corrections():
    assert correct_p_values([0.01, 0.5, 0.02], "bonferroni") == pytest.approx([0.03, 1, 0.06])
    assert correct_p_values([0.01, 0.5, 0.02], "none") == [0.01, 0.5, 0.02]
    assert correct_p_values([], "holm") == []
    with pytest.raises(ValueError, match="correction is 'fdr'; choose one of"):
        correct_p_values([0.1], "fdr")
    for wrong in (math.nan, 1.1, -0.1):
        with pytest.raises(ValueError, match=f"{wrong} at place 1 is no p-value"):
            correct_p_values([0.1, wrong])
