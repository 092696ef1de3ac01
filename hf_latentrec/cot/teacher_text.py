"""The teacher's reasoning as a table `user_id, target, cot`, one row per training example."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..data.files import id_text
from ..data.schema import to_dataset, to_polars
from .jsonl import read_rows


if TYPE_CHECKING:
    from datasets import Dataset


logger = logging.getLogger(__name__)

KEY = ["user_id", "target"]
_SCHEMA = {"user_id": pl.String, "target": pl.String, "cot": pl.String, "_line": pl.Int64}


def read_teacher_text(path: str | Path) -> Dataset:
    """
    Reads and checks teacher text, whoever wrote it.

    Args:
        path (`str` or `Path`): JSON Lines with `user_id` (text or a whole number), `cot` (text, not empty) and, where
            known, `target`: the item id of the example. Text without a target serves all examples of its user that
            have none of their own. Other columns are ignored.

    Returns:
        `datasets.Dataset`: `user_id` (str), `target` (str or None) and `cot` (str), in the order of the file.

    Raises:
        ValueError: a line is no JSON object, a column is missing or of another type, a text is empty, or two rows are
            for the same example; with the number of the line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "cot.jsonl"
        >>> _ = path.write_text('{"user_id": "u1", "target": "i7", "cot": "Likes lamps. Buys a lamp next."}')
        >>> read_teacher_text(path)[0]
        {'user_id': 'u1', 'target': 'i7', 'cot': 'Likes lamps. Buys a lamp next.'}
    """
    rows = [(*_checked(row, f"{path}: line {number}"), number) for number, row in read_rows(path)]
    if not rows:
        raise ValueError(f"{path}: there is no row in it; write teacher text with recipes/build_cot.py")
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    empty = frame.filter(pl.col("cot").str.strip_chars() == "")
    if empty.height:
        raise ValueError(
            f"{path}: line {empty['_line'][0]}: user {empty['user_id'][0]!r} has an empty cot ({empty.height} such "
            "row(s)); write the text or remove the rows"
        )
    twice = frame.filter(pl.struct(KEY).is_duplicated())
    if twice.height:
        user_id, target = twice.row(0)[:2]
        lines = twice.filter(pl.col("user_id") == user_id, pl.col("target").eq_missing(target))["_line"]
        raise ValueError(
            f"{path}: user {user_id!r} with target {target!r} has {len(lines)} texts (lines "
            f"{', '.join(map(str, lines.head(5)))}; {twice.height} such row(s)); keep one per example"
        )
    return to_dataset(frame.drop("_line"))


def match_examples(cot: Dataset, examples: Dataset) -> dict[str, int]:
    """
    How teacher text and training examples fit each other.

    Args:
        cot (`datasets.Dataset`): `user_id, target, cot`, as from [`read_teacher_text`].
        examples (`datasets.Dataset`): `user_id, target` of the training split.

    Returns:
        `dict[str, int]`: `examples`, those `with_cot` and `without_cot`; rows of the text of `unknown_users`, and of
        known users but `unknown_targets`. What is unknown is never looked up.
    """
    text, wanted = (to_polars(table).select(pl.col(KEY).cast(pl.String)) for table in (cot, examples))
    general = text.filter(pl.col("target").is_null()).select("user_id").unique()
    own = wanted.join(text.drop_nulls().unique(), on=KEY, how="semi").height
    by_user = (
        wanted.join(text.drop_nulls().unique(), on=KEY, how="anti").join(general, on="user_id", how="semi").height
    )
    known = text.join(wanted, on="user_id", how="semi")
    return {
        "examples": wanted.height,
        "with_cot": own + by_user,
        "without_cot": wanted.height - own - by_user,
        "unknown_users": text.height - known.height,
        "unknown_targets": known.drop_nulls().join(wanted, on=KEY, how="anti").height,
    }


def _checked(row: dict[str, Any], where: str) -> tuple[str, str | None, str]:
    if "user_id" not in row or "cot" not in row:
        raise ValueError(
            f"{where}: expected user_id, cot and where known target, found {list(row)}; add what is missing"
        )
    if not isinstance(row["cot"], str):
        raise ValueError(f"{where}: cot is {row['cot']!r}, not text; correct the line")
    target = row.get("target")
    return id_text(row["user_id"], where), None if target is None else id_text(target, where), row["cot"]


__all__ = ["match_examples", "read_teacher_text"]
