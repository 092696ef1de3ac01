"""Code tokens as numbers, and what is known of items in the order of their codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl


def codes_of_tokens(codes: pl.DataFrame) -> np.ndarray:
    """
    Args:
        codes (`pl.DataFrame`): `item_id` and `semantic_id`, a list of tokens such as `"<a_12>"`.

    Returns:
        `np.ndarray` of `int32`, shape `[I, L]`: the numbers in the tokens.

    Raises:
        `ValueError`: no items, codes of different lengths, a token without a number, or two kinds of tokens in one
            level.

    Example:
        >>> codes_of_tokens(pl.DataFrame({"item_id": ["x"], "semantic_id": [["<a_12>", "<b_0>"]]}))
        array([[12,  0]], dtype=int32)
    """
    lengths = codes["semantic_id"].list.len()
    if not codes.height or lengths.null_count() or not lengths.min():
        raise ValueError(f"codes: {codes.height} items, some without a code; every item needs one")
    L = lengths[0]
    if lengths.n_unique() > 1:
        row = (lengths != L).arg_true()[0]
        raise ValueError(
            f"codes: item {codes['item_id'][row]!r} (row {row}) has {lengths[row]} tokens, item "
            f"{codes['item_id'][0]!r} (row 0) {L}; give all items codes of one length"
        )
    columns = []
    for level in range(L):
        tokens = codes["semantic_id"].list.get(level)
        numbers = tokens.str.extract(r"(\d+)\D*$").cast(pl.Int32, strict=False)
        kinds = tokens.str.replace(r"\d+(\D*)$", "#$1")
        wrong = numbers.is_null() | (kinds != kinds[0])
        if wrong.any():
            row = wrong.arg_true()[0]
            raise ValueError(
                f"codes: item {codes['item_id'][row]!r} (row {row}) has {tokens[row]!r} at level {level}, item "
                f"{codes['item_id'][0]!r} (row 0) {tokens[0]!r}; write the codes of a level as <a_0>, <a_1>, ..."
            )
        columns.append(numbers.to_numpy())
    return np.stack(columns, axis=1)


def items_in_order(item_ids: Sequence[str], items: pl.DataFrame | None) -> pl.DataFrame:
    """
    Args:
        item_ids (`Sequence[str]`): of the codes.
        items (`pl.DataFrame`, *optional*): `item_id`, and what is known of them.

    Returns:
        `pl.DataFrame`: a row for each of `item_ids`, of nulls where it is not described.

    Raises:
        `ValueError`: an item twice, no column `item_id`, or none of the items has a code.
    """
    ids = pl.DataFrame({"item_id": list(item_ids)}, schema={"item_id": pl.String})
    _check_once(ids, "codes")
    if items is None:
        return ids
    if "item_id" not in items.columns:
        raise ValueError(f"items: no column 'item_id', found {items.columns}; rename it")
    items = items.with_columns(pl.col("item_id").cast(pl.String))
    _check_once(items, "items")
    if not items["item_id"].is_in(ids["item_id"].implode()).any():
        raise ValueError(
            f"items: none of them has a code (items {items['item_id'].head(3).to_list()}, codes "
            f"{ids['item_id'].head(3).to_list()}, ...); use the same ids in both"
        )
    return ids.join(items, on="item_id", how="left", maintain_order="left")


def columns_of(items: pl.DataFrame, asked: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    """
    Args:
        items (`pl.DataFrame`): with what is known of the items.
        asked (`Sequence[str]`, *optional*): columns that must be there.
        usual (`Sequence[str]`): those to take where they are there and nothing was asked.

    Raises:
        `ValueError`: a column that was asked for is missing.
    """
    if missing := [name for name in asked or () if name not in items.columns]:
        raise ValueError(f"items: the columns {missing} are missing, found {items.columns}; correct the names")
    return list(asked) if asked is not None else [name for name in usual if name in items.columns]


def _check_once(frame: pl.DataFrame, name: str) -> None:
    twice = frame.select("item_id").with_row_index("row").filter(pl.col("item_id").is_duplicated())
    if twice.height:
        item_id = twice["item_id"][0]
        rows = twice.filter(pl.col("item_id").eq_missing(pl.lit(item_id)))["row"].to_list()
        raise ValueError(
            f"{name}: item_id {item_id!r} appears {len(rows)} times (rows {rows[:5]}); keep one row of each item"
        )


__all__ = ["codes_of_tokens", "columns_of", "items_in_order"]
