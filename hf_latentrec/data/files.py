"""Reading files with errors that name the file, the line and the value."""

from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a file (a byte-order mark is dropped, line ends become `\\n`)."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the folder and the name")
    raw = path.read_bytes()
    if not raw.strip():
        raise ValueError(f"{path}: the file is empty ({len(raw)} bytes); fetch or write it again")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        found = raw[error.start : error.start + 4]
        raise ValueError(
            f"{path}: line {line}: byte {error.start} is not UTF-8 ({found!r}); save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n")


def read_json(path: str | Path) -> dict:
    """A JSON object; unlike `json.load`, a key that appears twice is an error."""
    path = Path(path)
    text = read_text(path)

    def unique(pairs: list[tuple]) -> dict:
        seen: dict = {}
        for key, value in pairs:
            if key in seen:
                raise ValueError(
                    f"{path}: key {key!r} appears more than once ({seen[key]!r} and {value!r}); keep one entry per key"
                )
            seen[key] = value
        return seen

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}, {len(text)} "
            "characters in the file); if it was cut off, fetch it again"
        ) from error
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path}: expected a JSON object with entries, found {str(value)[:80]!r}; check the file")
    return value


def read_parquet(path: str | Path) -> pl.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the folder and the name")
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error}); fetch or write it again") from error


def read_atomic(path: str | Path) -> pl.DataFrame:
    """
    A RecBole atomic file: tab-separated, with a header of `name:type`.

    Columns of type `float` become float64, all others (`token`, `token_seq`, `float_seq`) stay text, as it stands in
    the file. A column `_line` holds the line number.
    """
    path = Path(path)
    lines = read_text(path).removesuffix("\n").split("\n")
    header = lines[0].split("\t")
    fields = dict(field.rsplit(":", 1) if ":" in field else (field, "") for field in header)
    unknown = [name for name, kind in fields.items() if kind not in ("token", "token_seq", "float", "float_seq")]
    if unknown or len(fields) != len(header):
        raise ValueError(
            f"{path}: line 1: the header {lines[0][:200]!r} is not one of an atomic file; expected different fields "
            "name:type separated by tabs, with the types token, token_seq, float, float_seq"
        )
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: line {number}: expected {len(header)} fields separated by tabs ({', '.join(header)}), found "
                f"{len(row)} in {lines[number - 1][:200]!r}; correct or remove the line"
            )
    if not rows:
        raise ValueError(f"{path}: nothing follows the header {lines[0][:200]!r}; fetch or write the file again")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(fields, pl.String), orient="row")
    frame = frame.with_columns(_line=pl.int_range(2, pl.len() + 2))
    for name, kind in fields.items():
        if kind == "float":
            frame = _parse_floats(frame, name, path)
    return frame


def _parse_floats(frame: pl.DataFrame, name: str, path: Path) -> pl.DataFrame:
    numbers = frame[name].cast(pl.Float64, strict=False)
    wrong = frame.filter(~numbers.is_finite().fill_null(False))
    if wrong.height:
        raise ValueError(
            f"{path}: line {wrong['_line'][0]}: {name} is {wrong[name][0]!r}, not a finite number ({wrong.height} "
            "such line(s)); fill in the value or remove the line"
        )
    return frame.with_columns(numbers)


def read_codes(path: str | Path) -> pl.DataFrame:
    """`X.index.json`: item -> list of code tokens, as `item_id, semantic_id` in the order of the file."""
    codes = read_json(path)
    for item_id, tokens in codes.items():
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(
                f"{path}: item {item_id!r}: expected a list of code tokens like ['<a_1>', '<b_2>'], found {tokens!r}; "
                "correct the entry"
            )
    schema = {"item_id": pl.String, "semantic_id": pl.List(pl.String)}
    return pl.DataFrame([list(codes), list(codes.values())], schema=schema)


def only_file(folder: Path, pattern: str) -> Path | None:
    """The file that matches, `None` where none does, an error where several do."""
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: several files match {pattern} ({names}); keep one data set per folder")
    return found[0] if found else None


def id_text(value: object, where: str) -> str:
    """An id of a JSON file (text or a whole number) as text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        kind = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
        raise ValueError(f"{where}: {kind} is not an item id; use text or whole numbers")
    return str(value)


__all__ = ["id_text", "only_file", "read_atomic", "read_codes", "read_json", "read_parquet", "read_text"]
