"""RecBole atomic files: raw ratings, and ready splits of (user, history, target) rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .files import only_file, read_atomic
from .schema import RecData, in_user_order, to_dataset
from .validation import SPLITS, validate


def load_recbole(folder: str | Path) -> RecData:
    """
    Load RecBole atomic files.

    Either `X.inter` with raw interactions (`user_id, item_id, timestamp` and what else there is, such as `rating`),
    or `X.train.inter`, `X.valid.inter`, `X.test.inter` with ready examples (`user_id, item_id_list, item_id`). From
    examples each user's full sequence is rebuilt, also where histories were cut to their newest items, and `split`
    tells for which split each event is the target (the first event and those that are in histories only: `train`).
    `X.item`, where it is there, is the list of the items; a column like `movie_title` becomes `title`.

    Args:
        folder (`str` or `Path`):
            The folder with the files; `X` is any name.

    Returns:
        [`RecData`]: interactions `user_id, item_id, position[, timestamp][, split], ...`; items `item_id, ...`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A line is malformed, the rows of a user contradict each other, or the data are not sound (see
            [`validate`]).
    """
    folder = Path(folder)
    split_files = {split: only_file(folder, f"*.{split}.inter") for split in SPLITS}
    present = [path for path in split_files.values() if path]
    raw = sorted(set(folder.glob("*.inter")) - set(present))
    if raw and present:
        raise ValueError(f"{folder}: both {raw[0].name} and {present[0].name} are there; keep one of the two")
    if present:
        missing = [split for split, path in split_files.items() if path is None]
        if missing:
            raise FileNotFoundError(f"{folder}: no *.{missing[0]}.inter beside {present[0].name}; fetch the file")
        interactions = _from_splits(split_files)
    elif len(raw) == 1:
        interactions = _from_ratings(raw[0])
    else:
        found = ", ".join(path.name for path in raw) or "none"
        raise FileNotFoundError(f"{folder}: expected one X.inter or X.{{train,valid,test}}.inter, found {found}")
    described = only_file(folder, "*.item")
    items = read_items(described) if described else interactions.select(pl.col("item_id").unique(maintain_order=True))
    source = (raw or present)[0].name
    data = RecData(to_dataset(interactions), to_dataset(items))
    return validate(data, sources=(source, described.name if described else source))


def read_items(path: Path) -> pl.DataFrame:
    """`X.item` with `item_id` first and the only column that ends in `title` named `title`; missing text is ''."""
    items = read_atomic(path).drop("_line")
    if "item_id" not in items.columns:
        raise ValueError(f"{path}: line 1: no field item_id, only {items.columns}; add or rename it")
    titles = [name for name in items.columns if name.endswith("title")]
    if len(titles) == 1:
        items = items.rename({titles[0]: "title"})
    return items.select("item_id", pl.exclude("item_id"))


def _from_ratings(path: Path) -> pl.DataFrame:
    frame = read_atomic(path)
    _require(frame, ("user_id", "item_id", "timestamp"), path)
    if frame.schema["timestamp"] != pl.Float64:
        raise ValueError(f"{path}: line 1: timestamp is not of type float; write timestamp:float in the header")
    return in_user_order(frame.drop("_line"), by=["timestamp"])


def _from_splits(paths: dict[str, Path]) -> pl.DataFrame:
    frames = []
    for split, path in paths.items():
        frame = read_atomic(path)
        _require(frame, ("user_id", "item_id_list", "item_id"), path)
        empty = frame.filter(pl.col("item_id_list").str.strip_chars() == "")
        if empty.height:
            raise ValueError(
                f"{path}: line {empty['_line'][0]}: user {empty['user_id'][0]!r} has an empty history before target "
                f"{empty['item_id'][0]!r} ({empty.height} such line(s)); remove the line"
            )
        history = pl.col("item_id_list").str.split(" ")
        frames.append(frame.select("user_id", "item_id", "_line", history=history, split=pl.lit(split)))
    rows = pl.concat(frames).with_columns(length=pl.col("history").list.len())
    longest = rows["length"].max()
    by_user = rows.sort("length", maintain_order=True).partition_by("user_id", as_dict=True, maintain_order=True)
    users = rows["user_id"].unique(maintain_order=True)
    events = [_rebuild(by_user[(user,)].rows(named=True), longest, paths) for user in users]
    frame = pl.DataFrame({"user_id": users, "item_id": [e[0] for e in events], "split": [e[1] for e in events]})
    return in_user_order(frame.explode("item_id", "split"), by=[])


def _rebuild(rows: list[dict], longest: int, paths: dict[str, Path]) -> tuple[list[str], list[str]]:
    """
    One user's sequence and the split of each event, from rows sorted by the length of their history.

    A history shorter than `longest`, the length at which the publisher cut, starts at the first event, so its length
    is the position of its target. The others are chained: the next one is the newest `longest` items so far.
    """
    sequence = list(rows[0]["history"])
    splits = ["train"] * len(sequence)
    cut = {}
    for row in rows:
        if row["length"] == longest and tuple(row["history"]) in cut:
            raise _contradiction(row, paths)
        if row["length"] == longest:
            cut[tuple(row["history"])] = row
            continue
        known = len(sequence)
        if row["history"][:known] != sequence or (known > row["length"]):
            raise _contradiction(row, paths)
        sequence += [*row["history"][known:], row["item_id"]]
        splits += ["train"] * (row["length"] - known) + [row["split"]]
    if cut and len(sequence) < longest:  # events that are no targets, between the short histories and the cut ones
        first = min(cut.values(), key=lambda row: SPLITS.index(row["split"]))
        if first["history"][: len(sequence)] != sequence:
            raise _contradiction(first, paths)
        splits += ["train"] * (longest - len(sequence))
        sequence = list(first["history"])
    while cut:
        row = cut.pop(tuple(sequence[-longest:]), None)
        if row is None:
            raise _contradiction(next(iter(cut.values())), paths)
        sequence.append(row["item_id"])
        splits.append(row["split"])
    return sequence, splits


def _contradiction(row: dict, paths: dict[str, Path]) -> ValueError:
    return ValueError(
        f"{paths[row['split']]}: line {row['_line']}: user {row['user_id']!r}: the history of target "
        f"{row['item_id']!r} ({row['length']} items) does not continue this user's other rows; each row's history "
        "must be what comes before its target, once per target"
    )


def _require(frame: pl.DataFrame, names: tuple[str, ...], path: Path) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        found = [name for name in frame.columns if name != "_line"]
        raise ValueError(f"{path}: line 1: no field {missing[0]!r}, only {found}; expected {', '.join(names)}")


__all__ = ["load_recbole", "read_items"]
