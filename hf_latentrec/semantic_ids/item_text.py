"""Items -> the texts that a sentence encoder reads, and how well these tell the items apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl


logger = logging.getLogger(__name__)

TEXT_FIELDS = ("title", "brand", "categories", "description")
WORDS = r"[\p{L}\p{N}\p{S}]"  # a letter, a digit or a symbol; what has none of them, such as "[]" or "-", is empty
FREQUENT_SHARE = 0.01


def item_texts(
    items: pl.DataFrame,
    fields: Sequence[str] | None = None,
    *,
    max_characters: int = 2000,
    on_empty: Literal["error", "id"] = "error",
) -> list[str]:
    """
    One text per item: its fields in their order, `Title. Brand. Category, category. Description`.

    White space is made single blanks, lists are joined by commas, and empty parts are left out. A part without any
    letter, digit or symbol, such as `[]` or `-`, is empty.

    Args:
        items (`polars.DataFrame`): one row per item; `item_id`, and columns of text, lists of text, or numbers.
        fields (`Sequence[str]`, *optional*): columns that make the text, the most telling ones first, since a long
            text loses its end. If not given, those of `title, brand, categories, description` that are there.
        max_characters (`int`, *optional*, defaults to 2000): longer texts are cut; about 500 tokens.
        on_empty (`"error"` or `"id"`, *optional*, defaults to `"error"`): what an item without any text gets. With
            `"id"` its id is its text: it can be told apart, but its embedding says nothing about it.

    Returns:
        `list[str]`: the texts, in the order of the rows.

    Raises:
        ValueError: a field is not there or holds neither text nor numbers, there are no items, or items have no text.

    Example:
        >>> items = pl.DataFrame({"item_id": ["7"], "title": [" Desk  lamp"], "categories": [["A", "", "B"]]})
        >>> item_texts(items), item_texts(items, ["categories"])
        (['Desk lamp. A, B'], ['A, B'])
    """
    fields = _known_fields(items, fields)
    if max_characters < 1 or on_empty not in ("error", "id"):
        raise ValueError(
            f"item_texts: max_characters={max_characters}, on_empty={on_empty!r}; expected a positive number and "
            "'error' or 'id'"
        )
    if items.height == 0:
        raise ValueError("item_texts: there are no items; check the filters that they went through")
    parts = [_part(items, field) for field in fields]
    text = pl.concat_str(parts, separator=". ", ignore_nulls=True).str.slice(0, max_characters).str.strip_chars_end()
    texts = items.select(item_id=pl.col("item_id").cast(pl.String), text=text)
    empty = texts.filter(pl.col("text") == "")
    if empty.height and on_empty == "error":
        raise ValueError(
            f"item_texts: {empty.height} of {items.height} items have no text in {', '.join(fields)}, first "
            f"{', '.join(map(repr, empty['item_id'].head(3)))}; name more fields, drop these items, or pass "
            'on_empty="id", which takes the id for the text'
        )
    or_id = pl.when(pl.col("text") == "").then("item_id").otherwise("text")
    return texts.select(or_id).to_series().to_list()


@dataclass(frozen=True)
class TextReport:
    """
    How well texts tell items apart.

    Args:
        num_texts (`int`): items.
        num_distinct (`int`): different texts among them.
        most_frequent (`str`): the text of the most items; of several such texts, the first.
        num_most_frequent (`int`): items with that text.
    """

    num_texts: int
    num_distinct: int
    most_frequent: str
    num_most_frequent: int

    @property
    def share(self) -> float:
        """Of the items, those that have the most frequent text."""
        return self.num_most_frequent / self.num_texts


def report_texts(texts: Sequence[str]) -> TextReport:
    """
    Counts repeated texts, and warns where one of them belongs to more than 1 % of the items: no embedding can tell
    those apart.

    Args:
        texts (`Sequence[str]`): at least one.

    Example:
        >>> report = report_texts(["Desk lamp", "Desk fan", "Clamp", "Desk fan"])
        >>> report.num_distinct, report.most_frequent, report.share
        (3, 'Desk fan', 0.5)
    """
    counts = pl.Series("text", texts, dtype=pl.String).to_frame().group_by("text", maintain_order=True).len()
    if counts.height == 0:
        raise ValueError("report_texts: there are no texts; pass those of item_texts")
    text, number = counts.row(int(counts["len"].arg_max()))
    report = TextReport(len(texts), counts.height, text, number)
    if number > 1 and report.share > FREQUENT_SHARE:
        remedy = "add fields that differ, or remove what is no product text"
        if report.share >= 0.5:
            remedy = f"such IDs do not say what an item is, so do not train on them; {remedy}"
        logger.warning(
            f"{number:,} of {len(texts):,} items ({report.share:.1%}) have the same text {text[:80]!r}. Their "
            f"embeddings are equal, and their semantic IDs differ only by how collisions are resolved: {remedy}"
        )
    return report


def _known_fields(items: pl.DataFrame, fields: Sequence[str] | None) -> list[str]:
    wanted = list(TEXT_FIELDS if fields is None else fields)
    if not wanted:
        raise ValueError("item_texts: no field is named; name the columns that hold text, such as 'title'")
    known = [field for field in wanted if field in items.columns]
    if not known or "item_id" not in items.columns or (fields is not None and len(known) < len(wanted)):
        missing = [field for field in dict.fromkeys(("item_id", *wanted)) if field not in items.columns]
        raise ValueError(
            f"item_texts: the items have no column {', '.join(map(repr, missing))}; there are "
            f"{', '.join(items.columns)}: name those that hold text as fields"
        )
    return known


def _part(items: pl.DataFrame, field: str) -> pl.Expr:
    """A field as text on one line, without the full stop at its end; null where it is empty."""
    kind, text = items.schema[field], pl.col(field)
    if kind in (pl.List(pl.String), pl.List(pl.Null)):
        text = text.cast(pl.List(pl.String))
        words = pl.element().filter(pl.element().str.contains(WORDS))
        text = text.list.eval(words).list.join(", ", ignore_nulls=True)
    elif kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        text = text.cast(pl.String)
    else:
        raise ValueError(f"item_texts: column {field!r} holds {kind}; expected text, lists of text, or numbers")
    text = text.str.replace_all(r"\s+", " ").str.strip_chars().str.strip_chars_end(". ")
    return pl.when(text.str.contains(WORDS)).then(text)


__all__ = ["TEXT_FIELDS", "TextReport", "item_texts", "report_texts"]
