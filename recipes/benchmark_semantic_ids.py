"""
Semantic IDs at scale: seconds and memory for codebooks, codes and each policy for collisions.

    python recipes/benchmark_semantic_ids.py                   # 1 M items x 384; about 10 minutes, 1.5 GB on disk
    python recipes/benchmark_semantic_ids.py --items 50000     # a smaller catalog
    python recipes/benchmark_semantic_ids.py --balanced        # codes used equally often
    python recipes/benchmark_semantic_ids.py --check           # all of it twice: the same codes?

The embeddings are made: items around random centers, one in 20 a near copy of another item; written in pieces to a
file that is memory-mapped. What is measured runs in a process of its own, after a look at every page of that file.

fit_seconds, encode_seconds
               ResidualKMeans.fit, and encode on the same embeddings
extra_level_seconds, nearest_free_seconds, share_seconds
               resolve_collisions with that policy
peak_gb        most memory of that process (VmHWM), pages of the memory-mapped embeddings included
colliding      share of the items whose code another item has as well, before a policy
error_1, ...   mean squared distance to the reconstruction from that many levels, over that to the mean
same_codes     with --check: whether codes and final codes of a second process are the same
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarking import machine, print_json, print_table
from tqdm import tqdm

from hf_latentrec.semantic_ids.collisions import POLICIES, count_collisions, resolve_collisions
from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans


GOALS = {"fit_seconds": "<= 900", "nearest_free_seconds": "<= 60", "peak_gb": "<= 8", "same_codes": "yes"}
PIECE = 65_536  # items written at a time
CLUSTERS, COPIES = 1_000, 0.05
SPREAD, COPY_SPREAD = 0.7, 0.02  # of items around a center, whose numbers spread by 1, and of copies around an item
DECAY = 0.8  # of the spread from axis to axis, a power of its number: texts do not fill their space evenly


def write_embeddings(path: Path, num_items: int, dimension: int, seed: int) -> None:
    """Unit vectors around random centers; a small share are near copies of others."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(CLUSTERS, dimension)).astype(np.float32)
    spectrum = np.arange(1, dimension + 1, dtype=np.float32) ** -DECAY
    file = np.lib.format.open_memmap(path, "w+", np.float32, (num_items, dimension))
    for start in tqdm(range(0, num_items, PIECE), desc="writing embeddings", leave=False):
        size = min(PIECE, num_items - start)
        rows = SPREAD * rng.standard_normal((size, dimension), dtype=np.float32)
        rows += centers[rng.integers(0, CLUSTERS, size)]
        copies = rng.permutation(size)[: round(COPIES * size)]
        rows[copies] = rows[rng.integers(0, size, len(copies))]
        rows[copies] += COPY_SPREAD * rng.standard_normal((len(copies), dimension), dtype=np.float32)
        rows *= spectrum
        file[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    file.flush()


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """All steps on the embeddings of `path`; runs in a process of its own."""
    embeddings = np.load(path, mmap_mode="r")
    variance = np.var(embeddings, axis=0, dtype=np.float64).sum()  # reads every page
    results: dict[str, float] = {}

    def timed(name: str, run: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = run()
        results[f"{name}_seconds"] = time.perf_counter() - start
        return result

    quantizer = timed(
        "fit",
        lambda: ResidualKMeans.fit(
            embeddings, arguments.levels, arguments.codebook_size, balanced=arguments.balanced, seed=arguments.seed
        ),
    )
    encoded = timed("encode", lambda: quantizer.encode(embeddings))
    codes = quantizer.codes_IL
    parts = [encoded, codes]
    for policy in POLICIES:
        final = timed(policy, lambda policy=policy: resolve_collisions(codes, embeddings, quantizer, policy))
        if policy != "share" and count_collisions(final):
            raise SystemExit(f"{policy}: {count_collisions(final)} items still share their code")
        parts.append(final)
    results["colliding"] = count_collisions(codes) / len(codes)
    errors = quantizer.reconstruction_errors(embeddings, codes) / variance
    results |= {f"error_{level}": error for level, error in enumerate(errors.tolist(), 1)}
    results["peak_gb"] = peak_bytes() / 1e9
    results["checksum"] = zlib.crc32(b"".join(part.tobytes() for part in parts))
    return results


def peak_bytes() -> int:
    """The most memory that this process had resident. Not `ru_maxrss`, which a child inherits from its parent."""
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def measure_apart(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (path, arguments))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the catalog")
    parser.add_argument("--dimension", type=int, default=384, help="numbers of an embedding")
    parser.add_argument("--levels", type=int, default=4, help="codes of an item")
    parser.add_argument("--codebook_size", type=int, default=256, help="codes of a level")
    parser.add_argument("--balanced", action="store_true", help="use all codes of a level equally often")
    parser.add_argument("--seed", type=int, default=0, help="of the embeddings and of the codebooks")
    parser.add_argument("--check", action="store_true", help="run twice and compare the codes")
    parser.add_argument("--work_dir", type=Path, help="for the embeddings while this runs; the system's by default")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as folder:
        path = Path(folder) / "embeddings.npy"
        write_embeddings(path, arguments.items, arguments.dimension, arguments.seed)
        results = measure_apart(path, arguments)
        checksum = results.pop("checksum")
        if arguments.check:
            results["same_codes"] = measure_apart(path, arguments)["checksum"] == checksum
    print(
        f"{arguments.items:,} items x {arguments.dimension}, {arguments.levels} levels of {arguments.codebook_size} "
        f"codes{', balanced' * arguments.balanced}; {machine()}\n"
    )
    print_table(
        [
            {
                "key": key,
                "value": ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}",
                "goal": GOALS.get(key, ""),
            }
            for key, value in results.items()
        ]
    )
    print_json(results)
    if not results.get("same_codes", True):
        raise SystemExit("the second run gave other codes")


if __name__ == "__main__":
    main()
