"""What a table of codes is like: collisions, use of the codebooks, sizes of prefixes, reconstruction.

Shapes: I items, L levels, K codes of a level, D dimensions of an embedding.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


BLOCK_ROWS = 8192  # embeddings read at once: 12 MB of 384 dimensions


@dataclass(frozen=True)
class Collisions:
    """
    Items that share their whole code with another.

    Args:
        num_items (`int`): of the catalog, I.
        num_colliding (`int`): that share their code.
        rate (`float`): the same as a share of the items.
        num_codes (`int`): different ones in use.
        biggest (`int`): items of the most frequent code.
    """

    num_items: int
    num_colliding: int
    rate: float
    num_codes: int
    biggest: int


@dataclass(frozen=True)
class LevelUse:
    """
    How a level uses its codebook.

    Args:
        name (`str`): its letter.
        size (`int`): codes of the codebook, K.
        reachable (`int`): codes that could be in use, `min(K, I)`.
        used (`int`): codes that are.
        entropy (`float`): in bits.
        max_entropy (`float`): of codes that are all used alike, `log2(reachable)`.
        perplexity (`float`): as many codes, all used alike, would have this entropy.
        counts (`tuple[int, ...]`): items of every code that is in use, most first.
    """

    name: str
    size: int
    reachable: int
    used: int
    entropy: float
    max_entropy: float
    perplexity: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class PrefixSizes:
    """
    How the first codes part the catalog.

    Args:
        length (`int`): codes of the prefix.
        num_prefixes (`int`): different ones in use.
        biggest (`int`): items of the biggest.
        num_prefixes_by_size (`dict[int, int]`): prefixes by number of items, biggest first.
    """

    length: int
    num_prefixes: int
    biggest: int
    num_prefixes_by_size: dict[int, int]


@dataclass(frozen=True)
class BigPrefix:
    """A prefix (`tokens`) with its `num_items`, their `share` of the catalog, and some of their `titles`."""

    tokens: tuple[str, ...]
    num_items: int
    share: float
    titles: tuple[str, ...]


@dataclass(frozen=True)
class ReconstructionError:
    r"""
    What the first codes leave of the embeddings.

    Args:
        length (`int`): codes that are added up, $l$.
        mean_squared (`float`): $\frac{1}{I} \sum_i \lVert x_i - \hat x_i^{(l)} \rVert^2$.
        relative (`float`): the same over the variance $\frac{1}{I} \sum_i \lVert x_i - \bar x \rVert^2$.
    """

    length: int
    mean_squared: float
    relative: float


def level_name(level: int) -> str:
    """
    The letter of a level, as in the tokens of published codes.

    Example:
        >>> level_name(0), level_name(3)
        ('a', 'd')
    """
    return string.ascii_lowercase[level]


def prefix_groups(codes_IL: np.ndarray) -> list[np.ndarray]:
    """
    Numbers the items' prefixes.

    Args:
        codes_IL (`np.ndarray` of `int`, shape `[I, L]`): from 0 in every level.

    Returns:
        `list[np.ndarray]`: for prefixes of 0, 1, ..., L codes the group of every item, `[I]`, from 0 in the order of
        the codes; all items are in one group of length 0.

    Example:
        >>> [groups.tolist() for groups in prefix_groups(np.array([[4, 1], [2, 1], [4, 0], [4, 1]]))]
        [[0, 0, 0, 0], [1, 0, 1, 1], [2, 0, 1, 2]]
    """
    groups = [np.zeros(len(codes_IL), dtype=np.int64)]
    for codes_I in codes_IL.T.astype(np.int64):
        keys_I = groups[-1] * (codes_I.max() + 1) + codes_I
        groups.append(np.unique(keys_I, return_inverse=True)[1])
    return groups


def measure_collisions(groups_I: np.ndarray) -> Collisions:
    """
    Args:
        groups_I (`np.ndarray`, shape `[I]`): the items' whole codes, numbered from 0 ([`prefix_groups`]).

    Example:
        >>> measure_collisions(np.array([0, 1, 1, 1]))
        Collisions(num_items=4, num_colliding=3, rate=0.75, num_codes=2, biggest=3)
    """
    sizes = np.bincount(groups_I)
    num_items, num_colliding = len(groups_I), int(sizes[sizes > 1].sum())
    return Collisions(num_items, num_colliding, num_colliding / num_items, len(sizes), int(sizes.max()))


def measure_level_use(codes_I: np.ndarray, size: int, name: str) -> LevelUse:
    r"""
    $H = -\sum_k p_k \log_2 p_k$, where $p_k$ is the share of the items with code $k$.

    Args:
        codes_I (`np.ndarray` of `int`, shape `[I]`): of one level.
        size (`int`): of its codebook, K.
        name (`str`): its letter.

    Example:
        >>> use = measure_level_use(np.array([0, 0, 5, 5]), size=8, name="a")
        >>> use.used, use.entropy, use.max_entropy, use.perplexity
        (2, 1.0, 2.0, 2.0)
    """
    counts = np.bincount(codes_I)
    counts = np.sort(counts[counts > 0])[::-1]
    shares = counts / len(codes_I)
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    reachable = min(size, len(codes_I))
    maximum, counts = float(np.log2(reachable)), tuple(map(int, counts))
    return LevelUse(name, size, reachable, len(counts), entropy, maximum, 2.0**entropy, counts)


def measure_prefix_sizes(groups_I: np.ndarray, length: int) -> PrefixSizes:
    """
    Args:
        groups_I (`np.ndarray`, shape `[I]`): the items' prefixes, numbered from 0.
        length (`int`): of the prefixes.

    Example:
        >>> measure_prefix_sizes(np.array([0, 1, 1, 2]), 1).num_prefixes_by_size
        {2: 1, 1: 2}
    """
    sizes = np.bincount(groups_I)
    values, numbers = np.unique(sizes, return_counts=True)
    by_size = {int(size): int(number) for size, number in zip(values[::-1], numbers[::-1], strict=True)}
    return PrefixSizes(length, len(sizes), int(sizes.max()), by_size)


def biggest_prefixes(
    groups_I: np.ndarray,
    tokens_of: Callable[[int], Sequence[str]],
    titles: pl.Series | None,
    num_prefixes: int = 10,
    num_titles: int = 3,
) -> tuple[BigPrefix, ...]:
    """
    The prefixes of most items; of those that a single item has, none.

    Args:
        groups_I (`np.ndarray`, shape `[I]`): the items' prefixes, numbered from 0.
        tokens_of (`Callable[[int], Sequence[str]]`): the prefix of an item's row.
        titles (`pl.Series` of `str`, *optional*): of all items.
        num_prefixes (`int`, *optional*, defaults to 10): to list, the biggest first.
        num_titles (`int`, *optional*, defaults to 3): examples of each, different ones, in the order of the catalog.
    """
    sizes = np.bincount(groups_I)
    prefixes = []
    for group in np.argsort(-sizes, kind="stable")[:num_prefixes]:
        if sizes[group] == 1:
            break
        rows = np.flatnonzero(groups_I == group)
        examples = _different(titles[rows], num_titles) if titles is not None else ()
        tokens = tuple(tokens_of(int(rows[0])))
        prefixes.append(BigPrefix(tokens, len(rows), len(rows) / len(groups_I), examples))
    return tuple(prefixes)


def reconstruction_errors(
    codes_IL: np.ndarray, embeddings_ID: np.ndarray, codebooks_LKD: np.ndarray
) -> list[ReconstructionError]:
    """
    The error after each level, in one pass over blocks of the embeddings (and one for their mean).

    Args:
        codes_IL (`np.ndarray` of `int`, shape `[I, L]`): an extra level behind those of the codebooks is left out.
        embeddings_ID (`np.ndarray`, shape `[I, D]`): may be memory-mapped.
        codebooks_LKD (`np.ndarray`, shape `[L, K, D]`): of residual quantization.

    Raises:
        `ValueError`: other shapes, or numbers that are not finite.

    Example:
        >>> x, codebooks = np.array([[1.0], [3.0]]), np.array([[[2.0]], [[0.5]]])
        >>> [error.mean_squared for error in reconstruction_errors(np.zeros((2, 2), int), x, codebooks)]
        [1.0, 1.25]
    """
    L, _, D = codebooks_LKD.shape
    if len(embeddings_ID) != len(codes_IL) or embeddings_ID.shape[1:] != (D,) or codes_IL.shape[1] < L:
        raise ValueError(
            f"reconstruction_errors: embeddings {embeddings_ID.shape} and codes {codes_IL.shape} do not fit codebooks "
            f"{codebooks_LKD.shape}; pass those that the codes were made of, in the same order"
        )
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(codes_IL), BLOCK_ROWS)]
    mean_D = sum(embeddings_ID[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(codes_IL)
    variance, squares_L = 0.0, np.zeros(L)
    for block in blocks:
        residual_BD = embeddings_ID[block].astype(np.float64)
        variance += ((residual_BD - mean_D) ** 2).sum()
        for level in range(L):
            residual_BD -= codebooks_LKD[level, codes_IL[block, level]]
            squares_L[level] += (residual_BD**2).sum()
    if not np.isfinite(variance) or not np.isfinite(squares_L).all():
        raise ValueError("reconstruction_errors: embeddings or codebooks hold NaN or infinite numbers; embed again")
    means_L, variance = squares_L / len(codes_IL), variance / len(codes_IL)
    relative_L = means_L / variance if variance > 0 else np.full(L, np.nan)
    return [ReconstructionError(level + 1, float(means_L[level]), float(relative_L[level])) for level in range(L)]


def _different(titles: pl.Series, number: int) -> tuple[str, ...]:
    """The first titles that are not empty and not the same."""
    return tuple(titles.filter(titles != "").unique(maintain_order=True).head(number))


__all__ = [
    "BigPrefix",
    "Collisions",
    "LevelUse",
    "PrefixSizes",
    "ReconstructionError",
    "biggest_prefixes",
    "level_name",
    "measure_collisions",
    "measure_level_use",
    "measure_prefix_sizes",
    "prefix_groups",
    "reconstruction_errors",
]
