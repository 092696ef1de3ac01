"""
What item-ID recommenders take at inference: time and memory for every user of a data set, and for a large catalog.

    python recipes/benchmark_recommend.py                      # Beauty's sizes, random histories
    python recipes/benchmark_recommend.py --data_dir DATA
    python recipes/benchmark_recommend.py --catalog 1000000

**Users**: the ten best items for every test user, seen items excluded, by SASRec and by LARES after several numbers
of steps; a step is a pass of the core-block, so the time grows by the same amount with each. **Catalog**: the ten best
of a million items for 1,024 users, scored in blocks; for a few users they must be those of all items at once.

Weights are random, which changes neither time nor memory. Memory is the most that tensors held at a time, without the
model.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from benchmark_catalogs import beauty_folder
from benchmarking import machine, peak_memory, print_json, print_table, time_alternating

from hf_latentrec import (
    ItemTable,
    LaresConfig,
    LaresForSequentialRecommendation,
    SASRecConfig,
    SASRecForSequentialRecommendation,
)
from hf_latentrec.data import load_data, split_leave_one_out


SIZES = {"max_history": 20, "hidden_size": 64, "intermediate_size": 256}
STEPS = (1, 2, 4, 8)
USERS, ITEMS = 22_363, 12_101
LARGE_USERS, COMPARED_USERS = 1024, 16


def random_histories(num_users: int, num_items: int, seed: int = 0) -> list[list[str]]:
    """Histories of about Beauty's lengths."""
    rng = np.random.default_rng(seed)
    lengths = 4 + rng.geometric(0.2, num_users)
    return [[f"i{item}" for item in rng.integers(0, num_items, length)] for length in lengths]


def read_histories(data_dir: str | None) -> tuple[list[str], list[list[str]]]:
    """Item ids, and the histories of the test users."""
    if data_dir is None:
        ids, histories = [f"i{item}" for item in range(ITEMS)], random_histories(USERS, ITEMS)
    else:
        data = load_data(data_dir)
        ids, histories = data.items["item_id"][:], split_leave_one_out(data)["test"]["history"][:]
    return ids, histories


def measure_users(ids: list[str], histories: list[list[str]], repeats: int) -> tuple[list[dict], dict[str, float]]:
    """Rows of the table, and figures for programs."""
    items = ItemTable(ids)
    torch.manual_seed(0)
    sasrec = SASRecForSequentialRecommendation(SASRecConfig(num_items=len(items), **SIZES), items)
    lares = LaresForSequentialRecommendation(LaresConfig(num_items=len(items), **SIZES), items)
    ways = {"SASRec": partial(sasrec.recommend, histories, exclude_seen=True)}
    for steps in STEPS:
        ways[f"LARES, {steps} steps"] = partial(lares.recommend, histories, exclude_seen=True, num_steps=steps)
    seconds = time_alternating(ways, repeats=repeats)
    peak = {name: peak_memory(run) for name, run in ways.items()}
    rows = [
        {"model": name, "seconds": f"{seconds[name]:.2f}", "peak, MB": f"{peak[name] / 1e6:,.0f}"} for name in ways
    ]
    first, last = (seconds[f"LARES, {steps} steps"] for steps in (STEPS[0], STEPS[-1]))
    return rows, {
        "sasrec_seconds": round(seconds["SASRec"], 4),
        "lares_seconds": round(seconds["LARES, 4 steps"], 4),
        "lares_step_seconds": round((last - first) / (STEPS[-1] - STEPS[0]), 4),
        "lares_peak_memory_gb": round(peak["LARES, 4 steps"] / 1e9, 6),
    }


def measure_catalog(num_items: int, repeats: int) -> tuple[list[dict], dict[str, float]]:
    """The same for a large catalog, after a check that blocks recommend what the whole catalog at once does."""
    items = ItemTable([f"i{item}" for item in range(num_items)])
    torch.manual_seed(0)
    model = SASRecForSequentialRecommendation(SASRecConfig(num_items=num_items, **SIZES), items)
    histories = random_histories(LARGE_USERS, num_items)
    few = histories[:COMPARED_USERS]
    blocks, whole = (
        [[item["item_id"] for item in user] for user in model.recommend(few, block_size=size)]
        for size in (max(1, num_items // 7), num_items)
    )
    if blocks != whole:
        raise SystemExit("blocks of the catalog lead to other recommendations than the whole catalog at once")
    run = partial(model.recommend, histories)
    peak, seconds = peak_memory(run), time_alternating({"blocks": run}, repeats=repeats, warmup=0)["blocks"]
    rows = [{"scored": "in blocks", "seconds": f"{seconds:.2f}", "peak, MB": f"{peak / 1e6:,.0f}"}]
    return rows, {"large_catalog_seconds": round(seconds, 4), "large_catalog_peak_memory_gb": round(peak / 1e9, 6)}


def main(argv: list[str] | None = None) -> None:
    """Measures what it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data_dir", type=beauty_folder, help="Beauty's folder, or the one above it")
    parser.add_argument("--catalog", type=int, default=1_000_000, help="items of the large catalog")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs")
    args = parser.parse_args(argv)
    print(machine())
    ids, histories = read_histories(args.data_dir)
    rows, results = measure_users(ids, histories, args.repeats)
    print(f"\n{len(histories):,} users, {len(ids):,} items, ten recommendations each")
    print_table(rows)
    rows, figures = measure_catalog(args.catalog, args.repeats)
    print(f"\n{LARGE_USERS:,} users, {args.catalog:,} items, ten recommendations each")
    print_table(rows)
    print_json(results | figures)


if __name__ == "__main__":
    main()
