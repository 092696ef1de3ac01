from __future__ import annotations

import math

import numpy as np
import pytest

from hf_latentrec.evaluation import (
    METRICS,
    hit_rate,
    mean_average_precision,
    metric_values,
    mrr,
    ndcg,
    precision,
    ranking_metrics,
    recall,
    split_metric,
)


def slow_metrics(candidates: list[list[int]], targets: list[int], k: int) -> tuple[float, float]:
    """HR and NDCG from ranked lists by their textbook definitions (gain, discount, ideal gain), user by user."""
    hits, gains = [], []
    for ranked, target in zip(candidates, targets, strict=True):
        relevance = [1.0 if item == target else 0.0 for item in ranked[:k]]
        ideal_gain = 1.0 / math.log2(2)
        hits.append(1.0 if target in ranked[:k] else 0.0)
        gains.append(sum(rel / math.log2(place + 1) for place, rel in enumerate(relevance, start=1)) / ideal_gain)
    return sum(hits) / len(hits), sum(gains) / len(gains)


def slow_values(ranked: list[int], target: int, k: int | None) -> dict[str, float]:
    """Recall, precision, reciprocal rank and average precision of one user, place by place."""
    hits, precisions, reciprocal = 0, [], 0.0
    for place, item in enumerate(ranked[:k], start=1):
        if item == target:
            hits += 1
            precisions.append(hits / place)
            reciprocal = reciprocal or 1 / place
    return {
        "Recall": hits / 1,
        "Precision": hits / k if k else math.nan,
        "MRR": reciprocal,
        "MAP": sum(precisions) / 1,
    }


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20, 100])
def test_metrics_equal_a_slow_loop_over_ranked_lists(k):
    rng = np.random.default_rng(0)
    candidates = [rng.permutation(60)[:30].tolist() for _ in range(200)]
    targets = rng.integers(0, 60, size=200).tolist()  # about half are not among the 30 candidates
    ranks = [
        ranked.index(target) + 1 if target in ranked else 0 for ranked, target in zip(candidates, targets, strict=True)
    ]
    assert 0 in ranks and max(ranks) > 20
    expected_hr, expected_ndcg = slow_metrics(candidates, targets, k)
    assert hit_rate(ranks, k) == pytest.approx(expected_hr)
    assert ndcg(np.array(ranks), k) == pytest.approx(expected_ndcg)
    slow = [slow_values(ranked, target, k) for ranked, target in zip(candidates, targets, strict=True)]
    functions = {"Recall": recall, "Precision": precision, "MRR": mrr, "MAP": mean_average_precision}
    by_name = ranking_metrics(ranks, (k,), METRICS)
    for name, function in functions.items():
        expected = [values[name] for values in slow]
        assert metric_values(ranks, f"{name}@{k}") == pytest.approx(expected)
        assert function(ranks, k) == by_name[f"{name}@{k}"] == pytest.approx(sum(expected) / len(expected))
    whole = [slow_values(ranked, target, None)["MRR"] for ranked, target in zip(candidates, targets, strict=True)]
    assert mrr(ranks) == mean_average_precision(ranks) == pytest.approx(sum(whole) / len(whole))
    assert metric_values(ranks, "MRR") == pytest.approx(whole)


def test_the_cutoff_itself_counts():
    assert hit_rate([10, 11], 10) == 0.5
    assert ndcg([10, 11], 10) == pytest.approx(0.5 / math.log2(11))


def test_a_miss_scores_nothing_at_any_cutoff():
    assert ranking_metrics([0, 0]) == dict.fromkeys(["HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"], 0.0)


def test_ranking_metrics_holds_every_metric_in_the_order_of_the_tables():
    metrics = ranking_metrics([1, 7, 0], ks=(5, 10))
    assert list(metrics) == ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]
    assert metrics["HR@10"] == hit_rate([1, 7, 0], 10) and metrics["NDCG@5"] == ndcg([1, 7, 0], 5)
    assert all(type(value) is float for value in metrics.values())
    assert list(ranking_metrics([1], (5, 10), ("MRR", "HR"))) == ["MRR@5", "HR@5", "MRR@10", "HR@10"]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("hr@10", "'hr@10' is unknown; choose among .*'HR', 'NDCG'"),
        ("NDCG", "'NDCG' has no cutoff that is a whole number from 1; write it as 'NDCG@10'"),
        ("MRR@", "'MRR@' has no cutoff"),
        ("HR@0", "'HR@0' has no cutoff"),
        ("HR@1.5", "'HR@1.5' has no cutoff"),
        ("HR@-1", "'HR@-1' has no cutoff"),
    ],
)
def test_what_is_not_a_metric_is_named(metric, message):
    with pytest.raises(ValueError, match=message):
        split_metric(metric)
    with pytest.raises(ValueError, match=message):
        metric_values([1], metric)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'AUC' is unknown"):
        ranking_metrics([1], names=("HR", "AUC"))


@pytest.mark.parametrize("metric", [hit_rate, ndcg, recall, precision, mrr, mean_average_precision])
@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([], r"shape \[0\]"),
        ([[1, 2]], r"shape \[1, 2\]"),
        (3, r"shape \[\]"),
        ([1, -2, -1], r"-2 in row 1 is not a rank \(2 such rows\)"),
        ([1.0, float("nan")], "nan in row 1"),
        ([float("inf"), 1.0], "inf in row 0"),
        ([1.0, 2.5], "2.5 in row 1"),
        (["1"], "dtype"),
        ([True, False], "dtype bool"),
    ],
)
def test_what_is_not_a_rank_is_named(metric, ranks, message):
    with pytest.raises(ValueError, match=message):
        metric(ranks, 10)


@pytest.mark.parametrize("metric", [hit_rate, ndcg, recall, precision, mrr, mean_average_precision])
@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_what_is_not_a_cutoff_is_named(metric, k):
    with pytest.raises(ValueError, match=f"found {k}"):
        metric([1], k)


def test_no_cutoffs_at_all():
    with pytest.raises(ValueError, match="ks is empty"):
        ranking_metrics([1], ks=())
