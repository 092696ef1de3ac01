"""Own tables: CSV, TSV and Parquet, with a mapping of their columns."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from .column_mapping import select_interactions, select_items
from .item_table import distinct_items
from .raw_data import RawData


Paths = str | Path | Sequence[str | Path]

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_table(
    interactions: Paths,
    items: Paths | None = None,
    *,
    work_dir: str | Path,
    columns: Mapping[str, str] | None = None,
    item_columns: Mapping[str, str] | None = None,
    time_unit: str = "s",
    separator: str | None = None,
    has_header: bool = True,
    quote: str | None = '"',
    on_conflict: str = "error",
) -> RawData:
    """
    Read interactions and items from CSV, TSV (both gzipped or not) or Parquet files.

    Args:
        interactions (`str`, `Path` or a sequence of them):
            One file, several in the order in which to read them, or a glob (`"parts/*.parquet"`, sorted by name).
        items (`str`, `Path` or a sequence of them, *optional*):
            The same for the items.
        work_dir (`str` or `Path`):
            As in all readers; tables are scanned where they lie, so nothing is written there.
        columns (`Mapping[str, str]`, *optional*):
            Our name -> the file's for the interactions, see [`select_interactions`]. In a file without a header the
            columns are called `column_0`, `column_1`, ...
        item_columns (`Mapping[str, str]`, *optional*):
            The same for the items, e.g. `{"item_id": "sku", "title": "name"}`. Further columns are kept as text.
        time_unit (`str`, *optional*, defaults to `"s"`):
            `"s"`, `"ms"`, `"us"`, `"ns"`, or `"text"` for written times and columns of dates.
        separator (`str`, *optional*):
            One character. By default `,` for `.csv` and a tab for `.tsv`; needed for other endings.
        has_header (`bool`, *optional*, defaults to `True`):
            Whether the first line of CSV and TSV files names the columns.
        quote (`str`, *optional*, defaults to `'"'`):
            The character around values that hold separators; `None` where quotes are plain text, as in many TSV files.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            For item rows with one id and different text, see [`distinct_items`].

    Returns:
        [`RawData`]: ids as they stand in the file (`"007"` stays), named after the first file.

    Raises:
        `FileNotFoundError`: A file is missing, or nothing matches the glob.
        `ValueError`: A file cannot be read, or see [`select_interactions`], [`select_items`], [`distinct_items`].
    """
    files = find_files(interactions)
    options = {"separator": separator, "has_header": has_header, "quote": quote}
    events = [select_interactions(scan(file, **options), str(file), columns, time_unit) for file in files]
    _check_same_columns(files, [frame.collect_schema().names() for frame in events])
    events = pl.concat(events)
    if events.head(1).collect().is_empty():
        raise ValueError(f"{files[0]}: no rows in {len(files)} file(s); write or fetch them again")
    described, dropped, item_files = None, {}, ()
    if items is not None:
        item_files = find_files(items)
        parts = [select_items(scan(file, **options), str(file), item_columns) for file in item_files]
        _check_same_columns(item_files, [part.columns for part in parts])
        described, dropped = distinct_items(pl.concat(parts), str(item_files[0]), on_conflict)
    return RawData(events, described, files[0].name, (*files, *item_files), dropped)


def find_files(paths: Paths) -> tuple[Path, ...]:
    """The files of a path, of several, or of a glob."""
    if isinstance(paths, (str, Path)):
        matches = sorted(glob.glob(str(paths))) if glob.has_magic(str(paths)) and not Path(paths).exists() else [paths]
        if not matches:
            raise FileNotFoundError(f"{paths}: no file matches; check the folder and the pattern")
        paths = matches
    files = tuple(Path(path) for path in paths)
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file}: a folder, not a file; name its files, e.g. '{file}/*.parquet'")
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; check the folder and the name")
    if not files:
        raise ValueError("no files were named; give at least one")
    return files


def scan(
    file: Path, *, separator: str | None = None, has_header: bool = True, quote: str | None = '"'
) -> pl.LazyFrame:
    """One file in its order, lazily; all columns of a text file are text."""
    ending = Path(file.name.lower().removesuffix(".gz")).suffix
    if ending in (".parquet", ".pq"):
        return pl.scan_parquet(file)
    separator = separator or SEPARATORS.get(ending)
    if separator is None:
        raise ValueError(f"{file}: unknown ending {ending!r}; use .csv, .tsv or .parquet, or name the separator")
    if len(separator.encode()) != 1 or (quote is not None and len(quote.encode()) != 1):
        raise ValueError(f"{file}: separator {separator!r} and quote {quote!r} must be single ASCII characters")
    return pl.scan_csv(file, separator=separator, has_header=has_header, quote_char=quote, infer_schema=False)


def _check_same_columns(files: Sequence[Path], columns: Sequence[list[str]]) -> None:
    for file, names in zip(files, columns, strict=True):
        if names != columns[0]:
            raise ValueError(
                f"{file}: the columns {names} differ from those of {files[0]}, {columns[0]}; make them equal"
            )


__all__ = ["find_files", "read_table", "scan"]
