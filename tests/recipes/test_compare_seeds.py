"""Runs of several seeds put together."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

from compare_seeds import compare, main  # noqa: E402


SETTING = "length penalty 0, nothing filtered"


def make_run(folder: Path, seed: int, stages: dict[str, float], split: str = "s") -> Path:
    """A run whose stages were completed in the given order."""
    for order, (stage, value) in enumerate(stages.items()):
        (folder / stage).mkdir(parents=True)
        metrics = dict.fromkeys(("HR@5", "NDCG@5", "HR@10", "NDCG@10"), value)
        file = folder / stage / "test_metrics.json"
        file.write_text(json.dumps({SETTING: metrics}))
        os.utime(file, (order, order))
        if stage != "base":
            (folder / stage / "training_args.json").write_text(json.dumps({"seed": seed}))
            fingerprints = {"catalog_fingerprint": "c", "split_fingerprint": split}
            (folder / stage / "processor_config.json").write_text(json.dumps(fingerprints))
    return folder


def test_mean_and_sample_standard_deviation_by_stage(tmp_path, capsys):
    runs = [
        make_run(tmp_path / "1", 1, {"base": 0.01, "sft": 0.1, "lr_grpo": 0.2, "extra": 0.5}),
        make_run(tmp_path / "2", 2, {"base": 0.01, "sft": 0.3, "lr_grpo": 0.2}),
    ]
    main([*map(str, runs), "--metrics", "NDCG@10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Mean ± standard deviation over 2 seeds", "Not in all runs, left out: extra"]
    assert SETTING in lines
    # (0.1 - 0.2)^2 + (0.3 - 0.2)^2 = 0.02, over n - 1 = 1: the square root is 0.1414.
    cells = [line.split() for line in lines[-3:]]
    assert cells == [
        ["base", "0.0100", "±", "0.0000"],
        ["sft", "0.2000", "±", "0.1414"],
        ["lr_grpo", "0.2000", "±", "0.0000"],
    ]
    assert "| sft" in compare(runs, markdown=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"seed": 1, "stages": {"sft": 0.1}}, "both have seed 1"),
        (
            {"seed": 2, "stages": {"sft": 0.1}, "split": "other"},
            "2.sft has split_fingerprint other, but .*1.sft has s;",
        ),
        ({"seed": 2, "stages": {}}, "holds no completed stage"),
    ],
)
def test_runs_that_say_nothing_about_the_spread_are_refused(tmp_path, second, message):
    runs = [make_run(tmp_path / "1", 1, {"sft": 0.1}), make_run(tmp_path / "2", **second)]
    with pytest.raises(ValueError, match=message):
        compare(runs)


def test_one_run_is_not_enough(tmp_path):
    with pytest.raises(ValueError, match="1 run.s. to compare"):
        compare([make_run(tmp_path / "1", 1, {"sft": 0.1})])
