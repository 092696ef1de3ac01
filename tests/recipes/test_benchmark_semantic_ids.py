"""The benchmark of semantic IDs at a toy size: its printed results, and its check of a second run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_semantic_ids  # noqa: E402


TINY = ["--items=600", "--dimension=8", "--levels=2", "--codebook_size=32"]


def test_keys_and_table(capsys, monkeypatch, tmp_path):
    # A process of its own costs seconds of imports; what it runs is the same.
    monkeypatch.setattr(benchmark_semantic_ids, "measure_apart", benchmark_semantic_ids.measure)
    benchmark_semantic_ids.main([*TINY, "--check", f"--work_dir={tmp_path}"])
    lines = capsys.readouterr().out.splitlines()
    results = json.loads(lines[-1])
    assert set(results) == {
        "fit_seconds", "encode_seconds", "extra_level_seconds", "nearest_free_seconds", "share_seconds", "colliding",
        "error_1", "error_2", "peak_gb", "same_codes",
    }  # fmt: skip
    assert results["same_codes"] is True
    assert 0 < results["colliding"] < 1
    assert 1 > results["error_1"] > results["error_2"] > 0
    assert any("peak_gb" in line and "<= 8" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_other_codes_in_the_second_run_end_the_benchmark(capsys, monkeypatch):
    runs = iter([{"fit_seconds": 1.0, "checksum": 1}, {"fit_seconds": 1.0, "checksum": 2}])
    monkeypatch.setattr(benchmark_semantic_ids, "measure_apart", lambda *_: next(runs))
    with pytest.raises(SystemExit, match="the second run gave other codes"):
        benchmark_semantic_ids.main([*TINY, "--check"])
    assert any("same_codes" in line and " no " in line for line in capsys.readouterr().out.splitlines())


def test_embeddings_in_pieces(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_semantic_ids, "PIECE", 100)
    benchmark_semantic_ids.write_embeddings(tmp_path / "a.npy", 250, 16, seed=1)
    benchmark_semantic_ids.write_embeddings(tmp_path / "b.npy", 250, 16, seed=1)
    embeddings = np.load(tmp_path / "a.npy")
    assert embeddings.shape == (250, 16)
    assert (embeddings == np.load(tmp_path / "b.npy")).all()
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_peak_memory_is_more_than_a_large_array():
    before = benchmark_semantic_ids.peak_bytes()
    held = np.ones(60_000_000, dtype=np.uint8)
    assert benchmark_semantic_ids.peak_bytes() >= max(before, len(held))
