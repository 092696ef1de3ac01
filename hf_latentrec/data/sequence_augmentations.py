"""CL4SRec's three ways to disturb a history (Xie et al. 2022, section 3.2), for contrastive views."""

from __future__ import annotations

import numpy as np


def crop(sequence: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """
    A random contiguous part, Eq. 4.

    Args:
        sequence (`np.ndarray` of shape `[n]`): item rows + 1, oldest first; not empty.
        ratio (`float`): share of the sequence that is kept, in [0, 1]; rounded down, one item at least.
        generator (`np.random.Generator`): draws where it starts.

    Returns:
        `np.ndarray`: the part.

    Example:

    ```python
    >>> import numpy as np
    >>> len(crop(np.arange(1, 11), 0.6, np.random.default_rng(0)))
    6

    ```
    """
    start, stop = _random_part(len(sequence), max(1, _share(sequence, ratio)), generator)
    return sequence[start:stop]


def mask(sequence: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """
    The sequence with random items hidden, Eq. 5. A hidden item is 0, as padding is; its position still counts.

    Args:
        sequence (`np.ndarray` of shape `[n]`): as in [`crop`].
        ratio (`float`): share that is hidden, in [0, 1]; rounded down.
        generator (`np.random.Generator`): draws which.

    Returns:
        `np.ndarray` of shape `[n]`.

    Example:

    ```python
    >>> import numpy as np
    >>> int((mask(np.arange(1, 11), 0.3, np.random.default_rng(0)) == 0).sum())
    3

    ```
    """
    hidden = generator.permutation(len(sequence))[: _share(sequence, ratio)]
    masked = sequence.copy()
    masked[hidden] = 0
    return masked


def reorder(sequence: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """
    The sequence with a random contiguous part shuffled, Eq. 6.

    Args:
        sequence (`np.ndarray` of shape `[n]`): as in [`crop`].
        ratio (`float`): length of the part as a share of the sequence, in [0, 1]; rounded down.
        generator (`np.random.Generator`): draws the part and its new order.

    Returns:
        `np.ndarray` of shape `[n]`.

    Example:

    ```python
    >>> import numpy as np
    >>> sorted(reorder(np.arange(1, 6), 0.6, np.random.default_rng(0)).tolist())
    [1, 2, 3, 4, 5]

    ```
    """
    start, stop = _random_part(len(sequence), _share(sequence, ratio), generator)
    reordered = sequence.copy()
    reordered[start:stop] = generator.permutation(sequence[start:stop])
    return reordered


def augmented_views(
    sequence: np.ndarray,
    generator: np.random.Generator,
    *,
    crop_ratio: float = 0.6,
    mask_ratio: float = 0.3,
    reorder_ratio: float = 0.6,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Two views of one history, each by another of the three ways, drawn at random.

    Args:
        sequence (`np.ndarray` of shape `[n]`): as in [`crop`].
        generator (`np.random.Generator`): draws everything.
        crop_ratio (`float`, *optional*, defaults to 0.6): of [`crop`].
        mask_ratio (`float`, *optional*, defaults to 0.3): of [`mask`].
        reorder_ratio (`float`, *optional*, defaults to 0.6): of [`reorder`].

    Returns:
        `tuple` of two `np.ndarray`.

    Raises:
        `ValueError`: The sequence is empty, or a ratio is not in [0, 1].

    Example:

    ```python
    >>> import numpy as np
    >>> first, second = augmented_views(np.arange(1, 11), np.random.default_rng(0))
    >>> set(first.tolist()) <= set(range(11))
    True

    ```
    """
    ways = ((crop, crop_ratio), (mask, mask_ratio), (reorder, reorder_ratio))
    for way, ratio in ways:
        if not 0 <= ratio <= 1:
            raise ValueError(f"augmented_views: {way.__name__}_ratio is {ratio}; pass a value in [0, 1]")
    if len(sequence) == 0:
        raise ValueError("augmented_views: the sequence is empty; pass at least one item")
    first, second = generator.permutation(len(ways))[:2]
    return tuple(way(sequence, ratio, generator) for way, ratio in (ways[first], ways[second]))


def _share(sequence: np.ndarray, ratio: float) -> int:
    return int(ratio * len(sequence))


def _random_part(length: int, size: int, generator: np.random.Generator) -> tuple[int, int]:
    start = int(generator.integers(length - size + 1))
    return start, start + size


__all__ = ["augmented_views", "crop", "mask", "reorder"]
