"""Any table -> the columns of [`RawData`], with an error for the first value that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import polars as pl

from .times import to_seconds


IDS = ("user_id", "item_id")
KNOWN = (*IDS, "timestamp", "rating", "position", "split")


def select_interactions(
    table: pl.LazyFrame, source: str, columns: Mapping[str, str] | None = None, time_unit: str = "s"
) -> pl.LazyFrame:
    """
    The columns of interactions, still lazy. The values are checked here, in one streaming pass.

    Args:
        table (`polars.LazyFrame`):
            One row per event.
        source (`str`):
            What errors call the table, e.g. the file.
        columns (`Mapping[str, str]`, *optional*):
            Where other names are used: our name -> the table's, e.g. `{"user_id": "uid", "timestamp": "time"}`. Our
            names are `user_id`, `item_id`, `timestamp`, `rating`, `position` and `split`; one that is not mapped is
            taken under its own name where it is there. Further columns are left out.
        time_unit (`str`, *optional*, defaults to `"s"`):
            Unit of the timestamp, see [`to_seconds`].

    Returns:
        `polars.LazyFrame`: `user_id`, `item_id` (str) and where the table has them `timestamp`, `rating` (float64),
        `position` (int64), `split` (str).

    Raises:
        `ValueError`: A column is not there or of a wrong type, an id is missing, or a value is no number or no time.

    Example:

    ```python
    >>> import polars as pl
    >>> from hf_latentrec.data.sources.column_mapping import select_interactions
    >>> table = pl.LazyFrame({"uid": ["007"], "item_id": [3], "ms": ["1530915000500"]})
    >>> select_interactions(table, "mine", {"user_id": "uid", "timestamp": "ms"}, time_unit="ms").collect().row(0)
    ('007', '3', 1530915000.5)

    ```
    """
    schema = _schema(table, source)
    columns = resolve_columns(columns, schema, source)
    unknown = [name for name in columns if name not in KNOWN]
    if unknown:
        raise ValueError(f"{source}: no interactions column is called {unknown[0]!r}; map {', '.join(KNOWN)}")
    values, wrong = {}, {}
    for name in [name for name in KNOWN if name in columns]:
        dtype, value = schema[columns[name]], pl.col(columns[name])
        if name in IDS:
            values[name] = _id(value, dtype, f"{source}: column {columns[name]!r}")
            wrong[name] = (values[name] == "").fill_null(True)
        elif name == "split":
            values[name] = value.cast(pl.String)
        else:
            unit = time_unit if name == "timestamp" else "s"
            _check_kind(dtype, unit, f"{source}: column {columns[name]!r}")
            number = to_seconds(value, unit)
            wrong[name] = ~number.is_finite().fill_null(False)
            if name == "position":
                wrong[name] |= (number != number.floor()).fill_null(True)
            values[name] = number.cast(pl.Int64, strict=False) if name == "position" else number
    _check_values(table, source, columns, wrong, time_unit)
    return table.select(**values)


def select_items(table: pl.LazyFrame, source: str, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """
    The items of a table, each column as text or list of text; `item_id` comes first.

    Args:
        table (`polars.LazyFrame`):
            One row per item.
        source (`str`):
            What errors call the table, e.g. the file.
        columns (`Mapping[str, str]`, *optional*):
            Our name -> the table's, e.g. `{"item_id": "sku", "title": "name"}`. Columns that are not mapped keep their
            names. Numbers become text as they are written, structs become JSON.

    Returns:
        `polars.DataFrame`: `item_id` (str) and columns of type str or list[str], which may hold nulls.

    Raises:
        `ValueError`: A column is not there, or of a type that cannot be text, or the titles are lists.
    """
    schema = _schema(table, source)
    columns = resolve_columns(columns, schema, source, ("item_id",))
    kept = {name: name for name in schema if name not in columns.values()}
    twice = [name for name in kept if name in columns]
    if twice:
        raise ValueError(
            f"{source}: {columns[twice[0]]!r} is mapped to {twice[0]!r}, but there is a column {twice[0]!r}, too; map "
            f"that one to another name as well, e.g. {{'other_{twice[0]}': {twice[0]!r}}}"
        )
    texts = {"item_id": _id(pl.col(columns["item_id"]), schema[columns["item_id"]], f"{source}: column 'item_id'")}
    for name, theirs in (columns | kept).items():
        if name == "title" and isinstance(schema[theirs], pl.List | pl.Array):
            raise ValueError(
                f"{source}: column {theirs!r} holds {schema[theirs]}, but a title is one text; join its parts, or map "
                "the column to another name"
            )
        if name != "item_id":
            texts[name] = _text(pl.col(theirs), schema[theirs], f"{source}: column {theirs!r}")
    return _collect(table.select(**texts), source)


def _schema(table: pl.LazyFrame, source: str) -> pl.Schema:
    with _readable(source):
        return table.collect_schema()


def _collect(table: pl.LazyFrame, source: str) -> pl.DataFrame:
    """The rows, with an error that names the source where they cannot be read."""
    with _readable(source):
        return table.collect(engine="streaming")


@contextmanager
def _readable(source: str) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        found = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{source}: not readable as a table ({found}); check the separator, the quotes and the encoding (UTF-8), "
            "or fetch the file again where it was cut off"
        ) from error


def resolve_columns(
    columns: Mapping[str, str] | None, there: Iterable[str], source: str, known: Sequence[str] = KNOWN
) -> dict[str, str]:
    """Our name -> the table's, for what is mapped and for the known names among those that are `there`."""
    columns, there = dict(columns or {}), list(there)
    listed = ", ".join(map(repr, there))
    for name, theirs in columns.items():
        if theirs not in there:
            raise ValueError(f"{source}: no column {theirs!r} to be {name!r}; the columns are {listed}")
    taken = {*columns, *columns.values()}
    resolved = columns | {name: name for name in known if name in there and name not in taken}
    for name in [name for name in IDS if name in known]:
        if name not in resolved:
            raise ValueError(f"{source}: no column {name!r}; map the one that holds it, the columns are {listed}")
    return resolved


def _id(value: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    if not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise ValueError(f"{where} holds {dtype}, but ids must be text or whole numbers; write it anew as one of them")
    return value.cast(pl.String)


def _check_kind(dtype: pl.DataType, unit: str, where: str) -> None:
    if unit == "text":
        if not (dtype in (pl.String, pl.Null) or dtype.is_temporal()):
            raise ValueError(f"{where} holds {dtype}, no written times; use the unit 's', 'ms', 'us' or 'ns'")
    elif not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
        remedy = "use the time unit 'text'" if dtype.is_temporal() else "write it anew as numbers"
        raise ValueError(f"{where} holds {dtype}, no numbers; {remedy}")


def _text(value: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    if isinstance(dtype, pl.List | pl.Array):
        if not isinstance(dtype.inner, pl.List | pl.Array):
            return value.cast(pl.List(dtype.inner)).list.eval(_text(pl.element(), dtype.inner, where).fill_null(""))
    elif isinstance(dtype, pl.Struct):
        return value.struct.json_encode()
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise ValueError(f"{where} holds {dtype}, which is no text; leave it out of the file or write it as text")
    return value.cast(pl.String)


def _check_values(
    table: pl.LazyFrame, source: str, columns: Mapping[str, str], wrong: Mapping[str, pl.Expr], time_unit: str
) -> None:
    counts = _collect(table.select(**{name: rows.sum() for name, rows in wrong.items()}), source).row(0, named=True)
    name = next((name for name, count in counts.items() if count), None)
    if name is None:
        return
    rows = table.with_row_index("_row").filter(wrong[name]).head(1)
    row, value = _collect(rows.select("_row", pl.col(columns[name]).alias("_value")), source).row(0)
    meant = f"time (unit {time_unit!r})" if name == "timestamp" else "whole number" if name == "position" else "number"
    found = f"{name} is missing" if name in IDS else f"{name} is {value!r}, no {meant}"
    raise ValueError(
        f"{source}: row {row} (from 0), column {columns[name]!r}: {found} ({counts[name]} such row(s)); correct or "
        "remove the rows"
    )


__all__ = ["resolve_columns", "select_interactions", "select_items"]
