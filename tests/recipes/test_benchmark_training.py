"""The training benchmark at toy sizes: its batches, the check that stands before a time, and the printed results."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hf_latentrec.data import PackedHistoryCollator, pack_examples, split_leave_one_out


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_training as recipe  # noqa: E402


TINY = ["--batches=2", "--targets_per_batch=16", "--repeats=1"]
TINY_SIZES = {"vocab_size": 1400, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch):
    monkeypatch.setattr(recipe, "SIZES", {**recipe.SIZES, **TINY_SIZES})
    monkeypatch.setattr(recipe, "make_beauty_like", partial(recipe.make_beauty_like, num_users=30))


def test_every_setting_is_checked_timed_and_printed(capsys):
    recipe.main(TINY)
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    names = [f"pack_speedup{mode}{s.suffix}" for s in recipe.SETTINGS.values() for mode in ("", "_thinking")]
    assert list(results) == names and all(value > 0 for value in results.values())
    assert sum(line.startswith(("| stride", "| whole", "| vocabulary")) for line in printed) == 8


def test_a_wrong_loss_ends_the_benchmark(monkeypatch):
    class Shifted(PackedHistoryCollator):
        def __call__(self, examples):
            batch = super().__call__(examples)
            batch["branch_starts"][0, 0] -= 1
            return batch

    monkeypatch.setattr(recipe, "PackedHistoryCollator", Shifted)
    with pytest.raises(SystemExit, match="packed, the loss differs by"):
        recipe.main([*TINY, "--settings", "stride10"])


def test_batches_hold_the_epoch_once_in_about_equal_parts():
    examples = split_leave_one_out(recipe.make_beauty_like(num_users=60), 20, window_stride=10)["train"]
    packed = recipe.packed_batches(examples, 16)
    assert sum(len(rows) for rows in packed) == len(pack_examples(examples))
    targets = [sum(len(row) for row in rows["targets"]) for rows in packed]
    assert sum(targets) == len(examples) and max(targets) < 16 + 20
    lengths = [len(items) for rows in packed for items in rows["items"]]
    assert lengths == sorted(lengths)
    separate = recipe.separate_batches(examples, 16)
    assert [len(rows) for rows in separate[:-1]] == [16] * (len(examples) // 16)
    unpacked = recipe.unpack(recipe.concatenate_datasets(packed)).to_list()
    assert sorted(map(str, unpacked)) == sorted(map(str, examples.to_list()))


def test_batches_are_taken_from_all_over_the_epoch():
    assert recipe.spread(list(range(100)), 4) == [12, 37, 62, 87]
    assert recipe.spread([5, 6], 4) == [5, 6]


def test_made_histories_have_the_lengths_of_beauty():
    lengths = np.unique(recipe.make_beauty_like(num_users=5000).interactions["user_id"], return_counts=True)[1]
    assert lengths.min() == 5 and lengths.max() > 90
    assert np.percentile(lengths, [50, 75, 95]).tolist() == pytest.approx([6, 9, 21], abs=1)
    assert lengths.mean() == pytest.approx(8.9, abs=0.7)
