"""Per-user ranks on disk, so that any metric is recomputed, and two runs compared, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from .metrics import check_ranks


OWN_COLUMNS = frozenset({"user_id", "rank", "num_thoughts"})
USER_COLUMN = "user"  # whose an example is, where `user_id` tells several examples of a user apart
_METADATA_KEY = b"hf_latentrec.ranks"


@dataclass(frozen=True)
class RankFile:
    """
    Ranks of one checkpoint under one protocol.

    Args:
        user_ids (`list[str]`, length U):
            Users in the order of evaluation, each once; `u1`, `u1#2` and so on for one with several examples.
        ranks (`np.ndarray` of `int64`, shape `[U]`):
            1-based rank of each user's target, 0 where it is not among the candidates.
        metadata (`dict`):
            How the ranks came about: `split_fingerprint`, `protocol`, `num_beams` and whatever the writer added.
        num_thoughts (`np.ndarray` of `int64`, shape `[U]`, *optional*):
            How many thoughts each user had, where the file tells.
        columns (`dict[str, np.ndarray]`, each of shape `[U]`):
            What else the file tells of each user, for example `target`, `target_popularity`, `history_length`; and
            `user`, whose example it is.
    """

    user_ids: list[str]
    ranks: np.ndarray
    metadata: dict[str, Any]
    num_thoughts: np.ndarray | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def save_ranks(
    path: str | Path,
    user_ids: Sequence[str],
    ranks: ArrayLike,
    *,
    split_fingerprint: str,
    protocol: str,
    num_beams: int | None,
    num_thoughts: ArrayLike | None = None,
    columns: Mapping[str, ArrayLike] | None = None,
    **metadata: Any,
) -> None:
    """
    Write one parquet row `user_id, rank[, num_thoughts, ...]` per user, with the circumstances as JSON in the schema.

    Args:
        path (`str` or `Path`):
            File to write; missing parent folders are made.
        user_ids (`Sequence[str]`, length U):
            Users, each once.
        ranks (`ArrayLike` of `int`, shape `[U]`):
            1-based rank of each user's target, 0 where it is not among the candidates.
        split_fingerprint (`str`):
            Fingerprint of the split. Runs are comparable only where it is the same.
        protocol (`str`):
            What was ranked, for example `"full"` or `"exclude_seen"`.
        num_beams (`int`, or `None`):
            Candidates per user; a target beyond them has rank 0. `None` where every item was ranked.
        num_thoughts (`ArrayLike` of `int`, shape `[U]`, *optional*):
            How many thoughts each user had.
        columns (`Mapping[str, ArrayLike]`, each of shape `[U]`, *optional*):
            What else is known of each user: numbers or text.
        **metadata:
            Anything else that JSON can hold, for example `checkpoint="stage1"`.

    Raises:
        `ValueError`: a user appears twice, the lengths differ, a column has a name of the file's own, or a rank is
            not one.
        `TypeError`: metadata that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "ranks.parquet"
        >>> save_ranks(path, ["u1", "u2"], [3, 0], split_fingerprint="ab12", protocol="full", num_beams=50)
        >>> load_ranks(path).metadata["num_beams"]
        50
    """
    ranks_U = _ranks_of(user_ids, ranks)
    columns = dict(columns or {})
    if own := sorted(OWN_COLUMNS & columns.keys()):
        raise ValueError(f"save_ranks: the column {own[0]!r} is the file's own; give yours another name")
    if num_thoughts is not None:
        columns["num_thoughts"] = np.asarray(num_thoughts, dtype=np.int64)
    for name, column in columns.items():
        if len(column) != len(user_ids):
            raise ValueError(f"save_ranks: {len(user_ids)} user_ids but {len(column)} {name}; give one per user")
    table = pa.table({"user_id": pa.array(user_ids, pa.string()), "rank": ranks_U, **columns})
    _check_users(table["user_id"], where="save_ranks")
    circumstances = {"split_fingerprint": split_fingerprint, "protocol": protocol, "num_beams": num_beams, **metadata}
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(circumstances, sort_keys=True)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def load_ranks(path: str | Path) -> RankFile:
    """
    Read what [`save_ranks`] wrote.

    Args:
        path (`str` or `Path`):
            The parquet file.

    Returns:
        [`RankFile`].

    Raises:
        `ValueError`: the file is not a rank file, a user appears twice, or a rank is not one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "ranks.parquet"
        >>> save_ranks(path, ["u1", "u2"], [3, 0], split_fingerprint="ab12", protocol="full", num_beams=50)
        >>> load_ranks(path).ranks
        array([3, 0])
    """
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"load_ranks: {path} is not a readable parquet file ({error}); write it again") from error
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    if metadata is None or not {"user_id", "rank"} <= set(table.column_names):
        raise ValueError(
            f"load_ranks: {path} is not a rank file (columns {table.column_names}); write it with save_ranks"
        )
    _check_users(table["user_id"], where=f"load_ranks: {path}")
    num_thoughts = table["num_thoughts"].to_numpy() if "num_thoughts" in table.column_names else None
    ranks = check_ranks(table["rank"].to_numpy())
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in OWN_COLUMNS}
    return RankFile(table["user_id"].to_pylist(), ranks, json.loads(metadata), num_thoughts, columns)


def _ranks_of(user_ids: Sequence[str], ranks: ArrayLike) -> np.ndarray:
    ranks_U = check_ranks(ranks)
    if len(user_ids) != len(ranks_U):
        raise ValueError(f"save_ranks: {len(user_ids)} user_ids but {len(ranks_U)} ranks; give one rank per user")
    return ranks_U


def _check_users(users: pa.ChunkedArray, where: str) -> None:
    if users.null_count > 0:
        row = users.is_null().index(True).as_py()
        raise ValueError(f"{where}: user_id is missing in row {row}; every rank belongs to a user")
    counts = pc.value_counts(users)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice) > 0:
        user_id = twice[0]["values"].as_py()
        rows = np.flatnonzero(pc.equal(users, user_id).to_numpy())[:2].tolist()
        raise ValueError(
            f"{where}: user_id {user_id!r} appears {twice[0]['counts'].as_py()} times (rows {rows[0]}, {rows[1]}); "
            "a rank file holds each user once"
        )


__all__ = ["RankFile", "load_ranks", "save_ranks"]
