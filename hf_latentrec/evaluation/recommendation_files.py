"""What was recommended to each user, on disk: what coverage, diversity and novelty are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


COLUMNS = ("user_id", "item_ids")


@dataclass(frozen=True)
class Recommendations:
    """
    The first items of each user's ranking.

    Args:
        user_ids (`list[str]`, length U): users in the order of evaluation.
        item_rows (`np.ndarray` of `int64`, shape `[U, K]`): rows of a list of items, best first; -1 where fewer than K
            were recommended.
    """

    user_ids: list[str]
    item_rows: np.ndarray


def save_recommendations(path: str | Path, recommendations: Recommendations, item_ids: Sequence[str]) -> None:
    """
    Writes one parquet row `user_id, item_ids` per user, best item first.

    Args:
        path (`str` or `Path`): file to write; missing parent folders are made.
        recommendations ([`Recommendations`]): of the users.
        item_ids (`Sequence[str]`, length I): the items whose rows they are.

    Raises:
        ValueError: not as many users as rankings, or a row beyond the items.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "recommendations.parquet"
        >>> save_recommendations(path, Recommendations(["u1"], np.array([[1, 0, -1]])), ["a", "b"])
        >>> pq.read_table(path)["item_ids"].to_pylist()
        [['b', 'a']]
    """
    rows_UK = np.asarray(recommendations.item_rows)
    if len(rows_UK) != len(recommendations.user_ids):
        raise ValueError(
            f"save_recommendations: {len(recommendations.user_ids)} user_ids but {len(rows_UK)} rankings; give one "
            "per user"
        )
    if rows_UK.size and rows_UK.max() >= len(item_ids):
        raise ValueError(f"save_recommendations: row {rows_UK.max()} is beyond the {len(item_ids)} items")
    recommended_UK = rows_UK >= 0
    offsets = np.concatenate([[0], recommended_UK.sum(1).cumsum()])
    flat = pa.array(item_ids, pa.string()).take(pa.array(rows_UK[recommended_UK]))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user_id": pa.array(recommendations.user_ids, pa.string()), "item_ids": lists}), path)


def load_recommendations(path: str | Path, item_ids: Sequence[str]) -> Recommendations:
    """
    Reads what [`save_recommendations`] wrote.

    Args:
        path (`str` or `Path`): the parquet file.
        item_ids (`Sequence[str]`, length I): the items whose rows are wanted.

    Returns:
        [`Recommendations`].

    Raises:
        ValueError: the file is no such file, or recommends an item that is not among `item_ids`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "recommendations.parquet"
        >>> save_recommendations(path, Recommendations(["u1"], np.array([[1, 0, -1]])), ["a", "b"])
        >>> load_recommendations(path, ["b", "a"]).item_rows
        array([[0, 1]])
    """
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"load_recommendations: {path} is not a readable parquet file ({error}); write it again"
        ) from error
    if not set(COLUMNS) <= set(table.column_names):
        raise ValueError(
            f"load_recommendations: {path} has columns {table.column_names}; write it with save_recommendations"
        )
    lists = table["item_ids"].combine_chunks()
    flat = pc.list_flatten(lists)
    rows = pc.index_in(flat, pa.array(item_ids, pa.string())).to_numpy(zero_copy_only=False)
    if np.isnan(rows).any():
        unknown = flat[int(np.isnan(rows).argmax())].as_py()
        raise ValueError(
            f"load_recommendations: {path} recommends {unknown!r}, which is not among the {len(item_ids):,} items; "
            "pass the items of the same catalog"
        )
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(lengths.max()) if len(lengths) else 0
    rows_UK = np.full((len(lengths), width), -1, dtype=np.int64)
    rows_UK[np.arange(width) < lengths[:, None]] = rows
    return Recommendations(table["user_id"].to_pylist(), rows_UK)


__all__ = ["Recommendations", "load_recommendations", "save_recommendations"]
