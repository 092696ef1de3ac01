"""Every figure of a table of codes against a slow loop."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from hf_latentrec.semantic_ids import quality_codes
from hf_latentrec.semantic_ids.quality_codes import (
    biggest_prefixes,
    measure_collisions,
    measure_level_use,
    measure_prefix_sizes,
    prefix_groups,
    reconstruction_errors,
)


@pytest.fixture
def codes_IL() -> np.ndarray:
    return np.random.default_rng(3).integers(0, [3, 5, 4], size=(50, 3)).astype(np.int32)


def test_groups_are_the_prefixes(codes_IL):
    groups = prefix_groups(codes_IL)
    assert len(groups) == 4 and not groups[0].any()
    for length, groups_I in enumerate(groups):
        prefixes = [tuple(code[:length]) for code in codes_IL.tolist()]
        numbers = {prefix: number for number, prefix in enumerate(sorted(set(prefixes)))}
        assert groups_I.tolist() == [numbers[prefix] for prefix in prefixes]


def test_groups_of_many_large_levels_do_not_overflow():
    codes_IL = np.full((3, 12), 2**30, dtype=np.int32)
    codes_IL[1, 0] = 0
    assert prefix_groups(codes_IL)[-1].tolist() == [1, 0, 1]


def test_collisions_against_a_loop(codes_IL):
    found = measure_collisions(prefix_groups(codes_IL)[-1])
    counts = Counter(map(tuple, codes_IL.tolist()))
    colliding = sum(counts[tuple(code)] > 1 for code in codes_IL.tolist())
    assert 0 < colliding < 50
    assert (found.num_items, found.num_colliding, found.num_codes) == (50, colliding, len(counts))
    assert found.rate == colliding / 50 and found.biggest == max(counts.values())


def test_use_of_a_level_against_a_loop(codes_IL):
    codes_I = codes_IL[:, 1] * 2
    found = measure_level_use(codes_I, 256, "b")
    counts = Counter(codes_I.tolist())
    entropy = -sum(count / 50 * math.log2(count / 50) for count in counts.values())
    assert found.counts == tuple(sorted(counts.values(), reverse=True)) and found.used == len(counts)
    assert found.entropy == pytest.approx(entropy) and found.perplexity == pytest.approx(2**entropy)
    assert (found.name, found.size, found.reachable, found.max_entropy) == ("b", 256, 50, math.log2(50))


def test_a_level_of_one_code_has_no_entropy():
    found = measure_level_use(np.full(7, 3), 8, "a")
    assert (found.used, found.entropy, found.perplexity, found.max_entropy) == (1, 0.0, 1.0, math.log2(7))
    assert measure_level_use(np.array([3]), 8, "a").max_entropy == 0.0


def test_sizes_of_prefixes_against_a_loop(codes_IL):
    found = measure_prefix_sizes(prefix_groups(codes_IL)[2], 2)
    sizes = Counter(tuple(code[:2]) for code in codes_IL.tolist()).values()
    assert list(found.num_prefixes_by_size.items()) == sorted(Counter(sizes).items(), reverse=True)
    assert (found.length, found.num_prefixes, found.biggest) == (2, len(sizes), max(sizes))


def test_biggest_prefixes_have_different_titles_of_their_items():
    groups_I = np.array([0, 1, 1, 1, 2, 2, 1, 3])
    titles = pl.Series(["a", "tea", "", "tea", "x", "y", "cup", "z"])
    found = biggest_prefixes(groups_I, lambda row: [f"<a_{groups_I[row]}>"], titles, num_prefixes=3, num_titles=2)
    assert [(one.tokens, one.num_items, one.share) for one in found] == [(("<a_1>",), 4, 0.5), (("<a_2>",), 2, 0.25)]
    assert [one.titles for one in found] == [("tea", "cup"), ("x", "y")]  # and none of a single item
    assert biggest_prefixes(groups_I, lambda row: [], None)[0].titles == ()
    assert len(biggest_prefixes(groups_I, lambda row: [], None, num_prefixes=1)) == 1


def test_reconstruction_against_a_loop(monkeypatch):
    monkeypatch.setattr(quality_codes, "BLOCK_ROWS", 4)
    rng = np.random.default_rng(0)
    x, codebooks = rng.normal(2.0, 1.0, size=(11, 3)).astype(np.float32), rng.normal(size=(2, 5, 3))
    codes = rng.integers(5, size=(11, 3))  # the third level has no codebook
    variance = sum(float(((row - x.astype(float).mean(axis=0)) ** 2).sum()) for row in x.astype(float)) / 11
    before = x.copy()
    found = reconstruction_errors(codes, x, codebooks)
    assert len(found) == 2 and (x == before).all()
    for length, error in enumerate(found, start=1):
        total = 0.0
        for row, code in zip(x.astype(float), codes, strict=True):
            rest = row - sum(codebooks[level, code[level]] for level in range(length))
            total += float((rest**2).sum())
        assert error.length == length and error.mean_squared == pytest.approx(total / 11)
        assert error.relative == pytest.approx(total / 11 / variance)


def test_equal_embeddings_have_no_variance():
    (error,) = reconstruction_errors(np.zeros((3, 1), int), np.ones((3, 2)), np.zeros((1, 1, 2)))
    assert error.mean_squared == 2.0 and math.isnan(error.relative)


@pytest.mark.parametrize("shape", [(4, 3), (5, 2)])
def test_embeddings_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"do not fit codebooks \(1, 2, 3\)"):
        reconstruction_errors(np.zeros((5, 1), int), np.zeros(shape), np.zeros((1, 2, 3)))


def test_numbers_that_are_not_finite_are_refused():
    x = np.zeros((5, 3))
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite numbers; embed again"):
        reconstruction_errors(np.zeros((5, 1), int), x, np.zeros((1, 2, 3)))
