"""Residual k-means: every level's codebook is a k-means of what the levels before left over.

With `r_0 = x` and centroids `C_l` of level `l`:

    code_l = argmin_k |r_l - C_l[k]|^2,    r_{l+1} = r_l - C_l[code_l],    x ~ sum_l C_l[code_l]

Shapes: I items, L levels, K codes of a level, D numbers of an embedding, B items of a block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .balanced_assignment import balanced_codes
from .vector_blocks import blocks, check_embeddings, code_means, nearest_codes


logger = logging.getLogger(__name__)

BALANCED_ITERATIONS = 4  # after those of k-means
SEED_STEP = 1_000_003  # between the seeds of two levels


@dataclass(frozen=True, eq=False)
class ResidualKMeans:
    """
    Codebooks that write an embedding as a sum of one centroid per level.

    Codes are the same for the same embeddings, seed and machine. Distances that differ by less than rounding count as
    equal, and the lowest code wins, so equal embeddings get equal codes in every block.

    Args:
        codebooks_LKD (`np.ndarray`): float32 centroids, of shape `[L, K, D]`.
        codes_IL (`np.ndarray`, *optional*):
            int32 codes of the items it was fitted on, of shape `[I, L]`. After a balanced fit they are not what
            `encode` gives. None where the codebooks were loaded.

    Raises:
        ValueError: `codebooks_LKD` has not three axes, or holds NaN or infinity.

    Example:
        >>> embeddings = np.array([[0.0, 0.0], [0.0, 1.0], [8.0, 0.0], [8.0, 1.0]], dtype=np.float32)
        >>> quantizer = ResidualKMeans.fit(embeddings, num_levels=2, codebook_size=2)
        >>> codes = quantizer.encode(embeddings)
        >>> bool((quantizer.reconstruct(codes) == embeddings).all()), len(np.unique(codes, axis=0))
        (True, 4)
    """

    codebooks_LKD: np.ndarray
    codes_IL: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.codebooks_LKD.ndim != 3:
            raise ValueError(
                f"ResidualKMeans: codebooks of shape {self.codebooks_LKD.shape}; pass one array [levels, codes, D]"
            )
        if not np.isfinite(self.codebooks_LKD).all():
            raise ValueError("ResidualKMeans: the codebooks hold NaN or infinity; fit them again")
        object.__setattr__(self, "codebooks_LKD", np.ascontiguousarray(self.codebooks_LKD, dtype=np.float32))

    @property
    def num_levels(self) -> int:
        """`int`: levels, L."""
        return self.codebooks_LKD.shape[0]

    @property
    def codebook_size(self) -> int:
        """`int`: codes of a level, K."""
        return self.codebooks_LKD.shape[1]

    @property
    def dimension(self) -> int:
        """`int`: numbers of an embedding, D."""
        return self.codebooks_LKD.shape[2]

    @classmethod
    def fit(
        cls,
        embeddings_ID: np.ndarray,
        num_levels: int = 4,
        codebook_size: int = 256,
        *,
        balanced: bool = False,
        seed: int = 0,
        num_iterations: int = 20,
        max_training_items: int = 262_144,
    ) -> ResidualKMeans:
        """
        Fits the codebooks, level by level. The embeddings are read in blocks and not changed.

        A level is a k-means of faiss on all items, or on a random sample, from first centroids far apart (AFK-MC2, an
        approximate k-means++). After it each centroid moves once more, to the mean of all items that have its code.

        Args:
            embeddings_ID (`np.ndarray`): embeddings of shape `[I, D]`; may be memory-mapped.
            num_levels (`int`, *optional*, defaults to 4): codes of an item.
            codebook_size (`int`, *optional*, defaults to 256): codes of a level.
            balanced (`bool`, *optional*, defaults to `False`):
                Whether each code of a level is given to at most `ceil(I / K)` items. Holds for `codes_IL`; `encode`
                takes the nearest centroid all the same, as new items come one by one.
            seed (`int`, *optional*, defaults to 0): of the sample and of the first centroids.
            num_iterations (`int`, *optional*, defaults to 20): iterations of k-means.
            max_training_items (`int`, *optional*, defaults to 262144): items that k-means sees; it runs in memory.

        Returns:
            `ResidualKMeans`: with the items' codes in `codes_IL`.

        Raises:
            ValueError: no level, fewer items than codes, or an embedding that is not finite.
            ImportError: faiss is not installed.
        """
        if num_levels < 1 or codebook_size < 1 or num_iterations < 1:
            raise ValueError(
                f"ResidualKMeans: num_levels {num_levels}, codebook_size {codebook_size}, num_iterations "
                f"{num_iterations}; pass 1 or more of each"
            )
        num_items = check_embeddings(embeddings_ID)
        if min(num_items, max_training_items) < codebook_size:
            raise ValueError(
                f"ResidualKMeans: {num_items} items, max_training_items {max_training_items}, but {codebook_size} "
                f"codes of a level; pass codebook_size <= {min(num_items, max_training_items)}"
            )
        codebooks_LKD = np.zeros((num_levels, codebook_size, embeddings_ID.shape[1]), dtype=np.float32)
        codes_IL = np.zeros((num_items, num_levels), dtype=np.int32)
        for level in range(num_levels):
            read = _Residuals(embeddings_ID, codebooks_LKD[:level], codes_IL[:, :level])
            rows_S = _sample(num_items, max_training_items, seed + level * SEED_STEP)
            vectors_SD = read(rows_S)
            centroids_KD = _kmeans(vectors_SD, codebook_size, num_iterations, seed + level * SEED_STEP)
            assign = nearest_codes
            if balanced:
                centroids_KD, prices_K = _balance(vectors_SD, centroids_KD)
                assign = partial(_balanced_codes, prices_K=prices_K)
            centroids_KD = code_means(read, assign(read, num_items, centroids_KD), centroids_KD)
            codebooks_LKD[level], codes_IL[:, level] = centroids_KD, assign(read, num_items, centroids_KD)
            _report_used(level, codes_IL[:, level], codebook_size)
        return cls(codebooks_LKD, codes_IL)

    def encode(self, embeddings_ID: np.ndarray) -> np.ndarray:
        """
        Codes of the nearest centroids.

        Args:
            embeddings_ID (`np.ndarray`): embeddings of shape `[I, D]`; may be memory-mapped.

        Returns:
            `np.ndarray`: int32 codes of shape `[I, L]`.

        Raises:
            ValueError: another D than the codebooks', or an embedding that is not finite.
        """
        num_items = check_embeddings(embeddings_ID, self.dimension)
        codes_IL = np.zeros((num_items, self.num_levels), dtype=np.int32)
        for level, centroids_KD in enumerate(self.codebooks_LKD):
            read = _Residuals(embeddings_ID, self.codebooks_LKD[:level], codes_IL[:, :level])
            codes_IL[:, level] = nearest_codes(read, num_items, centroids_KD)
        return codes_IL

    def reconstruct(self, codes_IL: np.ndarray) -> np.ndarray:
        """
        Sums of the codes' centroids.

        Args:
            codes_IL (`np.ndarray`): codes of shape `[I, L]`, or of the first levels alone.

        Returns:
            `np.ndarray`: float32 of shape `[I, D]`.

        Raises:
            ValueError: more levels than codebooks, or a code outside its codebook.
        """
        self.check_codes(codes_IL)
        total_ID = np.zeros((len(codes_IL), self.dimension), dtype=np.float32)
        for codebook_KD, codes_I in zip(self.codebooks_LKD, codes_IL.T, strict=False):
            total_ID += codebook_KD[codes_I]
        return total_ID

    def reconstruction_errors(self, embeddings_ID: np.ndarray, codes_IL: np.ndarray) -> np.ndarray:
        """
        Mean squared distance between the embeddings and their reconstruction from the first 1, 2, ... L levels.

        Args:
            embeddings_ID (`np.ndarray`): embeddings of shape `[I, D]`; may be memory-mapped.
            codes_IL (`np.ndarray`): their codes, of shape `[I, L]`, or of the first levels alone.

        Returns:
            `np.ndarray`: float64 of shape `[L]`, in squared units of the embeddings.

        Raises:
            ValueError: shapes that do not fit, or a code outside its codebook.
        """
        num_items = check_embeddings(embeddings_ID, self.dimension)
        self.check_codes(codes_IL, num_items)
        errors_L = np.zeros(codes_IL.shape[1])
        for rows in blocks(num_items, self.dimension):
            rest_BD = np.array(embeddings_ID[rows], dtype=np.float32)
            for level, codes_B in enumerate(codes_IL[rows].T):
                rest_BD -= self.codebooks_LKD[level, codes_B]
                errors_L[level] += np.square(rest_BD, dtype=np.float64).sum()
        return errors_L / num_items

    def check_codes(self, codes_IL: np.ndarray, num_items: int | None = None) -> None:
        """
        Whether codes can be those of this quantizer.

        Args:
            codes_IL (`np.ndarray`): codes of shape `[I, L]`, or of the first levels alone.
            num_items (`int`, *optional*): the I that is expected.

        Raises:
            ValueError: another number of items, more levels than codebooks, or a code outside its codebook.
        """
        if codes_IL.ndim != 2 or codes_IL.shape[1] > self.num_levels:
            raise ValueError(
                f"ResidualKMeans: codes of shape {codes_IL.shape} for {self.num_levels} codebooks; pass codes[:, :"
                f"{self.num_levels}], the extra level has no codebook"
            )
        if num_items is not None and len(codes_IL) != num_items:
            raise ValueError(f"ResidualKMeans: {len(codes_IL)} rows of codes for {num_items} embeddings")
        wrong = np.argwhere((codes_IL < 0) | (codes_IL >= self.codebook_size))
        if len(wrong):
            row, level = wrong[0]
            raise ValueError(
                f"ResidualKMeans: code {codes_IL[row, level]} (item {row}, level {level}) outside a codebook of "
                f"{self.codebook_size}; these codes are of another quantizer"
            )


class _Residuals:
    """Rows of the embeddings, less the centroids of the levels before: float32 and always summed in the same order."""

    def __init__(self, embeddings_ID: np.ndarray, codebooks_LKD: np.ndarray, codes_IL: np.ndarray) -> None:
        self.embeddings_ID, self.codebooks_LKD, self.codes_IL = embeddings_ID, codebooks_LKD, codes_IL

    def __call__(self, rows: slice | np.ndarray) -> np.ndarray:
        rest_BD = np.array(self.embeddings_ID[rows], dtype=np.float32, order="C")
        for codebook_KD, codes_B in zip(self.codebooks_LKD, self.codes_IL[rows].T, strict=True):
            rest_BD -= codebook_KD[codes_B]
        return rest_BD


def _sample(num_items: int, most: int, seed: int) -> slice | np.ndarray:
    if num_items <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(num_items, most, replace=False))


def _kmeans(vectors_SD: np.ndarray, num_codes: int, num_iterations: int, seed: int) -> np.ndarray:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('k-means needs faiss: pip install "hf_latentrec[semantic-ids]"') from error
    kmeans = faiss.Kmeans(
        vectors_SD.shape[1],
        num_codes,
        niter=num_iterations,
        seed=seed % 2**31,
        init_method=faiss.ClusteringInitMethod_AFK_MC2,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors_SD),
    )
    kmeans.train(vectors_SD)
    return kmeans.centroids


def _balance(vectors_SD: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some more iterations of k-means, with balanced codes; also their prices."""
    read, prices_K = vectors_SD.__getitem__, None
    for _ in range(BALANCED_ITERATIONS):
        codes_S, prices_K = balanced_codes(read, len(vectors_SD), centroids_KD, prices_K)
        centroids_KD = code_means(read, codes_S, centroids_KD)
    return centroids_KD, prices_K


def _balanced_codes(read: Callable, num_items: int, centroids_KD: np.ndarray, prices_K: np.ndarray) -> np.ndarray:
    return balanced_codes(read, num_items, centroids_KD, prices_K)[0]


def _report_used(level: int, codes_I: np.ndarray, num_codes: int) -> None:
    used = len(np.unique(codes_I))
    if used < num_codes:
        logger.warning(
            f"residual k-means: the codebook of level {level} collapsed, {num_codes - used} of its {num_codes} codes "
            "have no item; are many embeddings equal? A smaller codebook would do"
        )


__all__ = ["ResidualKMeans"]
