"""What the benchmarks share: alternating timing, peak memory, and how results are printed."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm


def time_alternating(ways: dict[str, Callable[[], object]], repeats: int = 5, warmup: int = 1) -> dict[str, float]:
    """
    Median seconds of several ways to do one thing. The ways take turns, so that a slow spell of the machine hits all.

    Args:
        ways (`dict[str, Callable]`): what to run, by name.
        repeats (`int`, *optional*, defaults to 5): timed runs of each way.
        warmup (`int`, *optional*, defaults to 1): runs of each way before them, not counted.

    Returns:
        `dict[str, float]`: seconds, by the names of `ways`.

    Example:
        >>> seconds = time_alternating({"sum": lambda: sum(range(10)), "sorted": lambda: sorted(range(10))}, repeats=3)
        >>> list(seconds), seconds["sum"] > 0
        (['sum', 'sorted'], True)
    """
    seconds = {name: [] for name in ways}
    with tqdm(total=(warmup + repeats) * len(ways), desc="timing", leave=False) as bar:
        for repeat in range(warmup + repeats):
            for name, run in ways.items():
                bar.set_postfix_str(name)
                _synchronize()
                start = time.perf_counter()
                run()
                _synchronize()
                if repeat >= warmup:
                    seconds[name].append(time.perf_counter() - start)
                bar.update()
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_memory(run: Callable[[], object]) -> int:
    """
    Most bytes of tensors that `run` held at a time, above what was held before.

    On the CPU the profiler reports every allocation and release of torch, workspaces of operators included; the peak
    of their running sum is exact. On CUDA it is the allocator's own peak.

    Args:
        run (`Callable`): what to measure.

    Returns:
        `int`: bytes.

    Example:
        >>> peak_memory(lambda: torch.empty(250_000).exp())  # two tensors of 1 MB
        2000000
    """
    if _uses_cuda():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in changes), initial=0))


def machine() -> str:
    """The processor, the threads that torch uses and its version, for the head of a table."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def print_table(rows: list[dict[str, str]]) -> None:
    """
    Prints rows as a Markdown table; the first row names the columns.

    Args:
        rows (`list[dict[str, str]]`): one dictionary per row, all with the same keys.

    Example:
        >>> print_table([{"key": "speedup", "value": "53.1"}, {"key": "ratio_to_floor", "value": "1.0"}])
        | key            | value |
        |----------------|-------|
        | speedup        | 53.1  |
        | ratio_to_floor | 1.0   |
    """
    columns = list(rows[0])
    width = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    print("| " + " | ".join(column.ljust(width[column]) for column in columns) + " |")
    print("|" + "|".join("-" * (width[column] + 2) for column in columns) + "|")
    for row in rows:
        print("| " + " | ".join(row[column].ljust(width[column]) for column in columns) + " |")


def print_json(results: dict) -> None:
    """Prints results as one line of JSON: the last line of every benchmark, for programs to read."""
    print(json.dumps(results))


def _uses_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _synchronize() -> None:
    if _uses_cuda():
        torch.cuda.synchronize()


__all__ = ["machine", "peak_memory", "print_json", "print_table", "time_alternating"]
