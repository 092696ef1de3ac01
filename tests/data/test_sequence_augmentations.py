"""CL4SRec's augmentations: what they may change, and what they never do."""

from __future__ import annotations

import numpy as np
import pytest

from hf_latentrec.data.sequence_augmentations import AugmentedView, FlatSequences, crop, mask, reorder


SEQUENCE = np.array([5, 3, 9, 7, 2, 8, 4, 1, 6, 10])
OTHER = np.array([11, 12, 13, 14, 15])


class Histories:
    """A data set as far as a view looks at it."""

    def __init__(self, sequences, packed=True):
        self.sequences, self.packed = sequences, packed

    def prefix(self, sample):
        return self.sequences[sample]


def many(count=300):
    """The long sequence many times, each time with the short one behind it, and a generator."""
    return FlatSequences.of([SEQUENCE, OTHER] * count), np.random.default_rng(0)


def test_crop_takes_every_contiguous_part_of_its_length():
    sequences, generator = many()
    views = crop(sequences, 0.6, generator.random(600)).split()
    assert {tuple(view) for view in views[::2]} == {tuple(SEQUENCE[start : start + 6]) for start in range(5)}
    assert {tuple(view) for view in views[1::2]} == {tuple(OTHER[start : start + 3]) for start in range(3)}


def test_mask_hides_every_position_equally_often_and_moves_nothing():
    sequences, generator = many(2000)
    views = mask(sequences, 0.3, generator.random(30_000)).split()
    for view, sequence, size in ((views[::2], SEQUENCE, 3), (views[1::2], OTHER, 1)):
        array = np.array(view)
        assert ((array == 0).sum(1) == size).all() and ((array == sequence) | (array == 0)).all()
        np.testing.assert_allclose((array == 0).mean(0), size / len(sequence), atol=0.04)


def test_reorder_shuffles_one_part_and_keeps_the_rest():
    sequences, generator = many()
    starts = set()
    for view in reorder(sequences, 0.4, generator.random(600), generator.random(4500)).split()[::2]:
        assert sorted(view) == sorted(SEQUENCE)
        moved = np.flatnonzero(view != SEQUENCE)
        if len(moved):
            assert moved[-1] - moved[0] < 4
            starts.add(int(moved[0]))
    assert len(starts) >= 7  # every part comes up


def test_one_item_stays_and_nothing_is_written_to():
    sequences = FlatSequences.of([np.array([4]), SEQUENCE])
    before, draws = sequences.values.copy(), np.random.default_rng(1).random(11)
    views = (
        crop(sequences, 0.6, draws[:2]),
        mask(sequences, 0.6, draws),
        reorder(sequences, 0.6, draws[:2], draws),
    )
    assert all(view.split()[0].tolist() == [4] for view in views)
    assert (sequences.values == before).all()


def way_of(view: np.ndarray) -> str:
    """With the ratios below every way leaves its mark: half of the length, all hidden, or neither."""
    return "crop" if len(view) == 5 else "reorder" if view.all() else "mask"


def test_the_two_views_of_a_sample_use_two_different_ways():
    dataset, samples = Histories([SEQUENCE] * 300), np.arange(300)
    views = [AugmentedView(number, crop_ratio=0.5, mask_ratio=1.0)(dataset, samples, 0, 0) for number in (0, 1)]
    pairs = [(way_of(first), way_of(second)) for first, second in zip(*views, strict=True)]
    assert all(first != second for first, second in pairs)
    shares = [pairs.count(pair) / 300 for pair in set(pairs)]
    assert len(shares) == 6
    np.testing.assert_allclose(shares, 1 / 6, atol=0.07)


def test_a_row_that_is_not_packed_ends_with_its_newest_item():
    def masked(packed):
        views = AugmentedView(0, crop_ratio=0.5)(Histories([SEQUENCE] * 300, packed), np.arange(300), 0, 0)
        return np.array([view for view in views if len(view) == 10 and not view.all()])

    packed, unpacked = masked(True), masked(False)
    np.testing.assert_array_equal((packed == 0).sum(1), 3)
    np.testing.assert_array_equal((unpacked == 0).sum(1), 3)
    assert (packed[:, -1] == 0).any() and (unpacked[:, -1] == SEQUENCE[-1]).all()
    assert (unpacked[:, :-1] == 0).any(0).all()
    # Where the newest item is not drawn, nothing is different.
    np.testing.assert_array_equal(unpacked[packed[:, -1] != 0], packed[packed[:, -1] != 0])


def test_a_view_depends_on_sample_seed_and_epoch_alone():
    dataset, view = Histories([SEQUENCE] * 40), AugmentedView(0)
    whole = view(dataset, np.arange(40), 3, 1)
    for sample in (0, 7, 39):
        assert (view(dataset, np.array([sample]), 3, 1)[0] == whole[sample]).all()
    for seed, epoch in ((4, 1), (3, 2)):
        other = view(dataset, np.arange(40), seed, epoch)
        same = [len(a) == len(b) and (a == b).all() for a, b in zip(whole, other, strict=True)]
        assert sum(same) < 10
    assert len({tuple(sequence) for sequence in whole}) > 20  # samples differ from each other


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="mask_ratio is 1.5"):
        AugmentedView(0, mask_ratio=1.5)
    with pytest.raises(ValueError, match="number is 2"):
        AugmentedView(2)
