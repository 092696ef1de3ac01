"""What lists of recommendations are like, whether or not they hold the target: coverage, concentration, novelty,
diversity.

Shapes: U users, K recommended items, I items, D features of an item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy import sparse

from .metrics import check_cutoff


BLOCK_ENTRIES = 4_000_000  # numbers that a block of users takes at once, 32 MB


def catalog_coverage(item_rows: ArrayLike, num_items: int, k: int) -> float:
    r"""
    Share of the catalog that is among anybody's first `k` recommendations.

    $$\text{coverage@}k = \frac{1}{I} \left|\bigcup_u L_u^k\right|$$

    Args:
        item_rows (`ArrayLike` of `int`, shape `[U, K]`):
            Catalog rows of each user's recommendations, best first; -1 where a user has fewer than K.
        num_items (`int`):
            Items of the catalog, I.
        k (`int`):
            Cutoff, from 1 to K.

    Returns:
        `float` in (0, 1].

    Raises:
        `ValueError`: no users, a user without recommendations, an item twice in a list, a row that is not of the
            catalog, or a cutoff beyond K.

    Example:
        >>> catalog_coverage([[0, 1], [0, 2]], num_items=6, k=2)
        0.5
    """
    return float((_times_recommended(item_rows, num_items, k) > 0).mean())


def gini(item_rows: ArrayLike, num_items: int, k: int) -> float:
    r"""
    Gini index of how often each item of the whole catalog is recommended: 0 where all are equally often, and
    $(I - 1) / I$ where all lists hold the same single item.

    $$\text{Gini@}k = \frac{\sum_{i=1}^{I} (2i - I - 1)\, n_{(i)}}{I \sum_i n_{(i)}}, \quad
    n_{(1)} \le \dots \le n_{(I)} \text{ recommendations}$$

    Args and errors are those of [`catalog_coverage`].

    Returns:
        `float` in [0, 1).

    Example:
        >>> gini([[0, 1], [2, 3]], num_items=4, k=2)
        0.0
        >>> gini([[0], [0]], num_items=4, k=1)
        0.75
    """
    times_I = np.sort(_times_recommended(item_rows, num_items, k))
    place_I = np.arange(1, num_items + 1)
    return float(((2 * place_I - num_items - 1) * times_I).sum() / (num_items * times_I.sum()))


def novelty(item_rows: ArrayLike, popularity: ArrayLike, k: int) -> float:
    r"""
    Mean self-information of the first `k` recommendations, in bits: the rarer the items, the higher.

    $$\text{novelty@}k = \frac{1}{U} \sum_u \frac{1}{|L_u^k|} \sum_{i \in L_u^k}
    -\log_2 \frac{\max(n_i, 1)}{\sum_j n_j}$$

    An item that nobody had in training counts as if one had, since its self-information would be infinite.

    Args:
        item_rows (`ArrayLike` of `int`, shape `[U, K]`):
            As for [`catalog_coverage`].
        popularity (`ArrayLike`, shape `[I]`):
            Training interactions of each item.
        k (`int`):
            Cutoff, from 1 to K.

    Returns:
        `float`: bits.

    Raises:
        `ValueError`: as [`catalog_coverage`], or no item has a training interaction.

    Example:
        >>> novelty([[0, 1]], popularity=[6, 2], k=2)  # -log2(6/8) = 0.415, -log2(2/8) = 2
        1.207...
    """
    popularity_I = np.asarray(popularity, dtype=np.float64)
    rows_UK = _check_rows(item_rows, len(popularity_I), k)
    if not popularity_I.any():
        raise ValueError(
            f"novelty: none of the {len(popularity_I)} items has a training interaction; pass how often each was "
            "interacted with"
        )
    bits_I = -np.log2(np.maximum(popularity_I, 1) / popularity_I.sum())
    recommended_UK = rows_UK >= 0
    bits_U = np.where(recommended_UK, bits_I[rows_UK], 0).sum(1)
    return float((bits_U / recommended_UK.sum(1)).mean())


def intra_list_diversity(item_rows: ArrayLike, item_vectors: np.ndarray | sparse.sparray, k: int) -> float:
    r"""
    Mean distance of two items of the same list, averaged over the users with two recommendations at least.

    $$\text{ILD@}k = \frac{1}{U} \sum_u \frac{2}{n_u (n_u - 1)} \sum_{i < j \in L_u^k} (1 - \cos(v_i, v_j)),
    \quad n_u = |L_u^k|$$

    The cosine with a vector of zeros counts as 0. All pairs come from one sum over the list, since the cosines of all
    ordered pairs of different items, with $\hat v$ of length 1, are $\|\sum_i \hat v_i\|^2 - \sum_i \|\hat v_i\|^2$.

    Args:
        item_rows (`ArrayLike` of `int`, shape `[U, K]`):
            As for [`catalog_coverage`].
        item_vectors (`np.ndarray` or sparse array of `scipy.sparse`, shape `[I, D]`):
            Features of each item, such as text embeddings or [`title_vectors`].
        k (`int`):
            Cutoff, from 2 to K.

    Returns:
        `float` in [0, 2], and in [0, 1] where no feature is negative.

    Raises:
        `ValueError`: as [`catalog_coverage`], vectors that are not finite numbers of shape `[I, D]`, or no user with
            two recommendations.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> intra_list_diversity([[0, 1], [0, 2]], vectors, k=2)  # the same direction, then a right angle
        0.5
    """
    vectors_ID, is_zero_I = _unit_vectors(item_vectors)
    rows_UK = _check_rows(item_rows, vectors_ID.shape[0], k)
    rows_UK = rows_UK[(rows_UK >= 0).sum(1) > 1]
    if len(rows_UK) == 0:
        raise ValueError(f"intra_list_diversity: no user has two recommendations or more at k={k}; raise k")
    total = 0.0
    for block_UK in _blocks(rows_UK, max(vectors_ID.shape[1], rows_UK.shape[1])):
        recommended_UK = block_UK >= 0
        n_U = recommended_UK.sum(1)
        offsets = np.concatenate([[0], n_U.cumsum()])
        ones = np.ones(offsets[-1])
        lists_UI = sparse.csr_array((ones, block_UK[recommended_UK], offsets), (len(block_UK), vectors_ID.shape[0]))
        sum_UD = lists_UI @ vectors_ID
        squared_U = np.asarray((sum_UD * sum_UD).sum(1)).ravel()
        own_U = n_U - (recommended_UK & is_zero_I[block_UK]).sum(1)
        total += float((1 - (squared_U - own_U) / (n_U * (n_U - 1))).sum())
    return total / len(rows_UK)


def metrics_of_lists(
    item_rows: ArrayLike,
    popularity: ArrayLike,
    ks: Sequence[int] = (5, 10, 20),
    item_vectors: np.ndarray | sparse.sparray | None = None,
) -> dict[str, float]:
    """
    All of the above at several cutoffs.

    Args:
        item_rows (`ArrayLike` of `int`, shape `[U, K]`):
            As for [`catalog_coverage`].
        popularity (`ArrayLike`, shape `[I]`):
            Training interactions of each item.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`):
            Cutoffs; those beyond K are left out.
        item_vectors (`np.ndarray` or sparse array, shape `[I, D]`, *optional*):
            As for [`intra_list_diversity`], which is left out without them.

    Returns:
        `dict[str, float]`: `coverage@k`, `gini@k`, `novelty@k` where any item has a training interaction, and
        `intra_list_diversity@k` where lists have pairs.

    Raises:
        `ValueError`: as [`catalog_coverage`].

    Example:
        >>> metrics_of_lists([[0, 1]], popularity=[6, 2], ks=(1,))
        {'coverage@1': 0.5, 'gini@1': 0.5, 'novelty@1': 0.415...}
    """
    rows_UK, popularity_I = np.asarray(item_rows), np.asarray(popularity)
    num_items, metrics = len(popularity_I), {}
    for k in [k for k in ks if k <= rows_UK.shape[1]]:
        metrics[f"coverage@{k}"] = catalog_coverage(rows_UK, num_items, k)
        metrics[f"gini@{k}"] = gini(rows_UK, num_items, k)
        if popularity_I.any():
            metrics[f"novelty@{k}"] = novelty(rows_UK, popularity_I, k)
        if item_vectors is not None and ((rows_UK[:, :k] >= 0).sum(1) > 1).any():
            metrics[f"intra_list_diversity@{k}"] = intra_list_diversity(rows_UK, item_vectors, k)
    return metrics


def title_vectors(titles: Sequence[str | None]) -> sparse.csr_array:
    """
    Bag of words of each title, weighted by how rare a word is, `log(I / items with the word)`.

    Args:
        titles (`Sequence[str | None]`, length I):
            An item without a title has no words, as has one with words that every title has.

    Returns:
        `scipy.sparse.csr_array` of shape `[I, words]`.

    Example:
        >>> title_vectors(["Green tea", "green soap", None]).toarray().round(2)
        array([[0.41, 0.  , 1.1 ],
               [0.41, 1.1 , 0.  ],
               [0.  , 0.  , 0.  ]])
    """
    frame = pl.DataFrame({"row": np.arange(len(titles)), "word": pl.Series(titles, dtype=pl.String)})
    words = pl.col("word").str.to_lowercase().str.extract_all(r"\w+").list.unique()
    frame = frame.with_columns(words).explode("word").drop_nulls()
    vocabulary, column = np.unique(frame["word"].to_numpy(), return_inverse=True)
    weight = np.log(len(titles) / np.bincount(column, minlength=len(vocabulary)))
    return sparse.csr_array((weight[column], (frame["row"].to_numpy(), column)), (len(titles), len(vocabulary)))


def _unit_vectors(item_vectors: np.ndarray | sparse.sparray) -> tuple[np.ndarray | sparse.csr_array, np.ndarray]:
    """Vectors of length 1, or of zeros, and which those are."""
    is_sparse = sparse.issparse(item_vectors)
    vectors_ID = sparse.csr_array(item_vectors) if is_sparse else np.asarray(item_vectors)
    if vectors_ID.ndim != 2:
        raise ValueError(
            f"intra_list_diversity: item_vectors are of shape {list(vectors_ID.shape)}; pass one vector per item, "
            "[I, D]"
        )
    vectors_ID = vectors_ID.astype(np.float64)
    norm_I = np.sqrt(np.asarray((vectors_ID * vectors_ID).sum(1)).ravel())
    if not np.isfinite(norm_I).all():
        row = int(np.argmin(np.isfinite(norm_I)))
        raise ValueError(
            f"intra_list_diversity: the vector of the item in row {row} holds NaN or infinity; embed it again"
        )
    scale_I = 1 / np.where(norm_I > 0, norm_I, 1)
    return sparse.diags_array(scale_I).tocsr() @ vectors_ID if is_sparse else vectors_ID * scale_I[
        :, None
    ], norm_I == 0


def _times_recommended(item_rows: ArrayLike, num_items: int, k: int) -> np.ndarray:
    """How many users each item is recommended to, shape [I]."""
    rows_UK = _check_rows(item_rows, num_items, k)
    return np.bincount(rows_UK[rows_UK >= 0], minlength=num_items)


def _check_rows(item_rows: ArrayLike, num_items: int, k: int) -> np.ndarray:
    """The first `k` columns, of users who all have a recommendation and none twice."""
    check_cutoff(k)
    rows_UK = np.asarray(item_rows)
    if rows_UK.ndim != 2 or len(rows_UK) == 0:
        raise ValueError(
            f"item_rows: expected the recommendations of one user at least, shape [U, K], found {list(rows_UK.shape)}"
        )
    if k > rows_UK.shape[1]:
        raise ValueError(
            f"item_rows: the cutoff {k} is beyond the {rows_UK.shape[1]} recommendations of a user; recommend more "
            "items, or lower the cutoff"
        )
    rows_UK = rows_UK[:, :k]
    if rows_UK.min() < -1 or rows_UK.max() >= num_items:
        wrong = rows_UK[(rows_UK < -1) | (rows_UK >= num_items)][0]
        raise ValueError(f"item_rows: {wrong} is not a row of the {num_items} items, nor -1 for no recommendation")
    empty_U = (rows_UK < 0).all(1)
    if empty_U.any():
        raise ValueError(
            f"item_rows: the user in row {int(np.argmax(empty_U))} has no recommendation ({int(empty_U.sum())} such "
            "rows); leave such users out, or recommend to them"
        )
    first = 0
    for block_UK in _blocks(rows_UK, k):
        sorted_UK = np.sort(block_UK, axis=1)
        twice_UK = (sorted_UK[:, 1:] == sorted_UK[:, :-1]) & (sorted_UK[:, 1:] >= 0)
        if twice_UK.any():
            user, place = np.argwhere(twice_UK)[0]
            raise ValueError(
                f"item_rows: the user in row {first + user} is recommended the item of row {sorted_UK[user, place]} "
                "twice; each item stands once in a list"
            )
        first += len(block_UK)
    return rows_UK


def _blocks(rows_UK: np.ndarray, entries_per_user: int) -> list[np.ndarray]:
    """Users in blocks, as views."""
    size = max(1, BLOCK_ENTRIES // max(1, entries_per_user))
    return [rows_UK[start : start + size] for start in range(0, len(rows_UK), size)]


__all__ = ["catalog_coverage", "gini", "intra_list_diversity", "metrics_of_lists", "novelty", "title_vectors"]
