"""What is wrong with a catalog's codes, in sentences that say what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl


if TYPE_CHECKING:
    from .quality import IdQuality


LEAST_USED = 0.5  # of the codes that could be in use
LEAST_PERPLEXITY = 0.25  # the same
MOST_ITEMS = 0.1  # of the catalog, under one prefix
SAME_TEXT, FEW = 0.01, 4  # of the catalog, with one text; so many items may have it in any catalog
TEXT_WIDTH = 60  # letters of a text that are shown


@dataclass(frozen=True)
class RepeatedText:
    """
    Items that have the same text, from which no codes can tell them apart.

    Args:
        num_items (`int`): described items whose text another has, too.
        num_texts (`int`): different texts of all described items.
        biggest (`int`): items of the most frequent text.
        text (`str`): the beginning of that text.
    """

    num_items: int
    num_texts: int
    biggest: int
    text: str


def measure_repeated_text(texts: pl.DataFrame) -> RepeatedText | None:
    """
    Args:
        texts (`pl.DataFrame`): the columns of the items' text; a row of nulls is not described.

    Returns:
        [`RepeatedText`], or `None` without columns or described items.

    Example:
        >>> measure_repeated_text(pl.DataFrame({"title": ["tea", "soap", "tea", None]}))
        RepeatedText(num_items=2, num_texts=2, biggest=2, text='tea')
    """
    if not texts.columns or not (texts := texts.filter(~pl.all_horizontal(pl.all().is_null()))).height:
        return None
    groups = texts.group_by(texts.columns, maintain_order=True).len("_items")
    first = groups.sort("_items", descending=True, maintain_order=True).row(0)
    return RepeatedText(
        int(groups.filter(pl.col("_items") > 1)["_items"].sum()), groups.height, first[-1], _beginning(first[:-1])
    )


def find_warnings(quality: IdQuality) -> Iterator[str]:
    """
    A level that uses less than half of its codes or whose perplexity is below a quarter of them; a prefix that holds
    more than a tenth of the catalog; a text that more than a hundredth of the items have; collisions that are left.

    Args:
        quality ([`IdQuality`]): without warnings yet.
    """
    for level in quality.levels:
        few = level.used < LEAST_USED * level.reachable
        if few or level.perplexity < LEAST_PERPLEXITY * level.reachable:
            yield (
                f"Level {level.name}: codebook collapsed, {level.used:,} of {level.reachable:,} codes used with a "
                f"perplexity of {level.perplexity:.1f}; look for texts that many items share, or build balanced codes."
            )
    yield from _prefix_warning(quality)
    text = quality.repeated_text
    if text is not None and text.biggest > max(FEW, SAME_TEXT * quality.num_items):
        yield (
            f"One text many times: {text.biggest:,} of {quality.num_items:,} items "
            f"({text.biggest / quality.num_items:.1%}) have the text {text.text!r}; add fields that tell them apart."
        )
    if quality.after.num_colliding:
        yield (
            f"Collisions: {quality.after.num_colliding:,} of {quality.num_items:,} items ({quality.after.rate:.2%}) "
            f"share their code with another, {quality.after.biggest:,} of them one code; a recommender cannot tell "
            'them apart. The policies "extra_level" and "nearest_free" leave none.'
        )


def _prefix_warning(quality: IdQuality) -> Iterator[str]:
    """Names the longest prefix that holds too much."""
    for length, prefixes in reversed(quality.biggest.items()):
        # With few codes even perfect ones put a tenth of the catalog under one.
        usual = 2 / min(math.prod(quality.level_sizes[:length]), quality.num_items)
        if prefixes and prefixes[0].share > max(MOST_ITEMS, usual):
            biggest = prefixes[0]
            yield (
                f"One prefix of {length} code{'s' * (length > 1)}, {''.join(biggest.tokens)}, holds "
                f"{biggest.num_items:,} of {quality.num_items:,} items ({biggest.share:.1%}); look at its titles, or "
                "build balanced codes."
            )
            return


def _beginning(parts: tuple[object, ...]) -> str:
    """The text of an item, cut."""
    words = (" ".join(map(str, part)) if isinstance(part, list) else str(part or "") for part in parts)
    text = " ".join(" ".join(words).split())
    return text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"


__all__ = ["RepeatedText", "find_warnings", "measure_repeated_text"]
