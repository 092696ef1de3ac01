"""CL4SRec's augmentations: what they may change, and what they never do."""

from __future__ import annotations

import numpy as np
import pytest

from hf_latentrec.data.sequence_augmentations import augmented_views, crop, mask, reorder


SEQUENCE = np.array([5, 3, 9, 7, 2, 8, 4, 1, 6, 10])


def draws(function, ratio, count=300):
    generator = np.random.default_rng(0)
    return [function(SEQUENCE, ratio, generator) for _ in range(count)]


def test_crop_takes_every_contiguous_part_of_its_length():
    parts = {tuple(SEQUENCE[start : start + 6]) for start in range(5)}
    assert {tuple(view) for view in draws(crop, 0.6)} == parts


def test_mask_hides_every_position_equally_often_and_moves_nothing():
    hidden = np.zeros(len(SEQUENCE))
    for view in draws(mask, 0.3, 2000):
        assert (view == 0).sum() == 3 and (view[view != 0] == SEQUENCE[view != 0]).all()
        hidden += view == 0
    np.testing.assert_allclose(hidden / 2000, 0.3, atol=0.04)


def test_reorder_shuffles_one_part_and_keeps_the_rest():
    spans = set()
    for view in draws(reorder, 0.4):
        assert sorted(view) == sorted(SEQUENCE)
        moved = np.flatnonzero(view != SEQUENCE)
        if len(moved):
            assert moved[-1] - moved[0] < 4
            spans.add(int(moved[0]))
    assert len(spans) >= 7  # every part comes up


@pytest.mark.parametrize("function", [crop, mask, reorder])
def test_one_item_stays_and_the_input_is_not_written_to(function):
    before = SEQUENCE.copy()
    function(SEQUENCE, 0.5, np.random.default_rng(1))
    assert (SEQUENCE == before).all()
    assert function(np.array([4]), 0.6, np.random.default_rng(1)).tolist() == [4]


def test_two_views_use_two_different_ways():
    # with these ratios each way leaves its mark: half of the length, all hidden, or the same items
    kinds = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        views = augmented_views(SEQUENCE, generator, crop_ratio=0.5, mask_ratio=1.0, reorder_ratio=0.6)
        kinds.append(tuple("crop" if len(view) == 5 else "reorder" if view.all() else "mask" for view in views))
    assert all(first != second for first, second in kinds)
    assert len(set(kinds)) == 6


def test_views_depend_on_the_generator_alone():
    one, same, other = (augmented_views(SEQUENCE, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, other, strict=True))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="mask_ratio is 1.5"):
        augmented_views(SEQUENCE, np.random.default_rng(0), mask_ratio=1.5)
    with pytest.raises(ValueError, match="empty"):
        augmented_views(SEQUENCE[:0], np.random.default_rng(0))
