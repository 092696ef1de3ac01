"""The preparation's benchmark at toy sizes: its printed results, and the check that stands before a ratio."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_data  # noqa: E402


SIZES = ["--interactions", "3000", "--users", "300", "--items", "60"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No process of its own for a moment's work."""
    monkeypatch.setattr(benchmark_data, "in_own_process", benchmark_data.measured)


def test_scale(capsys, tmp_path):
    benchmark_data.main([*SIZES, "--folder", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    results = json.loads(lines[-1])
    assert set(results) == {"rows_read", "rows_kept", "csv_gib", "prepare_seconds", "peak_gib"}
    assert results["rows_read"] == 3000 > results["rows_kept"] > 1000
    assert any("peak_gib" in line and "<= 8" in line for line in lines)
    assert not any(tmp_path.iterdir())


def test_loop(capsys, tmp_path):
    benchmark_data.main([*SIZES, "--loop", "--folder", str(tmp_path)])
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"rows_kept", "loop_seconds", "ours_seconds", "loop_ratio"}
    assert set(results) == keys | {f"raw_{key}" for key in keys}
    for shape in ("", "raw_"):
        assert results[f"{shape}loop_ratio"] == results[f"{shape}loop_seconds"] / results[f"{shape}ours_seconds"]
    assert results["rows_kept"] > 1000 > results["raw_rows_kept"] > 100  # most users have one event


def test_the_raw_shape(tmp_path):
    """What the docstring says of it, at a twentieth of its size, where the core is smaller."""
    rows, users, items = 50_000, benchmark_data.RAW_USERS, benchmark_data.RAW_ITEMS
    benchmark_data.write_csv(tmp_path / "x", rows, int(rows * users), int(rows * items), benchmark_data.RAW_POWERS)
    frame = benchmark_data.read_csv(tmp_path / "x").interactions.collect()
    events_U = frame["user_id"].value_counts()["count"]
    assert 0.5 < len(events_U) / rows < 0.65 and 0.1 < frame["item_id"].n_unique() / rows < 0.13
    assert 0.85 < (events_U <= 2).mean() < 0.95


def test_other_examples_end_the_benchmark(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_data, "MAX_HISTORY", 5)  # of ours
    loop = benchmark_data.loop

    def other_loop(path: Path, folder: Path) -> dict[str, int]:
        monkeypatch.setattr(benchmark_data, "MAX_HISTORY", 6)
        return loop(path, folder)

    monkeypatch.setattr(benchmark_data, "loop", other_loop)
    with pytest.raises(SystemExit, match="examples for train are not those"):
        benchmark_data.main([*SIZES, "--loop", "--folder", str(tmp_path)])


def test_the_csv_is_the_same_for_blocks_of_any_process(monkeypatch, tmp_path):
    for name in ("a", "b"):
        benchmark_data.write_csv(tmp_path / name, 5000, 300, 60)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    monkeypatch.setattr(benchmark_data, "BLOCK", 700)
    benchmark_data.write_csv(tmp_path / "c", 5000, 300, 60)
    frame = benchmark_data.read_csv(tmp_path / "c").interactions.collect()
    assert frame.height == 5000 and frame["item_id"].n_unique() <= 60
    counts = frame["item_id"].value_counts(sort=True)["count"]
    assert counts[0] > 5 * counts[-1] and frame.schema["timestamp"] == pl.Float64


def test_a_process_of_its_own_is_measured(monkeypatch, tmp_path):
    monkeypatch.undo()
    benchmark_data.write_csv(tmp_path / "x.csv", 3000, 300, 60)
    result = benchmark_data.in_own_process(benchmark_data.ours, tmp_path / "x.csv", tmp_path, None)
    assert result["rows_read"] == 3000 and 0.05 < result["peak_gib"] < 8 and result["seconds"] > 0
