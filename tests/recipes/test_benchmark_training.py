"""The training benchmark at toy sizes: its batches, the check that stands before a time, and the printed results."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets

from hf_latentrec.data import PackedHistoryCollator, pack_examples, split_leave_one_out


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_epochs as epochs  # noqa: E402
import benchmark_lasar_sft  # noqa: E402
import benchmark_lr_grpo  # noqa: E402
import benchmark_sequential  # noqa: E402
import benchmark_training as recipe  # noqa: E402


TINY = ["--batches=2", "--targets_per_batch=16", "--repeats=1", "--sequential_batches=1"]
TINY_SIZES = {"vocab_size": 1400, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch):
    monkeypatch.setattr(recipe, "SIZES", {**recipe.SIZES, **TINY_SIZES})
    monkeypatch.setattr(recipe, "make_beauty_like", partial(recipe.make_beauty_like, num_users=30))
    monkeypatch.setattr(benchmark_sequential, "ROWS_PER_BATCH", 64)
    monkeypatch.setattr(benchmark_lr_grpo, "SIZES", {**benchmark_lr_grpo.SIZES, **TINY_SIZES})


def test_every_setting_is_checked_timed_and_printed(capsys):
    recipe.main(TINY)
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    names = [f"pack_speedup{mode}{s.suffix}" for s in recipe.SETTINGS.values() for mode in ("", "_thinking")]
    names += ["lasar_sft_speedup"]
    names += [f"{model}_{what}" for model in recipe.SEQUENTIAL for what in ("epoch_speedup", "peak_memory_gb")]
    names += [f"lr_grpo_{what}{form}" for what in ("speedup", "memory_ratio") for form in ("", "_one_phase")]
    assert sorted(results) == sorted(names) and all(value > 0 for value in results.values())
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


def test_a_wrong_lr_grpo_step_ends_the_benchmark(monkeypatch):
    def with_less_noise(model, step):
        return model(step.input_ids, labels=step.labels, thought_noise=step.thought_noise * 0.9).logps

    wrong = partial(benchmark_lr_grpo.train, logps_of=with_less_noise)
    monkeypatch.setitem(benchmark_lr_grpo.WAYS, "repeated", wrong)
    with pytest.raises(SystemExit, match="LR-GRPO: the .* of 'repeated'.* differs by"):
        recipe.main(["--settings", "lr_grpo", "--prompts=2", "--lr_grpo_repeats=1"])


def test_a_wrong_second_stage_ends_the_benchmark(monkeypatch):
    class MisplacedAnchors(benchmark_lasar_sft.AnchoredCollator):
        def __call__(self, examples):
            batch = super().__call__(examples)
            return {**batch, "anchors": batch["anchors"].roll(1, dims=0)}

    monkeypatch.setattr(benchmark_lasar_sft, "AnchoredCollator", MisplacedAnchors)
    with pytest.raises(SystemExit, match="LASAR: the .* differs by"):
        recipe.main([*TINY, "--settings", "lasar_sft"])


def test_batches_hold_the_epoch_once_in_about_equal_parts():
    examples = split_leave_one_out(recipe.make_beauty_like(num_users=60), 20, window_stride=10)["train"]
    epoch = epochs.packed_epoch(examples, 16)
    packed = epoch.batches
    assert sum(len(rows) for rows in packed) == len(pack_examples(examples))
    targets = [sum(len(row) for row in rows["targets"]) for rows in packed]
    items = [sum(len(row) for row in rows["items"]) for rows in packed]
    assert sum(targets) == len(examples) and max(targets) < 16 + 20
    assert epoch.items_per_target.tolist() == pytest.approx([i / t for i, t in zip(items, targets, strict=True)])
    lengths = [len(items) for rows in packed for items in rows["items"]]
    assert lengths == sorted(lengths)
    separate = epochs.separate_epoch(examples, 16)
    assert [len(rows) for rows in separate.batches[:-1]] == [16] * (len(examples) // 16)
    unpacked = epochs.unpack(concatenate_datasets(packed)).to_list()
    assert sorted(map(str, unpacked)) == sorted(map(str, examples.to_list()))


def test_sampled_batches_stand_for_the_epoch():
    epoch = epochs.Epoch(list("abcdef"), np.array([3.0, 1.0, 1.1, 9.0, 1.2, 5.0]))
    assert epochs.sample(epoch, 2) == ["c", "f"]  # of 1.0, 1.1, 1.2 and of 3, 5, 9
    assert sorted(epochs.sample(epoch, 50)) == list("abcdef")


def test_made_histories_have_the_lengths_of_beauty():
    lengths = np.unique(recipe.make_beauty_like(num_users=5000).interactions["user_id"], return_counts=True)[1]
    assert lengths.min() == 5 and lengths.max() > 90
    assert np.percentile(lengths, [50, 75, 95]).tolist() == pytest.approx([6, 9, 21], abs=1)
    assert lengths.mean() == pytest.approx(8.9, abs=0.7)


def test_a_wrong_sequential_loss_ends_the_benchmark(monkeypatch):
    class Shifted(benchmark_sequential.SequenceCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            return {**batch, "position_ids": batch["position_ids"].clamp(min=1)}

    monkeypatch.setattr(benchmark_sequential, "SequenceCollator", Shifted)
    with pytest.raises(SystemExit, match="lares: the loss of packed histories differs by"):
        recipe.main([*TINY, "--settings", "lares"])
