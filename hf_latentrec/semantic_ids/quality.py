"""How good a catalog's semantic IDs are, in figures: ours with codebooks and embeddings, or published codes alone.

Shapes: I items, L levels, K codes of a level, D dimensions of an embedding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from .quality_categories import CategoryQuality, measure_categories
from .quality_co_purchases import CoPurchaseQuality, measure_co_purchases
from .quality_codes import (
    BigPrefix,
    Collisions,
    LevelUse,
    PrefixSizes,
    ReconstructionError,
    biggest_prefixes,
    level_name,
    measure_collisions,
    measure_level_use,
    measure_prefix_sizes,
    prefix_groups,
    reconstruction_errors,
)
from .quality_tables import codes_of_tokens, columns_of, items_in_order
from .quality_warnings import RepeatedText, find_warnings, measure_repeated_text


if TYPE_CHECKING:
    from .semantic_ids import SemanticIds


CATEGORY_COLUMNS = ("categories", "genres", "brand")
TEXT_COLUMNS = ("title",)


@dataclass(frozen=True)
class IdQuality:
    """
    What [`quality_of_ids`] and [`quality_of_codes`] found. What was not given is `None` or empty.

    Args:
        num_items (`int`): of the catalog.
        level_sizes (`tuple[int, ...]`): of all levels.
        has_extra_level (`bool`): the last level only tells colliding items apart; it has no codebook.
        sizes_are_known (`bool`): or taken from the largest numbers among the codes.
        before ([`Collisions`], *optional*): before the collision policy.
        after ([`Collisions`]): of the codes as they are.
        levels (`tuple[LevelUse, ...]`): of the codebooks.
        prefixes (`tuple[PrefixSizes, ...]`): by length, from 1 to L.
        biggest (`dict[int, tuple[BigPrefix, ...]]`): by length, the biggest first; none of a single item.
        errors (`tuple[ReconstructionError, ...]`): by number of codes.
        errors_before (`tuple[ReconstructionError, ...]`): the same before the collision policy.
        categories (`tuple[CategoryQuality, ...]`): by column.
        co_purchases ([`CoPurchaseQuality`], *optional*): from histories.
        repeated_text ([`RepeatedText`], *optional*): items that cannot be told apart by their text.
        warnings (`tuple[str, ...]`): what is wrong, in sentences.
        details (`dict[str, Any]`): where the codes come from: policy, version, model, seed.
    """

    num_items: int
    level_sizes: tuple[int, ...]
    has_extra_level: bool
    sizes_are_known: bool
    before: Collisions | None
    after: Collisions
    levels: tuple[LevelUse, ...]
    prefixes: tuple[PrefixSizes, ...]
    biggest: dict[int, tuple[BigPrefix, ...]]
    errors: tuple[ReconstructionError, ...]
    errors_before: tuple[ReconstructionError, ...]
    categories: tuple[CategoryQuality, ...]
    co_purchases: CoPurchaseQuality | None
    repeated_text: RepeatedText | None
    warnings: tuple[str, ...]
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; NaN and infinity are `None`."""
        return _plain(dataclasses.asdict(self))


@dataclass(frozen=True)
class _Codes:
    """Codes of either origin."""

    item_ids: Sequence[str]
    codes_IL: np.ndarray
    level_sizes: tuple[int, ...]
    has_extra_level: bool
    tokens_of: Callable[[int], Sequence[str]]
    sizes_are_known: bool = True
    raw_codes_IL: np.ndarray | None = None
    errors: tuple[ReconstructionError, ...] = ()
    errors_before: tuple[ReconstructionError, ...] = ()


def quality_of_ids(semantic_ids: SemanticIds, embeddings_ID: np.ndarray | None = None, **judged_by: Any) -> IdQuality:
    """
    Judges semantic IDs that this library made, before and after the collision policy.

    Args:
        semantic_ids ([`SemanticIds`]): the codes and their quantizer.
        embeddings_ID (`np.ndarray`, shape `[I, D]`, *optional*): which the codes stand for, in the order of the items;
            may be memory-mapped.
        judged_by: `items`, `interactions` and what follows them in [`quality_of_codes`]; `text_columns` are those that
            were embedded, where `items` has them.

    Returns:
        [`IdQuality`]

    Raises:
        `ValueError`: embeddings of another shape, or what [`quality_of_codes`] says of items and interactions.
    """
    codes_IL, raw_codes_IL = semantic_ids.codes_IL, semantic_ids.raw_codes_IL
    codebooks_LKD = semantic_ids.quantizer.codebooks_LKD
    errors, errors_before = (), ()
    if embeddings_ID is not None:
        errors_before = tuple(reconstruction_errors(raw_codes_IL, embeddings_ID, codebooks_LKD))
        errors = errors_before
        if semantic_ids.policy == "nearest_free":  # the others add a level, or nothing
            errors = tuple(reconstruction_errors(codes_IL, embeddings_ID, codebooks_LKD))
    names = [level_name(level) for level in range(codes_IL.shape[1])]
    codes = _Codes(
        semantic_ids.item_ids,
        codes_IL,
        semantic_ids.level_sizes,
        has_extra_level=codes_IL.shape[1] > len(codebooks_LKD),
        tokens_of=lambda row: [f"<{name}_{code}>" for name, code in zip(names, codes_IL[row], strict=True)],
        raw_codes_IL=raw_codes_IL,
        errors=errors,
        errors_before=errors_before,
    )
    details = {
        "embedding model": semantic_ids.embedding_model,
        "text": list(semantic_ids.text_fields),
        "balanced": semantic_ids.balanced,
        "collision policy": semantic_ids.policy,
        "seed": semantic_ids.seed,
        "version": semantic_ids.version,
        "fingerprint": semantic_ids.fingerprint,
    }
    items = judged_by.get("items")
    if items is not None and "text_columns" not in judged_by:
        judged_by["text_columns"] = [name for name in semantic_ids.text_fields if name in items.columns]
    return _judge(codes, details=details, **judged_by)


def quality_of_codes(
    codes: pl.DataFrame,
    *,
    level_sizes: Sequence[int] | None = None,
    has_extra_level: bool = False,
    details: dict[str, Any] | None = None,
    **judged_by: Any,
) -> IdQuality:
    """
    Judges codes that come without codebooks, such as a published `X.index.json`.

    Args:
        codes (`pl.DataFrame`): `item_id` and `semantic_id` (list of tokens such as `"<a_12>"`), as
            [`~data.files.read_codes`] reads them.
        level_sizes (`Sequence[int]`, *optional*, defaults to the largest numbers found, plus one): of the codebooks.
        has_extra_level (`bool`, *optional*, defaults to `False`): the last level only tells colliding items apart.
        details (`dict[str, Any]`, *optional*): to be shown in the report.
        items (`pl.DataFrame`, *optional*): `item_id`, and where known `title` and columns of categories.
        interactions (`pl.DataFrame` or `pl.LazyFrame`, *optional*): `user_id`, `item_id`.
        category_columns (`Sequence[str]`, *optional*): defaults to those of `categories`, `genres` and `brand` that
            `items` has.
        text_columns (`Sequence[str]`, *optional*): which the codes were made of, to count items that have them in
            common; defaults to `title` where `items` has it.
        num_pairs (`int`, *optional*, defaults to 1,000,000): of items, judged by category at each length of a prefix;
            all where there are no more.
        max_users (`int`, *optional*, defaults to 200,000): judged by their histories; all where there are no more.
        seed (`int`, *optional*, defaults to 0): of samples of pairs and users.

    Returns:
        [`IdQuality`]

    Raises:
        `ValueError`: no items, an item twice, codes of different lengths, tokens without a number or of two kinds in
            one level, sizes that the codes exceed; items or interactions that name no item of the codes, or lack a
            column.

    Example:
        >>> codes = pl.DataFrame({"item_id": ["x", "y"], "semantic_id": [["<a_0>", "<b_3>"], ["<a_0>", "<b_3>"]]})
        >>> quality = quality_of_codes(codes, level_sizes=[4, 4])
        >>> quality.after.rate, quality.levels[1].used, quality.biggest[1][0].tokens
        (1.0, 1, ('<a_0>',))
    """
    tokens = codes["semantic_id"]
    codes_IL = codes_of_tokens(codes)
    found = tuple(int(code) + 1 for code in codes_IL.max(axis=0))
    sizes = tuple(level_sizes) if level_sizes is not None else found
    if len(sizes) != len(found) or any(size < least for size, least in zip(sizes, found, strict=True)):
        raise ValueError(f"quality_of_codes: level_sizes {list(sizes)}, but the codes need {list(found)} at least")
    judged = _Codes(
        codes["item_id"].to_list(),
        codes_IL,
        sizes,
        has_extra_level,
        tokens_of=lambda row: tokens[row].to_list(),
        sizes_are_known=level_sizes is not None,
    )
    return _judge(judged, details=details or {}, **judged_by)


def _judge(
    codes: _Codes,
    *,
    details: dict[str, Any],
    items: pl.DataFrame | None = None,
    interactions: pl.DataFrame | pl.LazyFrame | None = None,
    category_columns: Sequence[str] | None = None,
    text_columns: Sequence[str] | None = None,
    num_pairs: int = 1_000_000,
    max_users: int = 200_000,
    seed: int = 0,
) -> IdQuality:
    """All figures of a table of codes; the arguments are those of [`quality_of_codes`]."""
    items = items_in_order(codes.item_ids, items)
    categories = columns_of(items, category_columns, CATEGORY_COLUMNS)
    texts = columns_of(items, text_columns, TEXT_COLUMNS)
    groups = prefix_groups(codes.codes_IL)
    L = codes.codes_IL.shape[1]
    titles = items["title"].cast(pl.String).fill_null("") if "title" in items.columns else None
    quality = IdQuality(
        num_items=len(codes.item_ids),
        level_sizes=codes.level_sizes,
        has_extra_level=codes.has_extra_level,
        sizes_are_known=codes.sizes_are_known,
        before=None if codes.raw_codes_IL is None else measure_collisions(prefix_groups(codes.raw_codes_IL)[-1]),
        after=measure_collisions(groups[-1]),
        levels=tuple(
            measure_level_use(codes.codes_IL[:, level], codes.level_sizes[level], level_name(level))
            for level in range(L - codes.has_extra_level)
        ),
        prefixes=tuple(measure_prefix_sizes(groups[length], length) for length in range(1, L + 1)),
        biggest={
            length: biggest_prefixes(groups[length], partial(_prefix_of, codes, length), titles)
            for length in range(1, L + 1)
        },
        errors=codes.errors,
        errors_before=codes.errors_before,
        categories=tuple(measure_categories(groups, items[name], num_pairs, seed) for name in categories),
        co_purchases=None
        if interactions is None
        else measure_co_purchases(groups, codes.item_ids, interactions, max_users, seed),
        repeated_text=measure_repeated_text(items.select(texts)),
        warnings=(),
        details=details,
    )
    return dataclasses.replace(quality, warnings=tuple(find_warnings(quality)))


def _prefix_of(codes: _Codes, length: int, row: int) -> Sequence[str]:
    return codes.tokens_of(row)[:length]


def _plain(value: Any) -> Any:
    """The same for JSON, which knows neither tuples nor numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(content) for content in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["IdQuality", "quality_of_codes", "quality_of_ids"]
