"""Vectors in blocks of bounded size: checked, given the code of their nearest centroid, and averaged by code.

Shapes: I items, K codes, D numbers of a vector, B items of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array


BLOCK_NUMBERS = 2**23  # of a block of vectors, or of its distances: 32 MiB
ROUNDING = 4e-6  # of a float32 dot product, relative to the squared lengths


def blocks(num_items: int, width: int) -> Iterator[slice]:
    """Slices of rows whose arrays of `width` columns have a bounded size."""
    size = max(1, BLOCK_NUMBERS // width)
    return (slice(start, min(start + size, num_items)) for start in range(0, num_items, size))


def check_embeddings(embeddings_ID: np.ndarray, dimension: int | None = None) -> int:
    """
    Whether embeddings are a table of finite float32 numbers.

    Args:
        embeddings_ID (`np.ndarray`): embeddings of shape `[I, D]`; may be memory-mapped.
        dimension (`int`, *optional*): the D that is expected.

    Returns:
        `int`: items.

    Raises:
        ValueError: other than two axes, another D, or an embedding whose squared length is not finite.
    """
    if embeddings_ID.ndim != 2 or embeddings_ID.shape[1] < 1:
        raise ValueError(f"embeddings of shape {embeddings_ID.shape}; pass one row per item, [items, D]")
    num_items, found = embeddings_ID.shape
    if dimension is not None and found != dimension:
        raise ValueError(
            f"embeddings have {found} numbers, but the codebooks {dimension}; embed with the model that the codebooks "
            "were fitted on, or fit new ones"
        )
    for rows in blocks(num_items, found):
        block_BD = np.asarray(embeddings_ID[rows], dtype=np.float32)
        wrong_B = ~np.isfinite(np.einsum("bd,bd->b", block_BD, block_BD))
        if wrong_B.any():
            raise ValueError(
                f"the embedding of row {rows.start + wrong_B.argmax()} holds NaN, infinity or numbers too large to be "
                "squared; embed this item again"
            )
    return num_items


def nearest_codes(read: Callable[[slice], np.ndarray], num_items: int, centroids_KD: np.ndarray) -> np.ndarray:
    """
    Code of the nearest centroid of each vector; the lowest of those that are equally near but for rounding.

    Args:
        read (`Callable`): float32 vectors `[B, D]` of a slice of the items.
        num_items (`int`): items, I.
        centroids_KD (`np.ndarray`): centroids of shape `[K, D]`.

    Returns:
        `np.ndarray`: int32 of shape `[I]`.
    """
    codes_I = np.empty(num_items, dtype=np.int32)
    half_K = np.einsum("kd,kd->k", centroids_KD, centroids_KD) / 2
    for rows in blocks(num_items, max(centroids_KD.shape)):
        vectors_BD = read(rows)
        nearness_BK = vectors_BD @ centroids_KD.T - half_K
        best_B = nearness_BK.argmax(1)
        lengths_B = np.einsum("bd,bd->b", vectors_BD, vectors_BD) + 2 * half_K[best_B]
        least_B = nearness_BK[np.arange(len(best_B)), best_B] - ROUNDING * lengths_B
        codes_I[rows] = (nearness_BK >= least_B[:, None]).argmax(1)
    return codes_I


def code_means(read: Callable[[slice], np.ndarray], codes_I: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """
    Mean of each code's vectors; the old centroid where there is none.

    Args:
        read (`Callable`): float32 vectors `[B, D]` of a slice of the items.
        codes_I (`np.ndarray`): codes of all items, of shape `[I]`.
        centroids_KD (`np.ndarray`): centroids of shape `[K, D]`.

    Returns:
        `np.ndarray`: float32 centroids of shape `[K, D]`.
    """
    num_codes, dimension = centroids_KD.shape
    sums_KD, counts_K = np.zeros(centroids_KD.shape), np.bincount(codes_I, minlength=num_codes)
    for rows in blocks(len(codes_I), dimension):
        codes_B = codes_I[rows]
        members_BK = csr_array(
            (np.ones(len(codes_B)), codes_B, np.arange(len(codes_B) + 1)), shape=(len(codes_B), num_codes)
        )
        sums_KD += members_BK.T @ read(rows)
    means_KD = (sums_KD / np.maximum(counts_K, 1)[:, None]).astype(np.float32)
    return np.where(counts_K[:, None] > 0, means_KD, centroids_KD)


__all__ = ["blocks", "check_embeddings", "code_means", "nearest_codes"]
