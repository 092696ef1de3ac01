"""Checks of the schema. Each finding is one `ValueError` with source, rows, values and remedy."""

from __future__ import annotations

import polars as pl

from .schema import RecData, to_polars


SPLITS = ("train", "valid", "test")


def validate(
    data: RecData, *, require_codes: bool = False, sources: tuple[str, str] = ("interactions", "items")
) -> RecData:
    """
    Check interactions and items against the schema and against each other.

    Args:
        data ([`RecData`]):
            What to check. It is returned unchanged.
        require_codes (`bool`, *optional*, defaults to `False`):
            Whether the items must have a `semantic_id` column. Where it is there, it is always checked.
        sources (`tuple[str, str]`, *optional*, defaults to `("interactions", "items")`):
            What errors call the interactions and the items; loaders pass file names.

    Returns:
        [`RecData`]: `data`.

    Raises:
        `ValueError`: Missing or wrongly typed columns, no rows, missing ids, duplicate items, an item without codes,
            codes of different depth, interactions with unknown items, positions that are not 0, 1, 2, ... for each
            user, missing or decreasing timestamps, an unknown `split` or one whose target has an empty history.
    """
    interactions_source, items_source = sources
    items = to_polars(data.items)
    _check_items(items, items_source, require_codes)
    interactions = to_polars(data.interactions)
    _check_columns(
        interactions, {"user_id": pl.String, "item_id": pl.String, "position": pl.Int64}, interactions_source
    )
    _check_known(interactions, items, interactions_source, items_source)
    interactions = interactions.sort("user_id", "position")
    _check_positions(interactions, interactions_source)
    if "timestamp" in interactions.columns:
        _check_timestamps(interactions, interactions_source)
    if "split" in interactions.columns:
        _check_split(interactions, interactions_source)
    return data


def _check_items(items: pl.DataFrame, source: str, require_codes: bool) -> None:
    _check_columns(items, {"item_id": pl.String}, source)
    rows = items.with_row_index("row")
    repeated = rows.group_by("item_id", maintain_order=True).agg("row").filter(pl.col("row").list.len() > 1)
    if repeated.height:
        item_id, where = repeated.row(0)
        raise ValueError(
            f"{source}: item_id {item_id!r} appears {len(where)} times (rows {', '.join(map(str, where))}), "
            f"{repeated.height} item(s) appear more than once; keep one row per item"
        )
    if "title" in items.columns:
        _check_columns(items, {"title": pl.String}, source, may_be_empty=True)
    if "semantic_id" in items.columns:
        _check_codes(rows, source)
    elif require_codes:
        raise ValueError(
            f"{source}: items have no 'semantic_id' column (columns: {items.columns}); add the code sequence of each "
            "item, e.g. an X.index.json file beside the data"
        )


def _check_codes(rows: pl.DataFrame, source: str) -> None:
    if rows.schema["semantic_id"] != pl.List(pl.String):
        raise ValueError(
            f"{source}: column 'semantic_id' holds {rows.schema['semantic_id']}; it must hold lists of strings"
        )
    codes = pl.col("semantic_id")
    rows = rows.select("item_id", "row", "semantic_id", depth=codes.list.len())
    without = rows.filter(codes.is_null() | (codes.list.len() == 0))
    if without.height:
        raise ValueError(
            f"{source}: {without.height} item(s) have no code sequence, first {_first(without, 'item_id', 'row')}; "
            "give each item its codes or remove it and its interactions"
        )
    # `null` or empty tokens could not be told from a missing level later
    broken = rows.filter(codes.list.eval(pl.element().is_null() | (pl.element() == "")).list.any())
    if broken.height:
        raise ValueError(
            f"{source}: {broken.height} item(s) have an empty code token, first "
            f"{_first(broken, 'item_id', 'row', 'semantic_id')}; every code must be a non-empty string"
        )
    depths = rows.group_by("depth").len().sort("len", "depth", descending=True)
    if depths.height > 1:
        usual = depths["depth"][0]
        odd = rows.filter(pl.col("depth") != usual)
        raise ValueError(
            f"{source}: codes have different depths: {depths['len'][0]} item(s) have {usual} levels, but {odd.height} "
            f"have not, first {_first(odd, 'item_id', 'row', 'semantic_id')}; all items need the same number of codes"
        )


def _check_columns(frame: pl.DataFrame, wanted: dict, source: str, may_be_empty: bool = False) -> None:
    for name, dtype in wanted.items():
        found = frame.schema.get(name)
        if found is None:
            raise ValueError(f"{source}: no column {name!r}, only {frame.columns}; add or rename it")
        if found != dtype:
            raise ValueError(f"{source}: column {name!r} holds {found}, it must hold {dtype}; cast it")
    if frame.height == 0:
        raise ValueError(f"{source}: no rows; nothing can be trained or recommended")
    for name, dtype in wanted.items():
        missing = pl.col(name).is_null()
        if dtype == pl.String and not may_be_empty:
            missing |= pl.col(name) == ""
        rows = frame.with_row_index("row").filter(missing)
        if rows.height:
            raise ValueError(
                f"{source}: {rows.height} row(s) without {name}, first row {rows['row'][0]}: "
                f"{_first(rows.head(1), *wanted)}; fill it in or remove the rows"
            )


def _check_known(interactions: pl.DataFrame, items: pl.DataFrame, source: str, items_source: str) -> None:
    unknown = interactions.join(items.select("item_id"), on="item_id", how="anti", maintain_order="left")
    if unknown.height:
        raise ValueError(
            f"{source}: {unknown.height} interaction(s) with {unknown['item_id'].n_unique()} unknown item(s) that are "
            f"not in {items_source}, first {_first(unknown, 'user_id', 'position', 'item_id')}; add the items or "
            "remove these interactions"
        )


def _check_positions(interactions: pl.DataFrame, source: str) -> None:
    expected = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id")
    wrong = interactions.with_columns(expected=expected).filter(pl.col("position") != pl.col("expected"))
    if wrong.height:
        raise ValueError(
            f"{source}: the positions of a user must be 0, 1, 2, ... without gaps or repeats, first "
            f"{_first(wrong.head(1), 'user_id', 'position', 'expected')}; count them anew in time order"
        )


def _check_timestamps(interactions: pl.DataFrame, source: str) -> None:
    time = pl.col("timestamp")
    if not interactions.schema["timestamp"].is_numeric():
        raise ValueError(
            f"{source}: column 'timestamp' holds {interactions.schema['timestamp']}; use numbers, e.g. seconds"
        )
    missing = interactions.filter(time.is_null() | ~time.cast(pl.Float64).is_finite())
    where = ("user_id", "position", "item_id", "timestamp")
    if missing.height:
        raise ValueError(
            f"{source}: {missing.height} interaction(s) without a finite timestamp, first {_first(missing, *where)}; "
            "fill them in, remove the rows, or drop the column where the order is known"
        )
    back = interactions.filter(time < time.shift(1).over("user_id"))
    if back.height:
        raise ValueError(
            f"{source}: {back.height} interaction(s) are earlier than the one before them, first "
            f"{_first(back, *where)}; sort each user's events by time and count the positions anew"
        )


def _check_split(interactions: pl.DataFrame, source: str) -> None:
    wrong = interactions.filter(~pl.col("split").is_in(SPLITS, nulls_equal=True))
    where = ("user_id", "position", "item_id", "split")
    if wrong.height:
        raise ValueError(
            f"{source}: {wrong.height} interaction(s) of an unknown split, first {_first(wrong, *where)}; "
            f"use one of {', '.join(SPLITS)}"
        )
    empty = interactions.filter((pl.col("position") == 0) & (pl.col("split") != "train"))
    if empty.height:
        raise ValueError(
            f"{source}: {empty.height} target(s) have an empty history, first {_first(empty, *where)}; "
            "remove these users, or mark their first event as train"
        )
    order = pl.col("split").replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int8)
    back = interactions.filter(order < order.shift(1).over("user_id"))
    if back.height:
        raise ValueError(
            f"{source}: {back.height} interaction(s) follow one of a later split, first {_first(back, *where)}; "
            "within a user the order must be train, valid, test"
        )


def _first(rows: pl.DataFrame, *columns: str, count: int = 3) -> str:
    """The first rows as text: `user_id='7', position=3, item_id='99'; user_id=...`."""
    examples = rows.head(count).select(columns).rows(named=True)
    return "; ".join(", ".join(f"{name}={value!r}" for name, value in row.items()) for row in examples)


__all__ = ["SPLITS", "validate"]
