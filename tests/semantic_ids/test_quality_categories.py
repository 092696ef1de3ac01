"""Shares of pairs against all pairs, one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest

from hf_latentrec.semantic_ids import quality_categories
from hf_latentrec.semantic_ids.quality_categories import measure_categories, pairs_of
from hf_latentrec.semantic_ids.quality_codes import prefix_groups


def some_codes(num_items: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(3, size=(num_items, 2))


def some_categories(codes_IL: np.ndarray) -> pl.Series:
    """Lists of categories; one that nearly all have, some items without any, one with the same category twice."""
    rng = np.random.default_rng(2)
    lists = [["all", f"kind {code[0]}", f"kind {rng.integers(4)}"] for code in codes_IL]
    lists[3:6] = [["all"], [], None]
    lists[7] = [" ", "kind 2", "kind 2"]
    return pl.Series("categories", lists, dtype=pl.List(pl.String))


def slow_share(codes_IL: np.ndarray, categories: list, length: int) -> tuple[int, float]:
    """Pairs with a prefix in common whose items have a category, and how many of them agree."""
    kinds = [{kind for kind in found or [] if kind.startswith("kind")} for found in categories]
    agree = []
    for i, j in combinations(range(len(kinds)), 2):
        if kinds[i] and kinds[j] and codes_IL[i, :length].tolist() == codes_IL[j, :length].tolist():
            agree.append(bool(kinds[i] & kinds[j]))
    return len(agree), sum(agree) / len(agree)


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_all_pairs_against_a_loop(block, monkeypatch):
    monkeypatch.setattr(quality_categories, "BLOCK_PAIRS", block)
    codes_IL = some_codes()
    categories = some_categories(codes_IL)
    found = measure_categories(prefix_groups(codes_IL), categories)
    assert (found.column, found.num_items, found.num_categories) == ("categories", 37, 4)
    assert found.left_out == ("all",) and [one.length for one in found.agreements] == [0, 1, 2]
    for one in found.agreements:
        num_pairs, share = slow_share(codes_IL, categories.to_list(), one.length)
        assert (one.num_pairs, one.num_judged, one.standard_error) == (num_pairs, num_pairs, 0.0)
        assert one.share == pytest.approx(share) and 0 < share < 1


def test_a_sample_is_near_all_pairs_and_says_how_near():
    codes_IL = some_codes(300)
    groups, categories = prefix_groups(codes_IL), some_categories(codes_IL)
    exact, sample = (measure_categories(groups, categories, num_pairs) for num_pairs in (10**6, 2000))
    for one, other in zip(exact.agreements, sample.agreements, strict=True):
        assert one.num_pairs == other.num_pairs > other.num_judged == 2000
        assert other.standard_error == pytest.approx(np.sqrt(other.share * (1 - other.share) / 2000))
        assert 0 < abs(one.share - other.share) < 4 * other.standard_error
    assert sample == measure_categories(groups, categories, 2000)
    assert sample != measure_categories(groups, categories, 2000, seed=1)


def test_text_is_one_category():
    groups = prefix_groups(np.array([[0], [0], [0], [1]]))
    found = measure_categories(groups, pl.Series("brand", ["x", "x", "y", None]))
    assert (found.num_items, found.num_categories, found.left_out) == (1, 1, ("x",))  # x is that of 2 of 3
    assert found.agreements == ()
    found = measure_categories(groups, pl.Series("brand", ["x", "x", "y", "z"]))
    assert [(one.num_pairs, one.share) for one in found.agreements] == [(6, 1 / 6), (3, 1 / 3)]


def test_no_categories_at_all():
    found = measure_categories(prefix_groups(np.zeros((3, 1), int)), pl.Series("categories", ["", " ", None]))
    assert (found.num_items, found.num_categories, found.left_out, found.agreements) == (0, 0, (), ())


def test_numbers_are_no_categories():
    with pytest.raises(ValueError, match="column 'size' holds Int64; use text or lists of text"):
        measure_categories([np.zeros(2, int)], pl.Series("size", [1, 2]))


def test_pairs_are_all_pairs_once():
    sizes = np.array([1, 4, 0, 2, 5])
    later, earlier = pairs_of(np.arange((sizes * (sizes - 1) // 2).sum()), sizes)
    members = np.split(np.arange(12), np.cumsum(sizes)[:-1])
    expected = {pair for group in members for pair in combinations(group.tolist(), 2)}
    found = list(zip(earlier.tolist(), later.tolist(), strict=True))
    assert set(found) == expected and len(found) == len(expected)


@pytest.mark.parametrize("size", [2**20, 5_000_000, 300_000_000])
def test_pairs_of_big_groups_are_exact(size):
    rows = np.array([1, 2, 1000, size // 2, size - 2, size - 1])
    first, last = rows * (rows - 1) // 2, rows * (rows - 1) // 2 + rows - 1
    later, earlier = pairs_of(np.concatenate([first, last]), np.array([size]))
    assert later.tolist() == [*rows, *rows] and earlier.tolist() == [0] * 6 + (rows - 1).tolist()
