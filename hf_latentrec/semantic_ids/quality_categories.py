"""Whether items that share a prefix share a category.

Shapes: I items, P pairs of items, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse


BLOCK_PAIRS = 1 << 18
EVERYWHERE = 0.5  # a category that more than this share of the items have says nothing of a pair


@dataclass(frozen=True)
class CategoryAgreement:
    """
    How often two items that share a prefix share a category.

    Args:
        length (`int`): codes of the prefix; 0: any two items.
        num_pairs (`int`): of different items with this prefix in common and with categories.
        num_judged (`int`): of them; all, or a sample drawn with replacement.
        share (`float`): of the judged pairs, those with a category in common.
        standard_error (`float`): of `share` as an estimate over all pairs; 0 where all were judged.
    """

    length: int
    num_pairs: int
    num_judged: int
    share: float
    standard_error: float


@dataclass(frozen=True)
class CategoryQuality:
    """
    Args:
        column (`str`): that holds the categories.
        num_items (`int`): that have a category to judge by.
        num_categories (`int`): that were judged by.
        left_out (`tuple[str, ...]`): categories of more than half of the items, which are not judged by.
        agreements (`tuple[CategoryAgreement, ...]`): by length of the prefix, from 0.
    """

    column: str
    num_items: int
    num_categories: int
    left_out: tuple[str, ...]
    agreements: tuple[CategoryAgreement, ...]


def measure_categories(
    groups: Sequence[np.ndarray], categories: pl.Series, num_pairs: int = 1_000_000, seed: int = 0
) -> CategoryQuality:
    r"""
    Judges all pairs where a length has at most `num_pairs`, else a sample $n$ of them, drawn alike and with
    replacement; the standard error is $\sqrt{s (1 - s) / n}$.

    Args:
        groups (`Sequence[np.ndarray]`, each `[I]`): the items' prefixes of 0, 1, ... codes ([`prefix_groups`]).
        categories (`pl.Series` of `str` or `list[str]`, length I): of every item; `""`, `[]` and null are none.
        num_pairs (`int`, *optional*, defaults to 1,000,000): judged at each length.
        seed (`int`, *optional*, defaults to 0): of the sample.

    Raises:
        `ValueError`: the column holds neither text nor lists of text.

    Example:
        >>> from hf_latentrec.semantic_ids.quality_codes import prefix_groups
        >>> groups = prefix_groups(np.array([[0], [0], [1], [1]]))
        >>> quality = measure_categories(groups, pl.Series("kind", ["soap", "soap", "tea", "cup"]))
        >>> [(agreement.length, agreement.num_pairs, agreement.share) for agreement in quality.agreements]
        [(0, 6, 0.16666666666666666), (1, 2, 0.5)]
    """
    member_IC, names, left_out = _memberships(categories)
    rows = np.flatnonzero(np.diff(member_IC.indptr))
    generator = np.random.default_rng(seed)
    member_IC = member_IC[rows]
    agreements = []
    for length, groups_I in enumerate(groups):
        order, sizes = _by_group(groups_I[rows])
        available = int((sizes * (sizes - 1) // 2).sum())
        if not available:
            continue
        exact = available <= num_pairs
        numbers_P = np.arange(available) if exact else generator.integers(available, size=num_pairs)
        share = _share_alike(member_IC, order, sizes, numbers_P)
        error = 0.0 if exact else float(np.sqrt(share * (1 - share) / len(numbers_P)))
        agreements.append(CategoryAgreement(length, available, len(numbers_P), share, error))
    return CategoryQuality(categories.name, len(rows), len(names), left_out, tuple(agreements))


def pairs_of(numbers_P: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    The pairs of different members of the same group are numbered, group by group; this names the members.

    Args:
        numbers_P (`np.ndarray` of `int`, shape `[P]`): of pairs.
        sizes (`np.ndarray` of `int`): members of each group; members are numbered through all groups.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: the later and the earlier member of each pair, `[P]`.

    Example:
        >>> later, earlier = pairs_of(np.arange(4), sizes=np.array([3, 1, 2]))
        >>> list(zip(later.tolist(), earlier.tolist()))
        [(1, 0), (2, 0), (2, 1), (5, 4)]
    """
    ends = np.cumsum(sizes * (sizes - 1) // 2)
    groups_P = np.searchsorted(ends, numbers_P, side="right")
    numbers_P = numbers_P - (ends - sizes * (sizes - 1) // 2)[groups_P]
    # Within a group pair (j, i), i < j, has the number j (j - 1) / 2 + i.
    later_P = ((1 + np.sqrt(1 + 8 * numbers_P.astype(np.float64))) / 2).astype(np.int64)
    later_P -= later_P * (later_P - 1) // 2 > numbers_P  # the root of a large number may be rounded
    earlier_P = numbers_P - later_P * (later_P - 1) // 2
    starts_P = (np.cumsum(sizes) - sizes)[groups_P]
    return starts_P + later_P, starts_P + earlier_P


def _memberships(categories: pl.Series) -> tuple[sparse.csr_array, list[str], tuple[str, ...]]:
    """Which item has which category [I, C], the names of the categories, and those left out."""
    if categories.dtype not in (pl.String, pl.List(pl.String)):
        raise ValueError(
            f"measure_categories: column {categories.name!r} holds {categories.dtype}; use text or lists of text"
        )
    frame = pl.DataFrame({"row": np.arange(len(categories)), "name": categories})
    if categories.dtype != pl.String:
        frame = frame.explode("name")
    frame = frame.filter(pl.col("name").str.strip_chars().fill_null("") != "").unique(maintain_order=True)
    num_items = frame["row"].n_unique()
    items_by_name = frame.group_by("name", maintain_order=True).len()
    everywhere = items_by_name.filter(pl.col("len") > EVERYWHERE * num_items)["name"].to_list()
    names = [name for name in items_by_name["name"].to_list() if name not in everywhere]
    numbers = pl.DataFrame({"name": names, "column": np.arange(len(names))}, schema_overrides={"name": pl.String})
    judged = frame.join(numbers, on="name", maintain_order="left")
    where = (judged["row"].to_numpy(), judged["column"].to_numpy())
    shape = (len(categories), len(names))
    member_IC = sparse.coo_array((np.ones(judged.height, dtype=np.int32), where), shape=shape).tocsr()
    return member_IC, names, tuple(everywhere)


def _by_group(groups_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by group, and the groups' sizes."""
    return np.argsort(groups_I, kind="stable"), np.bincount(groups_I)


def _share_alike(member_IC: sparse.csr_array, order: np.ndarray, sizes: np.ndarray, numbers_P: np.ndarray) -> float:
    """Share of the pairs with these numbers that have a category in common."""
    alike = 0
    for start in range(0, len(numbers_P), BLOCK_PAIRS):
        first_P, second_P = pairs_of(numbers_P[start : start + BLOCK_PAIRS], sizes)
        common_PC = member_IC[order[first_P]].multiply(member_IC[order[second_P]])
        alike += int((common_PC.sum(axis=1) > 0).sum())
    return alike / len(numbers_P)


__all__ = ["CategoryAgreement", "CategoryQuality", "measure_categories", "pairs_of"]
