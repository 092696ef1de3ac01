"""Metrics of groups of users, against a loop over users."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from hf_latentrec.evaluation import length_buckets, metrics_by_group, ranking_metrics


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_groups_equal_a_slow_loop(kind):
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 30, 200)
    labels = rng.integers(1, 12, 200) if kind == "numbers" else rng.choice(["warm", "cold", "luke"], 200)
    expected = defaultdict(list)
    for rank, label in zip(ranks.tolist(), labels.tolist(), strict=True):
        expected[label].append(rank)
    groups = metrics_by_group(ranks, labels, ks=(5, 10), names=("NDCG", "MRR"))
    assert list(groups) == [str(label) for label in sorted(expected)]  # 2 comes before 10
    for label, of_group in expected.items():
        assert groups[str(label)].num_users == len(of_group)
        assert groups[str(label)].metrics == ranking_metrics(of_group, (5, 10), ("NDCG", "MRR"))


def test_wanted_groups_keep_their_order_and_may_be_empty():
    groups = metrics_by_group([1, 2, 0], ["b", "a", "b"], ks=(1,), groups=["c", "b", "a"])
    assert list(groups) == ["c", "b", "a"]
    assert groups["b"].metrics == {"HR@1": 0.5, "NDCG@1": 0.5}
    assert groups["c"].num_users == 0
    assert list(groups["c"].metrics) == ["HR@1", "NDCG@1"]
    assert all(math.isnan(value) for value in groups["c"].metrics.values())


def test_bad_groups_are_named():
    with pytest.raises(ValueError, match=r"2 ranks but labels of shape \[3\]"):
        metrics_by_group([1, 2], [1, 1, 1])
    with pytest.raises(ValueError, match=r"label 'x' is not one of groups=\['a'\]"):
        metrics_by_group([1, 2], ["a", "x"], groups=["a"])
    with pytest.raises(ValueError, match="ranks: -1.0 in row 1"):
        metrics_by_group([1, -1.0], ["a", "a"])


@pytest.mark.parametrize("bounds", [(3, 5, 10, 20), (1, 2), (7,)])
def test_every_length_is_in_the_bucket_that_names_it(bounds):
    lengths = np.arange(30)
    labels, buckets = length_buckets(lengths, bounds)
    assert len(buckets) == len(bounds) + 2
    for length, label in zip(lengths.tolist(), labels.tolist(), strict=True):
        low, _, high = label.removesuffix("+").partition("-")
        high = math.inf if label.endswith("+") else int(high or low)
        assert int(low) <= length <= high
    assert list(dict.fromkeys(labels.tolist())) == buckets


def test_bad_buckets_are_named():
    for bounds in [(3, 3), (5, 3), (0, 3)]:
        with pytest.raises(ValueError, match="do not increase from 1"):
            length_buckets([1], bounds)
    with pytest.raises(ValueError, match="length in row 1 is -2"):
        length_buckets([1, -2])
