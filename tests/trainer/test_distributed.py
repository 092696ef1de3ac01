"""Two processes give the loss, the gradient and the ranks of one (gloo, CPU)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("distributed_job.py")


ALGORITHMS = [
    "sft", "evaluated_sft", "grpo", "lasar_sft", "lasar_grpo", "lr_grpo_batch", "lr_grpo_group", "flr_sft", "flr_grpo",
]  # fmt: skip


def run_job(num_processes: int, out: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        [*command, str(JOB), str(out), *ALGORITHMS], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one process (`1`) and two (`2`) made, in one job each: a job imports for longer than it trains."""
    folder = tmp_path_factory.mktemp("distributed")
    with ThreadPoolExecutor() as both:
        jobs = [both.submit(run_job, number, folder / str(number)) for number in (1, 2)]
    for job in jobs:
        job.result()
    return folder


def outcome(folder: Path, num_processes: int, algorithm: str) -> tuple[dict, dict]:
    out = folder / str(num_processes) / algorithm
    logs = json.loads((out / "logs.json").read_text())
    assert logs.pop("world_size") == num_processes
    return load_file(out / "moved.safetensors"), logs


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_equal_one(folder, algorithm):
    (alone, alone_logs), (together, together_logs) = (outcome(folder, number, algorithm) for number in (1, 2))
    assert max(moved.abs().max() for moved in alone.values()) > 1e-3
    if algorithm == "flr_grpo":
        assert all((moved != 0).any() == name.startswith("reasoner.") for name, moved in alone.items())
        assert alone_logs["kl"] > 1e-5 and alone["reasoner.loss_log_variances"].abs().min() > 1e-3
    if algorithm == "lasar_sft":
        assert 0 < alone_logs["cot/missing"] < 1 and 1 < alone_logs["depth/mean"] < 3
    if algorithm == "lasar_grpo":
        assert alone_logs["reward_baseline"] > 0 and 0 < alone_logs["frac_repaired"] < 1
        assert 0 < alone_logs["cot/missing"] < 1 and sum(alone_logs[f"depth/share_{n}"] > 0 for n in (1, 2, 3)) > 1
    if algorithm in ("flr_sft", "lasar_sft", "lasar_grpo"):
        assert all((moved != 0).any() for moved in alone.values())
    for name, moved in alone.items():
        torch.testing.assert_close(together[name], moved, atol=1e-5, rtol=1e-4, msg=name)
    assert together_logs.pop("ranks") == alone_logs.pop("ranks")
    for name in alone_logs:
        assert together_logs[name] == pytest.approx(alone_logs[name], rel=1e-4, abs=1e-6), name
