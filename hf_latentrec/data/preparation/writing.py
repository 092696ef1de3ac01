"""Prepared data on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..splitting import history_rows
from ..validation import SPLITS
from .coding import CodedEvents


BLOCK = 1 << 20  # rows at a time, one row group each
EXAMPLES_BLOCK = 1 << 18  # these are longer
SUMMARY_FILE = "preparation.json"
EXAMPLES = ("train", "validation", "test")
OWN_FILES = {
    *(SUMMARY_FILE, "README.md", "events.parquet", "items.parquet", "examples"),
    *(f"examples/{name}.parquet" for name in EXAMPLES),
}


@contextmanager
def whole_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """
    A folder that is there as a whole or not at all: what is written goes to a folder beside it, which takes its place
    at the end.

    Args:
        folder (`Path`):
            The folder that is wanted.
        overwrite (`bool`):
            Whether an earlier prepared data set there is replaced.

    Raises:
        `ValueError`: There are files that must not be replaced.
    """
    folder = folder.resolve()  # what a link points to is replaced, and "." has a name
    check_replaceable(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.unfinished-", dir=folder.parent) as beside:
        unfinished, replaced = Path(beside, "new"), Path(beside, "old")
        unfinished.mkdir()
        try:
            yield unfinished
            if folder.exists():
                folder.rename(replaced)
            unfinished.rename(folder)
        finally:
            if replaced.exists() and not folder.exists():  # stopped between the two moves
                replaced.rename(folder)


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """A ValueError where the folder holds files that must not be replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise ValueError(f"{folder} is not empty; choose another folder, or pass overwrite")
        if not (folder / SUMMARY_FILE).is_file():
            raise ValueError(f"{folder} holds no {SUMMARY_FILE}, so it is no prepared data set; choose another folder")
        found = (path.relative_to(folder).as_posix() for path in (*folder.iterdir(), *(folder / "examples").glob("*")))
        if others := sorted(set(found) - OWN_FILES):
            raise ValueError(
                f"{folder} holds {', '.join(others[:3])}{', ...' if others[3:] else ''} beside the prepared data, "
                "which overwrite would remove; choose another folder, or move them away (semantic IDs and models made "
                "from the earlier data do not belong to the new)"
            )


def write_events(events: CodedEvents, split_E: np.ndarray, path: Path) -> None:
    """
    Write `user_id, item_id, position[, timestamp], split[, rating]` as parquet, block by block.

    Args:
        events ([`CodedEvents`]):
            The events, in order.
        split_E (`np.ndarray` of shape `[E]`, int8):
            The split of each.
        path (`Path`):
            The file.
    """
    user_ids, item_ids = (_strings(ids) for ids in (events.user_ids, events.item_ids))
    splits, position_E = pa.array(SPLITS), events.positions()
    columns_E = {"timestamp": events.time_E, "split": split_E, "rating": events.rating_E}

    def block(start: int) -> pa.Table:
        rows = slice(start, start + BLOCK)
        columns = {
            "user_id": _ids(user_ids, events.user_E[rows]),
            "item_id": _ids(item_ids, events.item_E[rows]),
            "position": pa.array(position_E[rows]),
        }
        columns |= {name: pa.array(column_E[rows]) for name, column_E in columns_E.items() if column_E is not None}
        return pa.table(columns | {"split": pa.DictionaryArray.from_arrays(columns["split"], splits)})

    _write_blocks(path, map(block, range(0, len(events), BLOCK)), -(-len(events) // BLOCK))


def write_examples(events: CodedEvents, split_E: np.ndarray, path: Path, split: int, max_history: int | None) -> None:
    """
    Write the examples `user_id, history, target` of [`split_published`] for one split as parquet, block by block.

    Args:
        events ([`CodedEvents`]):
            The events, in order.
        split_E (`np.ndarray` of shape `[E]`, int8):
            The split of each.
        path (`Path`):
            The file, in a folder that is there.
        split (`int`):
            0 (train), 1 (valid) or 2 (test).
        max_history (`int`, *optional*):
            Longest history; `None` for whole ones.
    """
    user_ids, item_ids = (_strings(ids) for ids in (events.user_ids, events.item_ids))
    position_E = events.positions()
    target_T = np.flatnonzero((split_E == split) & (position_E > 0))

    def block(start: int) -> pa.Table:
        rows = target_T[start : start + EXAMPLES_BLOCK]
        offsets, history = history_rows(rows, position_E[rows], max_history)
        columns = {
            "user_id": _ids(user_ids, events.user_E[rows]),
            "history": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _ids(item_ids, events.item_E[history])),
            "target": _ids(item_ids, events.item_E[rows]),
        }
        return pa.table(columns)

    starts = range(0, len(target_T), EXAMPLES_BLOCK)
    _write_blocks(path, map(block, starts), len(starts))


def write_prepared(events: CodedEvents, split_E: np.ndarray, folder: Path, examples_max_history: int | None) -> None:
    """
    Write `events.parquet` and, for a given `examples_max_history`, `examples/` with one file for each split: training
    histories of at most so many items, whole ones for validation and test. Two files at a time, so that two of their
    blocks are all that is held.
    """
    longest = dict.fromkeys(EXAMPLES) | {"train": examples_max_history}
    with ThreadPoolExecutor(2) as pool:
        tasks = []
        if examples_max_history is not None:
            (folder / "examples").mkdir()
            for split, name in enumerate(longest):
                path = folder / "examples" / f"{name}.parquet"
                tasks.append(pool.submit(write_examples, events, split_E, path, split, longest[name]))
        tasks.append(pool.submit(write_events, events, split_E, folder / "events.parquet"))
    for task in tasks:
        task.result()


def _write_blocks(path: Path, tables: Iterator[pa.Table], num_blocks: int) -> None:
    """
    One row group for each table. Codes with their dictionary are written as they are, without looking at a string;
    without the arrow schema in the file they are read as strings. Times hardly repeat, so they get no dictionary.
    """
    writer = None
    for table in tqdm(tables, total=num_blocks, desc=f"writing {path.name}", unit="block", leave=False):
        writer = writer or pq.ParquetWriter(
            path,
            table.schema,
            compression="zstd",
            store_schema=False,
            write_statistics=False,
            use_dictionary=[*(n for n in table.column_names if n != "timestamp"), "history.list.element"],
            use_byte_stream_split=[name for name in ("timestamp",) if name in table.column_names],
            dictionary_pagesize_limit=1 << 26,
        )
        writer.write_table(table)
    writer.close()


def _strings(ids: pl.Series) -> pa.Array:
    return ids.to_arrow().cast(pa.large_string())


def _ids(ids: pa.Array, code_E: np.ndarray) -> pa.DictionaryArray:
    """Codes with a dictionary of the ids between them, or of just those that occur where they are far apart."""
    lowest = code_E.min()
    code_E = code_E - lowest
    used = np.arange(code_E.max() + 1)
    if len(used) > len(code_E):
        used, code_E = np.unique(code_E, return_inverse=True)
    found = ids.take(pa.array(used + int(lowest))).cast(pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(code_E.astype(np.int32)), found)


__all__ = ["SUMMARY_FILE", "check_replaceable", "whole_folder", "write_prepared"]
