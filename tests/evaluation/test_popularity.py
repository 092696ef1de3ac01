"""Popular and long-tail items apart, against a loop over users."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_latentrec.evaluation import metrics_by_popularity, popular_items, ranking_metrics


def slow_groups(ranks, targets, popularity, share):
    """Ranks by group, user by user; an item is popular if fewer than the wanted number come before it."""
    wanted = math.ceil(share * len(popularity))
    groups = {"popular": [], "long-tail": []}
    for rank, target in zip(ranks, targets, strict=True):
        before = sum(
            count > popularity[target] or (count == popularity[target] and row < target)
            for row, count in enumerate(popularity)
        )
        groups["popular" if before < wanted else "long-tail"].append(rank)
    return groups


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_groups_equal_a_slow_loop(share):
    rng = np.random.default_rng(0)
    popularity = rng.integers(0, 6, 53)  # many ties
    targets, ranks = rng.integers(0, 53, 200), rng.integers(0, 30, 200)
    expected = slow_groups(ranks.tolist(), targets.tolist(), popularity.tolist(), share)
    groups = metrics_by_popularity(ranks, targets, popularity, ks=(5, 10), share=share)
    assert list(groups) == ["popular", "long-tail"]
    for name, group in groups.items():
        assert group.num_users == len(expected[name]) > 0
        assert group.metrics == ranking_metrics(expected[name], ks=(5, 10))


def test_ties_at_the_border_go_by_catalog_order():
    assert popular_items(np.array([1, 2, 2, 2, 0]), share=0.4).tolist() == [False, True, True, False, False]
    assert popular_items([4, 0, 0, 0, 0, 0]).tolist() == [True, True, *[False] * 4]  # ceil(0.2 * 6)


def test_a_group_without_users_has_no_metrics():
    groups = metrics_by_popularity([1, 2], [0, 0], popularity=[9, 1, 1, 1, 1], ks=(1,))
    assert groups["popular"].num_users == 2 and groups["popular"].metrics["HR@1"] == 0.5
    assert groups["long-tail"].num_users == 0
    assert list(groups["long-tail"].metrics) == ["HR@1", "NDCG@1"]
    assert all(math.isnan(value) for value in groups["long-tail"].metrics.values())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="none of the 3 items has a training interaction"):
        metrics_by_popularity([1], [0], popularity=[0, 0, 0])
    for share in (0, 1, -0.1, 20):
        with pytest.raises(ValueError, match=f"share is {share}"):
            popular_items([1, 2], share)
    with pytest.raises(ValueError, match="2 ranks but 1 target_rows"):
        metrics_by_popularity([1, 2], [0], popularity=[1, 2])
