"""The trie benchmark at toy sizes: its printed results, and the checks that stand before a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from hf_latentrec import ItemTrie


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_trie  # noqa: E402


TINY = ["--items", "500", "2000", "--dict_items=3000", "--repeats=1", "--num_beams=5", "--vocab_size=1100"]


def test_keys_and_table(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    codes = {str(item): [f"<a_{item % 3}>", f"<b_{item}>", "<c_0>", "<d_1>"] for item in range(20)}
    (tmp_path / "Beauty.index.json").write_text(json.dumps(codes))
    (tmp_path / "Beauty.inter.json").write_text(json.dumps({"0": [1, 2]}))
    benchmark_trie.main([*TINY, f"--data_dir={tmp_path}"])
    lines = capsys.readouterr().out.splitlines()
    results = json.loads(lines[-1])
    assert set(results) == {
        "dict_build_seconds", "dict_bytes_per_item", "dict_search_ms", "build_seconds_500", "build_seconds_2k",
        "search_ms", "bytes_per_item", "bytes_per_item_paths", "step_growth_2k", "step_growth_beside_model_2k",
        "beauty_build_seconds", "beauty_bytes_per_item",
    }  # fmt: skip
    assert all(value > 0 for value in results.values())
    assert results["bytes_per_item_paths"] > results["bytes_per_item"]
    assert any("search_ms" in line and "<= 2.3" in line for line in lines)


def test_bytes_are_those_of_all_tensors():
    trie = ItemTrie.from_sequences(benchmark_trie.random_catalog(1000, 1100))
    arrays = (trie.row_ptr, trie.item_order, trie.leaf_start, trie.child_column, trie.codebook, trie.codebook_ptr)
    padding = 4 + max(trie.max_children)  # of leaf_start and child_column
    assert benchmark_trie.bytes_held(trie) == sum(array.nbytes for array in arrays) + padding


def test_wrong_results_end_the_benchmark():
    catalog, other = benchmark_trie.random_catalog(300, 1100), benchmark_trie.random_catalog(150, 1100)
    trie, root = ItemTrie.from_sequences(other), benchmark_trie.build_dict(catalog)
    with pytest.raises(SystemExit, match="in the dictionary"):
        benchmark_trie.check_children(trie, root, other)
    logits = benchmark_trie.vocabulary_logits(20, 1100)
    with pytest.raises((SystemExit, AssertionError)):
        benchmark_trie.check_search(trie, root, logits, 20)
    benchmark_trie.check_search(ItemTrie.from_sequences(catalog), root, logits, 20)


def test_a_search_that_misses_items_ends_the_benchmark(monkeypatch):
    benchmark_trie.check_against_all_items(1100, num_items=50)
    search = benchmark_trie.search
    monkeypatch.setattr(benchmark_trie, "search", lambda trie, logits, num_beams: search(trie, logits, num_beams - 1))
    with pytest.raises((SystemExit, AssertionError, RuntimeError)):
        benchmark_trie.check_against_all_items(1100, num_items=50)


def test_sizes_have_short_names():
    assert [benchmark_trie.size_name(n) for n in (10_000_000, 10_000, 1_500_000, 123)] == [
        "10m",
        "10k",
        "1500k",
        "123",
    ]
