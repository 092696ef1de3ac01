"""Balanced codes: never more than a code's share, and near to the best total of all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from hf_latentrec.semantic_ids import balanced_assignment
from hf_latentrec.semantic_ids.balanced_assignment import balanced_codes


def make(seed: int, num_items: int, num_codes: int, dimension: int = 4, heavy: bool = False):
    rng = np.random.default_rng(seed)
    vectors_ID = rng.normal(size=(num_items, dimension))
    if heavy:  # a few vectors far out
        vectors_ID *= np.exp(rng.normal(size=(num_items, 1)))
    vectors_ID = vectors_ID.astype(np.float32)
    return vectors_ID, vectors_ID[rng.choice(num_items, num_codes, replace=False)]


def assign(vectors_ID: np.ndarray, centroids_KD: np.ndarray, **options) -> np.ndarray:
    return balanced_codes(lambda rows: vectors_ID[rows], len(vectors_ID), centroids_KD, **options)[0]


def totals(vectors_ID: np.ndarray, centroids_KD: np.ndarray, codes_I: np.ndarray) -> tuple[float, float]:
    """Squared distances of these codes, and of the best balanced ones: every code is `capacity` workers."""
    costs_IK = ((vectors_ID[:, None].astype(np.float64) - centroids_KD) ** 2).sum(-1)
    capacity = math.ceil(len(vectors_ID) / len(centroids_KD))
    items, workers = linear_sum_assignment(costs_IK.repeat(capacity, axis=1))
    return costs_IK[np.arange(len(codes_I)), codes_I].sum(), costs_IK[items, workers // capacity].sum()


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_items", "num_codes"), [(12, 3), (13, 5), (60, 6), (100, 7), (200, 16), (8, 8), (9, 1)])
def test_within_capacity_and_near_the_best_total(seed, num_items, num_codes, heavy):
    vectors, centroids = make(seed, num_items, num_codes, heavy=heavy)
    codes = assign(vectors, centroids)
    assert codes.dtype == np.int32
    assert np.bincount(codes).max() <= math.ceil(num_items / num_codes)
    total, best = totals(vectors, centroids, codes)
    assert best - 1e-3 <= total <= 1.05 * best + 1e-3


def test_what_is_balanced_already_stays():
    centroids = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], dtype=np.float32)
    expected = np.random.default_rng(0).permutation(np.arange(30) % 3)
    vectors = centroids[expected] + np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
    assert (assign(vectors, centroids) == expected).all()


@pytest.mark.parametrize("max_block_items", [5, 50, 99])
def test_blocks_keep_the_capacity(max_block_items):
    vectors, centroids = make(0, 203, 10)
    codes = assign(vectors, centroids, max_block_items=max_block_items)
    assert np.bincount(codes, minlength=10).max() <= 21
    total, best = totals(vectors, centroids, codes)
    if max_block_items >= 50:
        assert total <= 1.15 * best
    skewed = np.sort(vectors[:, :1], axis=0)  # items in an order: every n-th into a block
    codes = assign(skewed, centroids[:, :1], max_block_items=max_block_items)
    assert np.bincount(codes, minlength=10).max() <= 21


def test_prices_from_a_part_of_the_block(monkeypatch):
    vectors, centroids = make(0, 400, 8)
    monkeypatch.setattr(balanced_assignment, "PRICE_ITEMS", 100)
    codes = assign(vectors, centroids)
    assert np.bincount(codes).max() <= 50
    total, best = totals(vectors, centroids, codes)
    assert total <= 1.05 * best


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_many_equal_vectors(share):
    vectors, centroids = make(0, 300, 20)
    vectors[: int(300 * share)] = vectors[0]
    codes = assign(vectors, centroids)
    assert np.bincount(codes, minlength=20).tolist() == [15] * 20
    total, best = totals(vectors, centroids, codes)
    assert total <= 1.05 * best
    assert (np.bincount(assign(vectors, centroids * 0 + vectors[0]), minlength=20) == 15).all()


def test_same_input_same_codes():
    vectors, centroids = make(0, 300, 20)
    assert (assign(vectors, centroids) == assign(vectors, centroids)).all()


def test_the_slope_of_the_dual():
    rng = np.random.default_rng(0)
    costs, prices, share = rng.random((30, 5)).astype(np.float32), rng.random(5), rng.random(5)
    value, slope = balanced_assignment._negative_dual(prices, costs, share, 0.3)
    slow = -0.3 * np.log(np.exp(-(costs + prices) / 0.3).sum(1)).mean() - prices @ share
    assert value == pytest.approx(-slow, rel=1e-5)
    for code in range(5):
        step = np.zeros(5)
        step[code] = 1e-2
        higher = balanced_assignment._negative_dual(prices + step, costs, share, 0.3)[0]
        lower = balanced_assignment._negative_dual(prices - step, costs, share, 0.3)[0]
        assert slope[code] == pytest.approx((higher - lower) / 2e-2, abs=1e-3)
