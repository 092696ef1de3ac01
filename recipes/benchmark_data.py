"""
Preparation at scale, and against the plain-Python loop of published scripts.

    python recipes/benchmark_data.py                                   # 50 M interactions: minutes, 4 GB of disk
    python recipes/benchmark_data.py --interactions 2000000 --users 200000 --items 40000
    python recipes/benchmark_data.py --loop                            # 1 M interactions, both ways

The interactions are a CSV on disk (user_id, item_id, timestamp, rating), made in blocks from a seed; how often users
and items occur follows a power law. A process of its own prepares it: duplicates dropped, 5-core, leave-one-out,
parquet, fingerprint and data card.

prepare_seconds  wall time of that process's work, from the CSV to the prepared folder, reading and hashing included
peak_gib         the most memory that the process held (resident), Python and libraries included

--loop: the work of published scripts, from the CSV to one file of examples (user_id, history of at most 20, target)
per split, by both ways, once each, in processes of their own.

loop_seconds     dictionaries of lists, a while-loop over all interactions until the 5-core stands, sorts per user,
                 and JSON lines of leave-one-out examples
ours_seconds     the same by `prepare`, with the examples as parquet
loop_ratio       loop_seconds / ours_seconds
raw_...          the same for interactions in the shape of raw Amazon reviews, where most users have one event

The raw shape is about that of Beauty of 2014 (2.02 M ratings of 1.21 M users and 249 k items, of which the 5-core
keeps 10 %): per 1 M interactions 0.60 M users, 0.12 M items, 92 % of the users with one or two events, and a 5-core
of 11 %. The users and items of the power law are more than that, since many of them never occur. `--users` and
`--items` leave it as it is. A ratio depends much on the shape: the more the 5-core keeps, the more of the time goes
into writing examples.

Before a ratio is printed the two must have the same examples, of all splits, in the same order.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from benchmarking import machine, print_json, print_table
from tqdm import tqdm

from hf_latentrec.data.preparation import PreparationRules, prepare
from hf_latentrec.data.sources.raw_data import RawData


K_CORE, MAX_HISTORY = 5, 20
BLOCK = 2_000_000  # rows of the CSV that are made at a time
BEGIN, SPAN = 1_400_000_000, 100_000_000  # seconds: May 2014 and about three years
GOALS = {"prepare_seconds": "<= 600", "peak_gib": "<= 8", "loop_ratio": ">= 20", "raw_loop_ratio": ">= 20"}
POWERS = (2, 3)  # of users and items: the higher, the more unlike
RAW_USERS, RAW_ITEMS, RAW_POWERS = 3.5, 0.13, (4, 4)  # users and items per interaction
SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "rating": pl.Float64}


def write_csv(
    path: Path, num_rows: int, num_users: int, num_items: int, powers: tuple[int, int] = POWERS, seed: int = 0
) -> None:
    """Users and items by a power law: most have few events, some have very many. Times in no order."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file, tqdm(total=num_rows, desc="making the CSV", unit="row", unit_scale=True) as bar:
        for start in range(0, num_rows, BLOCK):
            rows = min(BLOCK, num_rows - start)
            # Multiples of a prime spread the popular over the order of the ids.
            user, item = (
                (number * rng.random(rows) ** power).astype(np.int64) * 7919 % number
                for number, power in zip((num_users, num_items), powers, strict=True)
            )
            frame = pl.DataFrame(
                {
                    "user": user,
                    "item": item,
                    "timestamp": rng.integers(BEGIN, BEGIN + SPAN, rows),
                    "rating": rng.integers(1, 6, rows),
                }
            )
            ids = (
                pl.format("{}{}", pl.lit(letter), name).alias(f"{name}_id")
                for letter, name in (("A", "user"), ("B", "item"))
            )
            frame.select(*ids, "timestamp", "rating").write_csv(file, include_header=start == 0)
            bar.update(rows)


def read_csv(path: Path) -> RawData:
    """The CSV, lazily."""
    return RawData(pl.scan_csv(path, schema=SCHEMA), None, "benchmark", (path,))


def ours(path: Path, folder: Path, max_history: int | None) -> dict[str, int]:
    """Prepares the CSV, with examples where a `max_history` is given; returns counts."""
    rules = PreparationRules(k_core=K_CORE)
    prepared = prepare(read_csv(path), rules, folder / "prepared", examples_max_history=max_history)
    return {"rows_read": prepared.source.rows, "rows_kept": prepared.counts.rows}


def loop(path: Path, folder: Path) -> dict[str, int]:
    """The same as published scripts have it; returns counts."""
    interactions, seen = [], set()
    with path.open() as file:
        for row in csv.DictReader(file):
            event = (row["user_id"], row["item_id"], float(row["timestamp"]))
            if event not in seen:
                seen.add(event)
                interactions.append(event)
    while True:
        users, items = Counter(), Counter()
        for user, item, _ in interactions:
            users[user] += 1
            items[item] += 1
        kept = [event for event in interactions if users[event[0]] >= K_CORE and items[event[1]] >= K_CORE]
        if len(kept) == len(interactions):
            break
        interactions = kept
    histories = defaultdict(list)
    for user, item, timestamp in interactions:
        histories[user].append((timestamp, item))
    files = {name: (folder / f"{name}.json").open("w") for name in ("train", "validation", "test")}
    for user in sorted(histories):
        events = [item for _, item in sorted(histories[user], key=lambda event: event[0])]
        for position in range(1, len(events)):
            name = {len(events) - 1: "test", len(events) - 2: "validation"}.get(position, "train")
            history = events[max(0, position - MAX_HISTORY) : position] if name == "train" else events[:position]
            line = {"user_id": user, "history": history, "target": events[position]}
            files[name].write(json.dumps(line) + "\n")
    for file in files.values():
        file.close()
    return {"rows_kept": len(interactions)}


def check_same(folder: Path) -> None:
    """Both ways must have written the same examples."""
    for name in ("train", "validation", "test"):
        columns = ["user_id", "history", "target"]
        by_loop = pl.read_ndjson(folder / f"{name}.json").select(columns)
        if not by_loop.equals(pl.read_parquet(folder / "prepared" / "examples" / f"{name}.parquet").select(columns)):
            raise SystemExit(f"the loop's examples for {name} are not those of the preparation")


def in_own_process(work: Callable[..., dict[str, int]], *arguments: object) -> dict[str, float]:
    """Runs `work` in a fresh process: its counts, seconds and peak memory."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measured, (work, *arguments))


def measured(work: Callable[..., dict[str, int]], *arguments: object) -> dict[str, float]:
    """What `work` returns, with seconds and the peak of this process's memory."""
    start = time.perf_counter()
    counts = work(*arguments)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return counts | {"seconds": seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


def measure_scale(path: Path, folder: Path) -> dict[str, float]:
    """Seconds and memory of the preparation alone."""
    result = in_own_process(ours, path, folder, None)
    return {
        "rows_read": result["rows_read"],
        "rows_kept": result["rows_kept"],
        "csv_gib": path.stat().st_size / 2**30,
        "prepare_seconds": result["seconds"],
        "peak_gib": result["peak_gib"],
    }


def measure_loop(path: Path, folder: Path) -> dict[str, float]:
    """Both ways to the examples."""
    fast, slow = in_own_process(ours, path, folder, MAX_HISTORY), in_own_process(loop, path, folder)
    check_same(folder)
    if fast["rows_kept"] != slow["rows_kept"]:
        raise SystemExit(f"{fast['rows_kept']} rows are left, but {slow['rows_kept']} by the loop")
    return {
        "rows_kept": fast["rows_kept"],
        "loop_seconds": slow["seconds"],
        "ours_seconds": fast["seconds"],
        "loop_ratio": slow["seconds"] / fast["seconds"],
    }


@contextmanager
def room(folder: Path | None) -> Iterator[Path]:
    """A folder for the CSV and what is made of it, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder) as name:
        yield Path(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes, prepares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, help="rows of the CSV; by default 50 M, with --loop 1 M")
    parser.add_argument("--users", type=int, help="by default a tenth of the interactions")
    parser.add_argument("--items", type=int, help="by default a fiftieth of the interactions")
    parser.add_argument("--loop", action="store_true", help="compare with a plain-Python loop")
    parser.add_argument("--folder", type=Path, help="where there is room on disk; by default that of temporary files")
    options = parser.parse_args(arguments)
    num_rows = options.interactions or (1_000_000 if options.loop else 50_000_000)
    measure = measure_loop if options.loop else measure_scale
    with room(options.folder) as folder:
        path = folder / "interactions.csv"
        write_csv(path, num_rows, options.users or num_rows // 10, options.items or num_rows // 50)
        results = measure(path, folder)
    if options.loop:
        with room(options.folder) as folder:
            path = folder / "raw.csv"
            write_csv(path, num_rows, int(num_rows * RAW_USERS), int(num_rows * RAW_ITEMS), RAW_POWERS)
            results |= {f"raw_{key}": value for key, value in measure(path, folder).items()}
    print(machine())
    print_table(
        [
            {
                "key": key,
                "value": f"{value:,.2f}" if isinstance(value, float) else f"{value:,}",
                "goal": GOALS.get(key, ""),
            }
            for key, value in results.items()
        ]
    )
    print_json(results)


if __name__ == "__main__":
    main()
