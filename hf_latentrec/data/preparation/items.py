"""The items of a prepared data set: one row for each, with clean text."""

from __future__ import annotations

import numpy as np
import polars as pl

from ..sources.raw_data import RawData
from ..sources.text_cleaning import clean_text


def describe_items(raw: RawData, item_ids: pl.Series) -> pl.DataFrame:
    """
    What a source says of some items.

    Args:
        raw ([`RawData`]):
            The source.
        item_ids (`polars.Series`):
            The items, in the order that is wanted.

    Returns:
        `polars.DataFrame`: `item_id` and, where there are descriptions, `title` and the other columns; text that is
        missing, as all of an item that is not described, is `""` or `[]`.

    Raises:
        `ValueError`: An item is described twice.
    """
    wanted = pl.DataFrame({"item_id": item_ids})
    if raw.items is None:
        return wanted
    repeated = raw.items.filter(pl.col("item_id").is_duplicated())
    if repeated.height:
        first, ids = repeated["item_id"][0], repeated["item_id"]
        raise ValueError(
            f"{raw.name}: item_id {first!r} has {(ids == first).sum()} rows of text ({ids.n_unique():,} such items); "
            "keep one row per item"
        )
    first = [name for name in ("item_id", "title") if name in raw.items.columns]
    found = wanted.join(raw.items, on="item_id", how="left", maintain_order="left").select(*first, pl.exclude(first))
    return found.with_columns(pl.col(pl.String).fill_null(""), pl.col(pl.List(pl.String)).fill_null([]))


def clean_items(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The items with clean text, and how many titles cleaning changed."""
    texts = [name for name, dtype in items.schema.items() if dtype == pl.String and name != "item_id"]
    lists = [name for name, dtype in items.schema.items() if dtype == pl.List(pl.String)]
    clean = items.with_columns(
        *(clean_text(pl.col(name)).fill_null("") for name in texts),
        *(pl.col(name).list.eval(clean_text(pl.element())).alias(name) for name in lists),
    )
    return clean, int((clean["title"] != items["title"]).sum()) if "title" in texts else 0


def title_words(items: pl.DataFrame) -> np.ndarray | None:
    """Words of each cleaned title (int64, shape `[I]`), 0 where there is none; `None` where no item has a title."""
    if "title" not in items.columns:
        return None
    words = items.select(clean_text(pl.col("title")).str.count_matches(r"\S+").fill_null(0))
    return words.to_series().to_numpy().astype(np.int64)


__all__ = ["clean_items", "describe_items", "title_words"]
