"""Public data formats -> one schema. The RecBole atomic files have a module of their own."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .files import id_text, only_file, read_codes, read_json, read_parquet, read_text
from .loading_recbole import load_recbole, read_items
from .schema import RecData, in_user_order, to_dataset
from .validation import validate


def load_data(path: str | Path) -> RecData:
    """
    Load a data set in whichever of the known formats is there.

    Args:
        path (`str` or `Path`):
            A folder with `events.parquet` ([`load_events`]), `X.inter.json` ([`load_indexed_json`]), `*.inter`
            ([`load_recbole`]) or one `*.txt` ([`load_sequences`]); or the path of a sequences file.

    Returns:
        [`RecData`]: The checked data.

    Raises:
        `FileNotFoundError`: There is no such path.
        `ValueError`: No format fits, or the data are not sound (see [`validate`]).
    """
    path = Path(path)
    if path.is_file():
        return load_sequences(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder; check the path")
    loaders = {
        "events.parquet": load_events,
        "*.inter.json": load_indexed_json,
        "*.inter": load_recbole,
        "*.txt": lambda folder: load_sequences(only_file(folder, "*.txt")),
    }
    for pattern, load in loaders.items():
        if any(path.glob(pattern)):
            return load(path)
    found = ", ".join(sorted(child.name for child in path.iterdir())) or "nothing"
    raise ValueError(f"{path}: no known data format: looked for {', '.join(loaders)}; found {found}")


def load_indexed_json(folder: str | Path) -> RecData:
    """
    Load the pair `X.inter.json` (user -> items in time order) and `X.index.json` (item -> code tokens).

    Items come in the order of the index. An atomic file `X.item` beside them, where there is one, adds its columns
    (asin, title, ...).

    Args:
        folder (`str` or `Path`):
            The folder with the files; `X` is any name.

    Returns:
        [`RecData`]: interactions `user_id, item_id, position`; items `item_id, semantic_id, ...`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A file cannot be read or the data are not sound (see [`validate`]).
    """
    folder = Path(folder)
    inter = _require(folder, "*.inter.json")
    index = _require(folder, "*.index.json")
    items = read_codes(index)
    described = only_file(folder, "*.item")
    if described is not None:
        items = _describe(items, described, index)
    interactions = _from_lists(read_json(inter), inter)
    return _checked(interactions, items, inter.name, index.name)


def load_sequences(path: str | Path) -> RecData:
    """
    Load a text file with one user a line: `user item item ...`, in time order, separated by blanks.

    Args:
        path (`str` or `Path`):
            `X.txt`. Where `X_item2attributes.json` (item -> list of attributes) lies beside it, it is the list of the
            items and gives them a column `attributes` (list[str]); else the items are those of the sequences.

    Returns:
        [`RecData`]: interactions `user_id, item_id, position`; items `item_id[, attributes]`.

    Raises:
        `FileNotFoundError`: The file is missing.
        `ValueError`: A line is malformed, a user has two lines, or the data are not sound (see [`validate`]).
    """
    path = Path(path)
    sequences: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        user_id, *items = line.split() or [""]
        if not items:
            raise ValueError(
                f"{path}: line {number}: expected 'user item item ...', found {line[:200]!r}, which has an empty "
                "history; correct or remove the line"
            )
        if user_id in lines:
            raise ValueError(
                f"{path}: line {number}: user {user_id!r} already has line {lines[user_id]}; write one line per user"
            )
        sequences[user_id], lines[user_id] = items, number
    interactions = _explode(sequences)
    attributes = path.with_name(f"{path.stem}_item2attributes.json")
    if not attributes.is_file():
        return _checked(interactions, _items_of(interactions), path.name, path.name)
    values = read_json(attributes)
    for item_id, value in values.items():
        if not isinstance(value, list):
            raise ValueError(f"{attributes}: item {item_id!r}: expected a list of attributes, found {value!r}")
    lists = [[id_text(v, f"{attributes}: item {item!r}") for v in value] for item, value in values.items()]
    items = pl.DataFrame([list(values), lists], schema={"item_id": pl.String, "attributes": pl.List(pl.String)})
    return _checked(interactions, items, path.name, attributes.name)


def load_events(folder: str | Path) -> RecData:
    """
    Load `events.parquet` (`user_id, item_id` and `position` or `timestamp`, optionally `split`) and `items.parquet`
    (`item_id`, optionally `title`, ...), with codes from an `*.index.json` (item -> code tokens) beside them.

    Where the events have a position, it gives the order; otherwise the timestamp does, and ties keep the order of the
    file. A published `split` (`train`, `valid`, `test`) is kept.

    Args:
        folder (`str` or `Path`):
            The folder with the files.

    Returns:
        [`RecData`]: interactions `user_id, item_id, position[, timestamp][, split]`; items `item_id, ...
        [, semantic_id]`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A file cannot be read or the data are not sound (see [`validate`]).
    """
    folder = Path(folder)
    events_file, items_file = folder / "events.parquet", folder / "items.parquet"
    events, items = read_parquet(events_file), read_parquet(items_file)
    order = next((name for name in ("position", "timestamp") if name in events.columns), None)
    if order is None or not {"user_id", "item_id"} <= set(events.columns) or "item_id" not in items.columns:
        raise ValueError(
            f"{folder}: events.parquet has the columns {events.columns} and items.parquet {items.columns}; expected "
            "user_id, item_id and position or timestamp in the first, item_id in the second"
        )
    for column in {order, "timestamp"} & set(events.columns):
        _require_numbers(events, column, events_file)
    ids = pl.col("user_id", "item_id").cast(pl.String)
    events = in_user_order(events.with_columns(ids), by=[order])
    if "timestamp" in events.columns:
        events = events.with_columns(pl.col("timestamp").cast(pl.Float64))
    items = items.with_columns(pl.col("item_id").cast(pl.String), pl.col(pl.String).exclude("item_id").fill_null(""))
    index = only_file(folder, "*.index.json")
    if index is not None:
        items = _add_codes(items, index, items_file)
    return _checked(events, items, events_file.name, items_file.name)


def _require(folder: Path, pattern: str) -> Path:
    path = only_file(folder, pattern)
    if path is None:
        raise FileNotFoundError(f"{folder}: no file {pattern}; check the folder, or fetch the file")
    return path


def _require_numbers(frame: pl.DataFrame, column: str, path: Path) -> None:
    if not frame.schema[column].is_numeric():
        raise ValueError(f"{path}: column {column!r} holds {frame.schema[column]}; use numbers")
    wrong = ~frame[column].cast(pl.Float64).is_finite().fill_null(False)
    if wrong.any():
        row = wrong.arg_true()[0]
        raise ValueError(
            f"{path}: row {row} (user {frame['user_id'][row]!r}, item {frame['item_id'][row]!r}): {column} is "
            f"{frame[column][row]} ({wrong.sum()} such row(s)); fill in the value or remove the row"
        )


def _from_lists(raw: dict, path: Path) -> pl.DataFrame:
    sequences = {}
    for user_id, items in raw.items():
        if not isinstance(items, list) or not items:
            raise ValueError(
                f"{path}: user {user_id!r}: expected a list of items, found {items!r}, an empty history; remove the "
                "user or give them their items"
            )
        sequences[user_id] = [id_text(item, f"{path}: user {user_id!r}, position {i}") for i, item in enumerate(items)]
    return _explode(sequences)


def _explode(sequences: dict[str, list[str]]) -> pl.DataFrame:
    schema = {"user_id": pl.String, "item_id": pl.List(pl.String)}
    frame = pl.DataFrame([list(sequences), list(sequences.values())], schema=schema)
    return in_user_order(frame.explode("item_id"), by=[])


def _items_of(interactions: pl.DataFrame) -> pl.DataFrame:
    return interactions.select(pl.col("item_id").unique(maintain_order=True))


def _describe(items: pl.DataFrame, described: Path, index: Path) -> pl.DataFrame:
    text = read_items(described)
    for missing, here, there, what in (
        (text.join(items, on="item_id", how="anti"), described, index, "no code sequence"),
        (items.join(text, on="item_id", how="anti"), index, described, "no description"),
    ):
        if missing.height:
            raise ValueError(
                f"{here}: {missing.height} item(s) have {what} in {there.name}, first "
                f"{', '.join(map(repr, missing['item_id'].head(3)))}; make the two files hold the same items"
            )
    columns = text.columns
    return items.join(text, on="item_id", how="left").select(*columns, "semantic_id")


def _add_codes(items: pl.DataFrame, index: Path, items_file: Path) -> pl.DataFrame:
    codes = read_codes(index)
    unknown = codes.join(items, on="item_id", how="anti")
    if unknown.height:
        raise ValueError(
            f"{index}: {unknown.height} item(s) are not in {items_file.name}, first "
            f"{', '.join(map(repr, unknown['item_id'].head(3)))}; add or remove them"
        )
    return items.join(codes, on="item_id", how="left", maintain_order="left")


def _checked(interactions: pl.DataFrame, items: pl.DataFrame, source: str, items_source: str) -> RecData:
    return validate(RecData(to_dataset(interactions), to_dataset(items)), sources=(source, items_source))


__all__ = ["load_data", "load_events", "load_indexed_json", "load_recbole", "load_sequences"]
