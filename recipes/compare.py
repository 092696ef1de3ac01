"""
Is RUN_B better than RUN_A, or is it chance? Paired tests over the users that both ranked.

    python recipes/compare.py outputs/sasrec outputs/lares
    python recipes/compare.py outputs/sasrec outputs/lares --metrics NDCG@10 MRR --protocol "seen items excluded"
    python recipes/compare.py a/ranks/full.parquet b/ranks/full.parquet --output comparison.json --markdown
    python recipes/compare.py --a sasrec/1 sasrec/2 sasrec/3 --b lares/1 lares/2 lares/3

A RUN is a folder that recipes/evaluate.py wrote, or a rank file, one of its own or of a training recipe. Prints one
table per protocol: the metrics of A and B, the difference B - A with its bootstrap interval, and the p-values of a
paired t-test and of Wilcoxon's signed-rank test, each also corrected for testing several metrics. No model is needed.

With --a and --b a model is several runs, one per training seed, and a user's value is the mean over them. The tests
then still speak of users: whether other seeds would agree is told by the spread that compare_seeds.py prints.

Runs on different splits, protocols or users are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from hf_latentrec.evaluation import (
    CORRECTIONS,
    EvaluationRun,
    MetricComparison,
    RankFile,
    compare_ranks,
    format_table,
    load_ranks,
)


DEFAULT_METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
CONFIDENCE = 0.95


def read_run(path: Path) -> tuple[str, dict[str, RankFile]]:
    """What to call a run, and its rank files by protocol; a file on its own has one."""
    if path.is_dir():
        run = EvaluationRun.load(path)
        return f"{run.label} ({path})", run.ranks
    if not path.is_file():
        raise ValueError(f"{path} does not exist; pass a folder that recipes/evaluate.py wrote, or a rank file")
    file = load_ranks(path)
    return str(path), {file.metadata["protocol"]: file}


def common_protocols(runs: Mapping[str, Mapping[str, RankFile]], wanted: Sequence[str] | None) -> list[str]:
    """Those of all runs in the order of the first, or those wanted, which all runs must have."""
    first, *others = runs.values()
    common = [protocol for protocol in first if all(protocol in other for other in others)]
    if lacking := sorted(set(wanted or []) - set(common)) if common else ["a common protocol"]:
        have = "; ".join(f"{name} has {list(run)}" for name, run in runs.items())
        raise ValueError(f"not all runs have {', '.join(lacking)} ({have}); compare ranks of the same protocol")
    return list(wanted or common)


def table_of(comparisons: Sequence[MetricComparison], correction: str, markdown: bool) -> str:
    """One row per metric."""
    corrected = [] if correction == "none" else [correction.capitalize()]
    table = [
        ["metric", "A", "B", "B - A", f"{CONFIDENCE:.0%} interval", "t-test p", *corrected, "Wilcoxon p", *corrected]
    ]
    for row in comparisons:
        low, high = row.interval
        p_values = [row.t_test, row.t_test_corrected, row.wilcoxon, row.wilcoxon_corrected]
        table.append(
            [
                row.metric,
                f"{row.a:.4f}",
                f"{row.b:.4f}",
                f"{row.difference:+.4f}",
                f"[{low:+.4f}, {high:+.4f}]",
                *map(_p_value, p_values if corrected else p_values[::2]),
            ]
        )
    return format_table(table, markdown)


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.00005 else "< 0.0001"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prints the tables and, where asked, writes them as JSON."""
    options = parse_arguments(arguments)
    models = {label: dict(map(read_run, paths)) for label, paths in (("A", options.a), ("B", options.b))}
    protocols = common_protocols(models["A"] | models["B"], options.protocol)
    for label, runs in models.items():
        print(f"{label}: {', '.join(runs)}")
    results = {}
    for protocol in protocols:
        a, b = ({name: ranks[protocol] for name, ranks in runs.items()} for runs in models.values())
        results[protocol] = comparisons = compare_ranks(
            a, b, options.metrics, options.correction, options.bootstrap_samples, CONFIDENCE, options.seed
        )
        num_users, num_examples = comparisons[0].num_users, comparisons[0].num_examples
        of_examples = f", {num_examples:,} examples" if num_examples > num_users else ""
        print(f"\n{protocol}, {num_users:,} users{of_examples}\n")
        print(table_of(comparisons, options.correction, options.markdown))
    if options.output is not None:
        split = next(iter(a.values())).metadata["split_fingerprint"]
        write_json(options, split, results)


def write_json(
    options: argparse.Namespace, split_fingerprint: str, results: Mapping[str, Sequence[MetricComparison]]
) -> None:
    """Everything in the tables, unrounded, with how it came about."""
    described = {
        "a": list(map(str, options.a)),
        "b": list(map(str, options.b)),
        "split_fingerprint": split_fingerprint,
        "correction": options.correction,
        "bootstrap_samples": options.bootstrap_samples,
        "confidence": CONFIDENCE,
        "seed": options.seed,
        "protocols": {protocol: [asdict(row) for row in rows] for protocol, rows in results.items()},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(described, indent=2))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `a` and `b` are lists of runs, however they were given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="RUN_A and RUN_B")
    add("--a", nargs="+", type=Path, metavar="RUN", help="runs of A, one per seed, in place of RUN_A")
    add("--b", nargs="+", type=Path, metavar="RUN", help="runs of B, one per seed, in place of RUN_B")
    add(
        "--metrics",
        nargs="+",
        default=DEFAULT_METRICS,
        metavar="METRIC",
        help=f"by default {' '.join(DEFAULT_METRICS)}",
    )
    add("--protocol", nargs="+", help="such as 'seen items excluded'; by default all that the runs share")
    add("--correction", choices=CORRECTIONS, default="holm", help="for several metrics; by default %(default)s")
    add("--bootstrap_samples", type=int, default=10_000, help="resamples of the interval; by default %(default)s")
    add("--seed", type=int, default=0, help="of the bootstrap; by default %(default)s")
    add("--output", type=Path, metavar="FILE.json", help="write the figures, unrounded")
    add("--markdown", action="store_true", help="print markdown tables")
    options = parser.parse_args(arguments)
    given = (len(options.runs), options.a is not None, options.b is not None)
    if given not in ((2, False, False), (0, True, True)):
        parser.error("give two runs, RUN_A and RUN_B, or the runs of each model after --a and --b")
    if options.runs:
        options.a, options.b = options.runs[:1], options.runs[1:]
    return options


if __name__ == "__main__":
    main()
