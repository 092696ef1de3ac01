"""Two processes select the samples, and take the steps, of one (gloo, CPU)."""

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
JOB = Path(__file__).with_name("lares_job.py")


def run_job(num_processes: int, out: Path) -> tuple[dict, dict]:
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run([*command, str(JOB), str(out)], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((out / "found.json").read_text())
    assert found["world_size"] == num_processes
    return load_file(out / "moved.safetensors"), found


def test_two_processes_equal_one(tmp_path):
    with ThreadPoolExecutor() as both:  # a job imports for longer than it trains
        jobs = [both.submit(run_job, number, tmp_path / str(number)) for number in (1, 2)]
    (alone, alone_found), (together, together_found) = (job.result() for job in jobs)
    assert all(moved.abs().max() > 1e-4 for moved in alone.values())
    for name, moved in alone.items():
        torch.testing.assert_close(together[name], moved, atol=1e-5, rtol=1e-4, msg=name)
    assert together_found["samples"] == alone_found["samples"] and len(alone_found["samples"]) > 20
    assert together_found["ranks"] == alone_found["ranks"]
    assert len(alone_found["logs"]) == 2
    for one, two in zip(alone_found["logs"], together_found["logs"], strict=True):
        assert 0 < one["frac_reward_zero_std"] < 1 and one["kl"] > 0
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
