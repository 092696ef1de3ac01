"""Metrics of lists, against loops over users, items and pairs."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from hf_latentrec.evaluation import (
    catalog_coverage,
    gini,
    intra_list_diversity,
    metrics_of_lists,
    novelty,
    title_vectors,
)


NUM_ITEMS = 40


def make_lists(num_users: int = 60, k: int = 8) -> np.ndarray:
    """Some lists end early, and some items are recommended much more often than others."""
    rng = np.random.default_rng(0)
    shares = np.arange(1, NUM_ITEMS + 1) ** 2.0
    rows = np.stack([rng.choice(NUM_ITEMS - 5, k, replace=False, p=_share(shares[:-5])) for _ in range(num_users)])
    for user, length in enumerate(rng.integers(1, k + 1, num_users)):
        rows[user, length:] = -1
    return rows


def _share(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def slow_lists(rows: np.ndarray, k: int) -> list[list[int]]:
    return [[item for item in row[:k] if item >= 0] for row in rows.tolist()]


def slow_distance(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms > 0 else 1.0


@pytest.mark.parametrize("k", [1, 3, 8])
def test_coverage_and_gini_equal_a_slow_loop(k):
    rows = make_lists()
    times = dict.fromkeys(range(NUM_ITEMS), 0)
    for items in slow_lists(rows, k):
        for item in items:
            times[item] += 1
    assert catalog_coverage(rows, NUM_ITEMS, k) == pytest.approx(sum(n > 0 for n in times.values()) / NUM_ITEMS)
    # The textbook definition: mean absolute difference of all pairs over twice the mean.
    differences = sum(abs(a - b) for a in times.values() for b in times.values()) / NUM_ITEMS**2
    assert gini(rows, NUM_ITEMS, k) == pytest.approx(differences / (2 * sum(times.values()) / NUM_ITEMS))


@pytest.mark.parametrize("k", [1, 3, 8])
def test_novelty_equals_a_slow_loop(k):
    rows, popularity = make_lists(), np.random.default_rng(1).integers(0, 5, NUM_ITEMS)
    assert (popularity == 0).any()
    of_users = []
    for items in slow_lists(rows, k):
        bits = [-math.log2(max(int(popularity[item]), 1) / int(popularity.sum())) for item in items]
        of_users.append(sum(bits) / len(bits))
    assert novelty(rows, popularity, k) == pytest.approx(sum(of_users) / len(of_users))


@pytest.mark.parametrize("block_entries", [1, 50, 10**6])
@pytest.mark.parametrize("to_vectors", [np.asarray, sparse.csr_array, sparse.coo_matrix], ids=["dense", "csr", "coo"])
@pytest.mark.parametrize("k", [2, 3, 8])
def test_diversity_equals_a_slow_loop_in_any_blocks(k, to_vectors, block_entries, monkeypatch):
    monkeypatch.setattr("hf_latentrec.evaluation.list_metrics.BLOCK_ENTRIES", block_entries)
    rows, rng = make_lists(), np.random.default_rng(2)
    vectors = rng.normal(size=(NUM_ITEMS, 5)) * (rng.random((NUM_ITEMS, 5)) < 0.5)
    vectors[[1, 30, 33, -1]] = 0  # items without features, two of them often in one list
    of_users = []
    for items in slow_lists(rows, k):
        if len(items) > 1:
            pairs = [slow_distance(vectors[a].tolist(), vectors[b].tolist()) for a, b in combinations(items, 2)]
            of_users.append(sum(pairs) / len(pairs))
    assert len(of_users) < len(rows)
    expected = sum(of_users) / len(of_users)
    assert intra_list_diversity(rows, to_vectors(vectors), k) == pytest.approx(expected)


def test_ends_of_the_scales():
    everything = [[0, 1], [2, 3]]
    assert catalog_coverage(everything, 4, 2) == 1 and gini(everything, 4, 2) == 0
    assert gini([[3]] * 9, 5, 1) == pytest.approx(4 / 5)
    assert intra_list_diversity([[0, 1]], np.array([[1.0], [-3.0]]), 2) == pytest.approx(2)
    assert intra_list_diversity([[0, 1]], np.ones((2, 3), dtype=np.float32), 2) == pytest.approx(0)


def test_words_of_titles():
    titles = ["Grüner TEE, grüner Tee", "grüner Hut", "Hut", None, "", "!!"]
    vectors = title_vectors(titles).toarray()
    assert vectors.shape == (6, 3)  # grüner, hut, tee
    assert (vectors[3:] == 0).all()
    assert vectors[0] == pytest.approx([math.log(6 / 2), 0, math.log(6 / 1)])
    assert title_vectors([None, None]).shape == (2, 0)


def test_all_of_them_by_name():
    rows, popularity, titles = make_lists(), np.arange(NUM_ITEMS), title_vectors(["a b", "c d"] * (NUM_ITEMS // 2))
    metrics = metrics_of_lists(rows, popularity, (1, 3, 20), titles)
    assert list(metrics) == [
        *("coverage@1", "gini@1", "novelty@1"),
        *("coverage@3", "gini@3", "novelty@3", "intra_list_diversity@3"),
    ]
    assert metrics["gini@3"] == gini(rows, NUM_ITEMS, 3)
    assert metrics["coverage@1"] == catalog_coverage(rows, NUM_ITEMS, 1)
    assert metrics["novelty@3"] == novelty(rows, popularity, 3)
    assert metrics["intra_list_diversity@3"] == intra_list_diversity(rows, titles, 3)
    assert "intra_list_diversity@3" not in metrics_of_lists(rows, popularity, (3,))
    assert "novelty@3" not in metrics_of_lists(rows, np.zeros(NUM_ITEMS), (3,), titles)


@pytest.mark.parametrize(
    ("rows", "k", "message"),
    [
        (np.empty((0, 3), dtype=int), 1, r"one user at least, shape \[U, K\], found \[0, 3\]"),
        ([1, 2], 1, r"found \[2\]"),
        ([[1, 2]], 3, "cutoff 3 is beyond the 2 recommendations"),
        ([[1, 2]], 0, "whole number from 1, found 0"),
        ([[1, 4]], 2, "4 is not a row of the 4 items"),
        ([[1, -2]], 2, "-2 is not a row of the 4 items"),
        ([[1, 2], [-1, -1]], 2, r"user in row 1 has no recommendation \(1 such rows\)"),
        ([[1, 2], [-1, 3]], 1, "user in row 1 has no recommendation"),
        ([[1, 2, 3], [0, 3, -1], [3, 0, 3]], 3, "user in row 2 is recommended the item of row 3 twice"),
    ],
)
def test_bad_lists_are_named(rows, k, message, monkeypatch):
    monkeypatch.setattr("hf_latentrec.evaluation.list_metrics.BLOCK_ENTRIES", 3)
    calls = [
        lambda: catalog_coverage(rows, 4, k),
        lambda: gini(rows, 4, k),
        lambda: novelty(rows, [1, 2, 3, 4], k),
        lambda: intra_list_diversity(rows, np.ones((4, 2)), k),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_items_are_named():
    with pytest.raises(ValueError, match="none of the 2 items has a training interaction"):
        novelty([[0, 1]], [0, 0], 2)
    with pytest.raises(ValueError, match=r"shape \[3\]; pass one vector per item"):
        intra_list_diversity([[0, 1]], np.ones(3), 2)
    with pytest.raises(ValueError, match="item in row 1 holds NaN"):
        intra_list_diversity([[0, 1]], np.array([[1.0], [math.nan]]), 2)
    with pytest.raises(ValueError, match="no user has two recommendations or more at k=1"):
        intra_list_diversity([[0, 1]], np.ones((2, 2)), 1)
