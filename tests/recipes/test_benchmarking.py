"""The helpers of the benchmarks: turns, medians, peaks and printing."""

from __future__ import annotations

import json
import time

import torch

from recipes import benchmarking


def test_ways_take_turns_and_the_warmup_is_not_counted(monkeypatch):
    now, order = [0.0], []
    durations = {"a": iter([100.0, 1.0, 2.0, 9.0]), "b": iter([100.0, 5.0, 4.0, 6.0])}

    def way(name):
        order.append(name)
        now[0] += next(durations[name])

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    seconds = benchmarking.time_alternating({name: lambda name=name: way(name) for name in "ab"}, repeats=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert seconds == {"a": 2.0, "b": 5.0}


def test_peak_counts_what_lives_at_one_time():
    before = torch.ones(1_000_000)

    def run():
        first = before + 1  # 4 MB
        second = first * 2  # 8 MB
        del first
        third = second[:250_000].double()  # 4 + 2 MB
        return [torch.empty(25_000) for _ in range(100)] and third  # one at a time: nothing is added to the peak

    assert 8_000_000 <= benchmarking.peak_memory(run) < 16_100_000
    assert benchmarking.peak_memory(lambda: [(before + 1).sum() for _ in range(5)]) < 4_001_000
    assert benchmarking.peak_memory(lambda: None) == 0


def test_peak_counts_the_workspace_of_an_operator():
    query = torch.randn(1, 1, 64, 16)
    peak = benchmarking.peak_memory(lambda: query @ query.transpose(-1, -2))
    assert peak == 64 * 64 * 4


def test_printed_lines(capsys):
    benchmarking.print_table([{"key": "speedup", "goal": ">= 45"}])
    benchmarking.print_json({"speedup": 46.5})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["| key     | goal  |", "|---------|-------|", "| speedup | >= 45 |"]
    assert json.loads(lines[-1]) == {"speedup": 46.5}


def test_machine_says_threads_and_version():
    assert f"{torch.get_num_threads()} threads" in benchmarking.machine()
    assert torch.__version__ in benchmarking.machine()
