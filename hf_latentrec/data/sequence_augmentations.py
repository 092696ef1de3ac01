"""CL4SRec's three ways to disturb a history (Xie et al. 2022, section 3.2), for contrastive views.

Every way takes its random numbers as an argument. Shapes: G sequences, N items of all sequences together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .sequences import SequenceDataset, random_bits


class FlatSequences(NamedTuple):
    """
    Several sequences, end to end.

    Args:
        values (`np.ndarray` of shape `[N]`): item rows + 1, oldest first.
        lengths (`np.ndarray` of shape `[G]`): of the sequences.
    """

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray]) -> FlatSequences:
        """Joins sequences."""
        return cls(np.concatenate(sequences), np.array([len(sequence) for sequence in sequences]))

    def split(self) -> list[np.ndarray]:
        """The sequences, one by one."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1])

    @property
    def row(self) -> np.ndarray:
        """Which sequence each item is of, [N]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def slot(self) -> np.ndarray:
        """Where in its sequence each item stands, [N]."""
        return np.arange(len(self.values)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)


def crop(sequences: FlatSequences, ratio: float, draws: np.ndarray) -> FlatSequences:
    """
    A contiguous part of each sequence, Eq. 4.

    Args:
        sequences ([`FlatSequences`]): none of them empty.
        ratio (`float`): share that is kept, in [0, 1]; rounded down, one item at least.
        draws (`np.ndarray` of shape `[G]`): numbers in [0, 1) that say where it starts.

    Returns:
        [`FlatSequences`].

    Example:

    ```python
    >>> import numpy as np
    >>> sequences = FlatSequences.of([np.array([7, 8, 9, 10]), np.array([5])])
    >>> [part.tolist() for part in crop(sequences, 0.5, draws=np.array([0.4, 0.9])).split()]
    [[8, 9], [5]]

    ```
    """
    sizes = np.maximum(1, _shares(sequences, ratio))
    return FlatSequences(sequences.values[_part(sequences, sizes, draws)], sizes)


def mask(sequences: FlatSequences, ratio: float, draws: np.ndarray) -> FlatSequences:
    """
    The sequences with some items hidden, Eq. 5. A hidden item is 0, as padding is, and keeps its position; but at the
    end of an unpacked row, where nothing tells it from padding.

    Args:
        sequences ([`FlatSequences`]): none of them empty.
        ratio (`float`): share that is hidden, in [0, 1]; rounded down.
        draws (`np.ndarray` of shape `[N]`): numbers; of each sequence the items with the lowest are hidden.

    Returns:
        [`FlatSequences`].

    Example:

    ```python
    >>> import numpy as np
    >>> sequences = FlatSequences.of([np.array([7, 8, 9, 10]), np.array([5])])
    >>> [view.tolist() for view in mask(sequences, 0.5, draws=np.array([0.1, 0.8, 0.6, 0.3, 0.2])).split()]
    [[0, 8, 9, 0], [5]]

    ```
    """
    hidden = np.lexsort((draws, sequences.row))[sequences.slot < _shares(sequences, ratio)[sequences.row]]
    values = sequences.values.copy()
    values[hidden] = 0
    return FlatSequences(values, sequences.lengths)


def reorder(sequences: FlatSequences, ratio: float, draws: np.ndarray, order_draws: np.ndarray) -> FlatSequences:
    """
    The sequences with a contiguous part shuffled, Eq. 6.

    Args:
        sequences ([`FlatSequences`]): none of them empty.
        ratio (`float`): length of the part as a share of the sequence, in [0, 1]; rounded down.
        draws (`np.ndarray` of shape `[G]`): numbers in [0, 1) that say where it starts.
        order_draws (`np.ndarray` of shape `[N]`): numbers; the part is sorted by them.

    Returns:
        [`FlatSequences`].

    Example:

    ```python
    >>> import numpy as np
    >>> sequences = FlatSequences.of([np.array([7, 8, 9, 10])])
    >>> reorder(sequences, 0.5, draws=np.array([0.9]), order_draws=np.array([0.1, 0.8, 0.6, 0.3])).values.tolist()
    [7, 8, 10, 9]

    ```
    """
    inside = _part(sequences, _shares(sequences, ratio), draws)
    values = sequences.values.copy()
    values[inside] = values[inside][np.lexsort((order_draws[inside], sequences.row[inside]))]
    return FlatSequences(values, sequences.lengths)


def _shares(sequences: FlatSequences, ratio: float) -> np.ndarray:
    return (ratio * sequences.lengths).astype(np.int64)


def _part(sequences: FlatSequences, sizes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whether each item [N] is in the contiguous part of that size whose start is drawn."""
    start = (draws * (sequences.lengths - sizes + 1)).astype(np.int64)
    slot, row = sequences.slot, sequences.row
    return (slot >= start[row]) & (slot < (start + sizes)[row])


_NUM_WAYS = 3
_PAIRS = np.array([(a, b) for a in range(_NUM_WAYS) for b in range(_NUM_WAYS) if a != b])


class AugmentedView:
    """
    One of the two views that CL4SRec compares: every history is cropped, masked or reordered, and its other view by
    another of the three. A view for [`SequenceCollator`].

    What is drawn depends on the sample, the seed and the epoch alone, so that a run draws the same on any number of
    processes and after a restart. Of an unpacked history the newest item is masked last of all, since its row would
    end before it.

    Args:
        number (`int`): 0 or 1, which of the two.
        crop_ratio (`float`, *optional*, defaults to 0.6): of [`crop`].
        mask_ratio (`float`, *optional*, defaults to 0.3): of [`mask`].
        reorder_ratio (`float`, *optional*, defaults to 0.6): of [`reorder`].

    Raises:
        `ValueError`: The number is neither 0 nor 1, or a ratio is not in [0, 1].
    """

    def __init__(self, number: int, *, crop_ratio: float = 0.6, mask_ratio: float = 0.3, reorder_ratio: float = 0.6):
        if number not in (0, 1):
            raise ValueError(f"AugmentedView: number is {number}; there are two views, pass 0 or 1")
        for name, ratio in (("crop", crop_ratio), ("mask", mask_ratio), ("reorder", reorder_ratio)):
            if not 0 <= ratio <= 1:
                raise ValueError(f"AugmentedView: {name}_ratio is {ratio}; pass a value in [0, 1]")
        self.number = number
        self.crop_ratio, self.mask_ratio, self.reorder_ratio = crop_ratio, mask_ratio, reorder_ratio

    def __call__(self, dataset: SequenceDataset, samples: np.ndarray, seed: int, epoch: int) -> list[np.ndarray]:
        """The view of each sample [G] of a data set."""
        samples = np.asarray(samples)
        sequences = [dataset.prefix(sample) for sample in samples]
        # of every sample's numbers, the first four million are its own: a quarter per view, one to choose the ways
        draw = _Draws(samples * 2**22 + self.number * 2**20, seed, epoch)
        pair = random_bits(samples * 2**22 + 2**21, seed, epoch) % np.uint64(len(_PAIRS))
        ways = _PAIRS[pair.astype(np.int64), self.number]
        views: list[np.ndarray] = [None] * len(samples)
        hide = self._mask if dataset.packed else self._mask_older
        for way, augment in enumerate((self._crop, hide, self._reorder)):
            chosen = np.flatnonzero(ways == way)
            if len(chosen):
                flat = FlatSequences.of([sequences[row] for row in chosen])
                for row, view in zip(chosen, augment(flat, draw.of(chosen)).split(), strict=True):
                    views[row] = view
        return views

    def _crop(self, sequences: FlatSequences, draw: _Draws) -> FlatSequences:
        return crop(sequences, self.crop_ratio, draw.per_sequence())

    def _mask(self, sequences: FlatSequences, draw: _Draws) -> FlatSequences:
        return mask(sequences, self.mask_ratio, draw.per_item(sequences))

    def _mask_older(self, sequences: FlatSequences, draw: _Draws) -> FlatSequences:
        draws = draw.per_item(sequences)
        draws[np.cumsum(sequences.lengths) - 1] = 1.0  # above all others
        return mask(sequences, self.mask_ratio, draws)

    def _reorder(self, sequences: FlatSequences, draw: _Draws) -> FlatSequences:
        return reorder(sequences, self.reorder_ratio, draw.per_sequence(), draw.per_item(sequences))


class _Draws(NamedTuple):
    """Numbers in [0, 1) of sequences and of their items."""

    first: np.ndarray  # [G], of the numbers that are a sequence's own
    seed: int
    epoch: int

    def of(self, rows: np.ndarray) -> _Draws:
        return self._replace(first=self.first[rows])

    def per_sequence(self) -> np.ndarray:
        return self._uniform(self.first)

    def per_item(self, sequences: FlatSequences) -> np.ndarray:
        return self._uniform(self.first[sequences.row] + 1 + sequences.slot)

    def _uniform(self, numbers: np.ndarray) -> np.ndarray:
        return (random_bits(numbers, self.seed, self.epoch) >> np.uint64(11)) * 2.0**-53


__all__ = ["AugmentedView", "FlatSequences", "crop", "mask", "reorder"]
