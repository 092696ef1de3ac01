"""Rows that describe items, as they were read -> one row per item."""

from __future__ import annotations

import polars as pl


SAME_TEXT = "item rows that repeat another one"
OTHER_TEXT = "item rows with another text than their item's first one"


def distinct_items(items: pl.DataFrame, name: str, on_conflict: str = "error") -> tuple[pl.DataFrame, dict[str, int]]:
    """
    One row per item, in the order of the first rows; missing text becomes `""` or `[]`.

    Args:
        items (`polars.DataFrame`):
            `item_id` (str) and columns of type str or list[str], one row for each row or line that was read.
        name (`str`):
            What errors call the source, e.g. the file.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            What to do where rows of one item differ in their text: `"error"`, or `"first"`, which keeps the first row.
            Rows with the same text are one row in either case.

    Returns:
        `tuple[polars.DataFrame, dict[str, int]]`: The items, and how many rows were left out by reason, for
        [`RawData`]`.dropped` (no entry where there were none).

    Raises:
        `ValueError`: Rows of one item differ, a row has no `item_id`, or `on_conflict` is unknown.

    Example:

    ```python
    >>> import polars as pl
    >>> from hf_latentrec.data.sources.item_table import distinct_items
    >>> items = pl.DataFrame({"item_id": ["a", "b", "a"], "title": ["Tea", None, "Tea"]})
    >>> frame, dropped = distinct_items(items, "items.csv")
    >>> frame.rows(), dropped
    ([('a', 'Tea'), ('b', '')], {'item rows that repeat another one': 1})

    ```
    """
    if on_conflict not in ("error", "first"):
        raise ValueError(f"{name}: on_conflict={on_conflict!r}; use 'error' or 'first'")
    rows = items.with_columns(
        pl.col(pl.String).exclude("item_id").fill_null(""), pl.col(pl.List(pl.String)).fill_null([])
    ).with_row_index("_row")
    without = rows.filter(pl.col("item_id").is_null() | (pl.col("item_id") == ""))
    if without.height:
        raise ValueError(
            f"{name}: {without.height} item row(s) without an item_id, first row {without['_row'][0]} (from 0): "
            f"{_short(without.drop('_row', 'item_id').row(0, named=True))}; fill it in or remove the rows"
        )
    distinct = rows.unique(subset=items.columns, keep="first", maintain_order=True)
    if on_conflict == "error":
        _check_one_text(distinct, name)
    first = distinct.unique("item_id", keep="first", maintain_order=True)
    dropped = {SAME_TEXT: rows.height - distinct.height, OTHER_TEXT: distinct.height - first.height}
    return first.drop("_row"), {reason: count for reason, count in dropped.items() if count}


def _check_one_text(distinct: pl.DataFrame, name: str) -> None:
    repeated = distinct.filter(pl.col("item_id").is_duplicated())
    if repeated.height == 0:
        return
    one, other = repeated.filter(pl.col("item_id") == repeated["item_id"][0]).head(2).rows(named=True)
    column = next(column for column in distinct.columns[1:] if one[column] != other[column])
    raise ValueError(
        f"{name}: item_id {one['item_id']!r} has rows with different text: row {one['_row']} has {column} "
        f"{_short(one[column])}, row {other['_row']} has {_short(other[column])} (rows from 0; "
        f"{repeated['item_id'].n_unique()} such item(s)); correct the rows, or keep the first one of each item with "
        "on_conflict='first'"
    )


def _short(value: object, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


__all__ = ["distinct_items"]
