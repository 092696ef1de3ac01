"""Frames -> one parquet file on the disk, which is scanned lazily from then on; a source's lines -> `RawData`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from .item_table import distinct_items
from .line_frames import LineFrames
from .raw_data import RawData


ROWS_PER_GROUP = 500_000


def stage(frames: Iterable[pl.DataFrame], path: str | Path, rows_per_group: int = ROWS_PER_GROUP) -> pl.LazyFrame:
    """
    Write frames to a parquet file, one after the other.

    Args:
        frames (`Iterable[polars.DataFrame]`):
            Frames of one schema, at least one.
        path (`str` or `Path`):
            The file to write; its folder is made where it is not there. A file of that name is overwritten.
        rows_per_group (`int`, *optional*, defaults to 500,000):
            How many rows are gathered before they are written; this bounds the memory.

    Returns:
        `polars.LazyFrame`: A scan of the file.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> import polars as pl
    >>> from hf_latentrec.data.sources.staging import stage
    >>> frames = (pl.DataFrame({"user_id": [user]}) for user in ["u1", "u2"])
    >>> stage(frames, Path(tempfile.mkdtemp()) / "staged.parquet").collect().rows()
    [('u1',), ('u2',)]

    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer, gathered, num_rows = None, [], 0
    try:
        for frame in frames:
            gathered.append(frame)
            num_rows += frame.height
            if num_rows >= rows_per_group:
                writer = _write(gathered, path, writer)
                gathered, num_rows = [], 0
        if gathered:
            writer = _write(gathered, path, writer)
    finally:
        if writer is not None:
            writer.close()
    return pl.scan_parquet(path)


def _write(frames: list[pl.DataFrame], path: Path, writer: pq.ParquetWriter | None) -> pq.ParquetWriter:
    table = pl.concat(frames).to_arrow()
    writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
    writer.write_table(table)
    return writer


def stage_raw(
    name: str,
    interactions: LineFrames,
    items: LineFrames | None,
    *,
    work_dir: str | Path,
    on_conflict: str,
    tidy_items: Callable[[pl.DataFrame], tuple[pl.DataFrame, dict[str, int]]],
) -> RawData:
    """
    Read the lines of a source: the interactions into parquet, the items into memory.

    Args:
        name (`str`):
            The name of the source.
        interactions, items ([`LineFrames`]):
            The lines of either file.
        work_dir (`str` or `Path`):
            The folder for the parquet file.
        on_conflict (`str`):
            See [`distinct_items`].
        tidy_items (`Callable`):
            Item rows as they were read -> those of [`RawData`], and what was changed that should be known, by reason.

    Returns:
        [`RawData`]: What lines of items were left out for stands in `dropped` after `"items: "`.
    """
    files, described, dropped = (interactions.path,), None, {}
    if items is not None:  # first, since they are the shorter file and more can be wrong with them
        rows, changed = tidy_items(pl.concat(items))
        described, repeated = distinct_items(rows, str(items.path), on_conflict)
        dropped = {f"items: {reason}": count for reason, count in items.dropped.items()} | changed | repeated
        files += (items.path,)
    scan = stage(interactions, Path(work_dir) / f"{name}.interactions.parquet")
    scan = scan.select("user_id", "item_id", pl.exclude("user_id", "item_id"))
    return RawData(scan, described, name, files, dict(interactions.dropped) | dropped)


__all__ = ["stage", "stage_raw"]
