"""The benchmark of factors at toy sizes: what is timed is what its names say, and results are printed."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_factors as recipe  # noqa: E402


TINY_SIZES = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch):
    monkeypatch.setattr(recipe, "SIZES", {**recipe.SIZES, **TINY_SIZES})
    monkeypatch.setattr(recipe, "make_synthetic", partial(recipe.make_synthetic, num_users=40, num_items=100))


@pytest.mark.parametrize(("arguments", "num_rows"), [([], 4), (["--quick"], 2)])
def test_everything_is_timed_and_printed(capsys, arguments, num_rows):
    recipe.main([*arguments, "--repeats=1", "--batch_size=2"])
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert len(results) == num_rows and all(value > 0 for value in results.values())
    assert sum(line.startswith(("| decoding", "| sft")) for line in printed) == num_rows


def test_both_have_the_same_backbone():
    models = [recipe.build_model(name) for name in recipe.REASONERS]
    for ours, other in zip(models[0].model.parameters(), models[1].model.parameters(), strict=True):
        assert torch.equal(ours, other)
    assert [model.config.num_thoughts for model in models] == [1, 1]


def test_a_step_trains(tmp_path):
    processor, splits = recipe.build_processor(None)
    for name, step in recipe.fine_tuning(processor, splits["train"], 2, True, tmp_path).items():
        model = step.args[0].model
        before = [parameter.detach().clone() for parameter in model.reasoner.parameters()]
        step()
        moved = [not torch.equal(p, old) for p, old in zip(model.reasoner.parameters(), before, strict=True)]
        assert all(moved), name
