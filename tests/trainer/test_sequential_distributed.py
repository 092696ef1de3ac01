"""Two processes give the losses and gradients of one (gloo, CPU), contrastive ones included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.sequential_job import ALGORITHMS, CONTRASTIVE


ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("sequential_job.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[int, Path]:
    """The folder that each number of processes wrote; one launch runs all algorithms."""
    folders = {}
    for num_processes in (1, 2):
        folders[num_processes] = out = tmp_path_factory.mktemp(f"processes_{num_processes}")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        run = subprocess.run([*command, str(JOB), str(out)], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
    return folders


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(results, num_processes):
    """In the middle of an epoch whose end the processes share, with random numbers of their own."""
    losses = json.loads((results[num_processes] / "resume" / "losses.json").read_text())
    assert len(losses["whole"]) == 6 and losses["resumed"] == losses["whole"]


def test_trials_of_a_search_are_the_same(results):
    pytest.importorskip("optuna")
    alone, together = (json.loads((folder / "search" / "losses.json").read_text()) for folder in results.values())
    assert len(alone) == 2 and alone[0] != alone[1]
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_equal_one(results, algorithm):
    weights, logs = {}, {}
    for num_processes, folder in results.items():
        weights[num_processes] = load_file(folder / algorithm / "moved.safetensors")
        found = json.loads((folder / algorithm / "logs.json").read_text())
        assert found["world_size"] == num_processes and len(found["steps"]) == 2
        logs[num_processes] = found["steps"]
    assert max(moved.abs().max() for moved in weights[1].values()) > 1e-2
    for name, moved in weights[1].items():
        torch.testing.assert_close(weights[2][name], moved, atol=1e-5, rtol=1e-4, msg=name)
    for alone, together in zip(logs[1], logs[2], strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    terms = {"lares": 3, "rearec-erl": 2, "rearec-prl": 3, **dict.fromkeys(CONTRASTIVE, 2)}.get(algorithm, 0)
    assert sum(name.startswith("loss/") for name in logs[1][0]) == terms
