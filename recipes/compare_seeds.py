"""
Mean and spread over runs that differ in nothing but their seed, stage by stage.

    python recipes/compare_seeds.py outputs/scientific/1 outputs/scientific/2 outputs/scientific/3
    python recipes/compare_seeds.py outputs/scientific/* --markdown --metrics HR@10 NDCG@10

Reads what a train_*.py left behind. Prints one table for each way of testing, and one of the factors where there are
some; a stage that not all runs have completed is left out and named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from flr_factors import FACTOR_COLUMNS, FACTOR_HEADER, factor_rows
from training_stages import METRICS_FILE

from hf_latentrec.evaluation import format_seed_table


DEFAULT_METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
FINGERPRINTS = ("catalog_fingerprint", "split_fingerprint")


def read_run(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Test metrics of a run by stage and way of testing; stages in the order in which they were completed."""
    files = sorted(folder.glob(f"*/{METRICS_FILE}"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise ValueError(f"{folder} holds no completed stage (*/{METRICS_FILE}); pass the output_dir of a run")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def check_comparable(folders: Sequence[Path], stage: str) -> None:
    """All runs trained the stage on the same items and examples, each with a seed of its own."""
    first = _read_fingerprints(folders[0] / stage)
    run_of: dict[int, Path] = {}
    for folder in folders:
        fingerprints = _read_fingerprints(folder / stage)
        for what in FINGERPRINTS:
            if fingerprints[what] != first[what]:
                raise ValueError(
                    f"{folder / stage} has {what} {fingerprints[what]}, but {folders[0] / stage} has {first[what]}; "
                    "compare runs on the same data and split"
                )
        seed = _read_json(folder / stage / "training_args.json").get("seed")
        if seed is not None and seed in run_of:
            raise ValueError(
                f"{folder / stage} and {run_of[seed] / stage} both have seed {seed}, so they say nothing about the "
                "spread over seeds; train with another --seed"
            )
        run_of[seed] = folder


def _read_fingerprints(folder: Path) -> dict[str, str | None]:
    """Of a language model's processor; a model of item ids has the split's in its configuration."""
    found = _read_json(folder / "config.json") | _read_json(folder / "processor_config.json")
    return {what: found.get(what) for what in FINGERPRINTS}


def _read_json(file: Path) -> dict:
    """Nothing where there is no such file: a stage without training saves no model."""
    return json.loads(file.read_text()) if file.exists() else {}


def compare(folders: Sequence[Path], metrics: Sequence[str] = DEFAULT_METRICS, markdown: bool = False) -> str:
    """
    One table for each way of testing: a row per stage, mean ± sample standard deviation per metric.

    Args:
        folders (`Sequence[Path]`): the `output_dir` of each run.
        metrics (`Sequence[str]`, *optional*): columns.
        markdown (`bool`, *optional*, defaults to `False`): tables in markdown in place of plain text.

    Returns:
        `str`: the tables.
    """
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} run(s) to compare; pass the output_dir of at least two, one per seed")
    runs = [read_run(folder) for folder in folders]
    stages = [stage for stage in runs[0] if all(stage in run for run in runs)]
    for stage in stages:
        check_comparable(folders, stage)
    lines = [f"Mean ± standard deviation over {len(folders)} seeds"]
    if incomplete := sorted({stage for run in runs for stage in run} - set(stages)):
        lines.append(f"Not in all runs, left out: {', '.join(incomplete)}")
    for setting in dict.fromkeys(setting for stage in stages for setting in runs[0][stage]):
        rows = {
            stage: [run[stage][setting] for run in runs]
            for stage in stages
            if all(setting in run[stage] for run in runs)
        }
        if rows:
            lines += ["", setting, "", format_seed_table(rows, columns=metrics, row_header="stage", markdown=markdown)]
    if rows := factor_rows(folders, stages):
        table = format_seed_table(rows, columns=list(FACTOR_COLUMNS), row_header="stage", markdown=markdown)
        lines += ["", FACTOR_HEADER, "", table]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output_dir of each run, one per seed")
    parser.add_argument("--metrics", nargs="+", default=DEFAULT_METRICS, help="columns, e.g. 'long-tail NDCG@10'")
    parser.add_argument("--markdown", action="store_true", help="print markdown tables")
    options = parser.parse_args(arguments)
    print(compare(options.runs, options.metrics, options.markdown))


if __name__ == "__main__":
    main()
