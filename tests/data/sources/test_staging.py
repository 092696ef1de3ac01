"""Frames into parquet."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from hf_latentrec.data.sources.staging import stage


@pytest.mark.parametrize(("rows_per_group", "groups"), [(1, 5), (4, 3), (100, 1)])
def test_rows_keep_their_order_whatever_is_gathered(tmp_path: Path, rows_per_group: int, groups: int) -> None:
    sizes = [3, 2, 1, 5, 1]
    whole = pl.DataFrame({"user_id": [f"u{row}é" for row in range(12)], "time": [row / 4 for row in range(12)]})
    starts = [sum(sizes[:part]) for part in range(len(sizes))]
    frames = (whole.slice(start, size) for start, size in zip(starts, sizes, strict=True))
    path = tmp_path / "new" / "staged.parquet"
    scan = stage(frames, path, rows_per_group)
    assert scan.collect().equals(whole)
    assert pq.ParquetFile(path).num_row_groups == groups


def test_what_was_staged_before_is_replaced(tmp_path: Path) -> None:
    for value in (1, 2):
        scan = stage([pl.DataFrame({"x": [value]})], tmp_path / "staged.parquet")
    assert scan.collect().rows() == [(2,)]


def test_lists_and_no_rows(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": []}, schema={"x": pl.List(pl.String)})
    assert stage([frame], tmp_path / "staged.parquet").collect().schema == frame.schema


def test_a_reader_that_fails_closes_the_file(tmp_path: Path) -> None:
    def frames():
        yield pl.DataFrame({"x": [1]})
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        stage(frames(), tmp_path / "staged.parquet", rows_per_group=1)
    assert stage([pl.DataFrame({"x": [3]})], tmp_path / "staged.parquet").collect().rows() == [(3,)]
