"""The tables that evaluate.py prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_latentrec.evaluation import EvaluationRun


def describe(run: EvaluationRun, cutoffs: Sequence[int], place: str) -> str:
    """
    The protocols side by side, what there is beside them, and what to do next.

    Args:
        run (`EvaluationRun`): the results.
        cutoffs (`Sequence[int]`): K of the metrics.
        place (`str`): the folder that holds them.
    """
    from hf_latentrec.evaluation import format_metric_table, format_seed_table, ranking_metrics

    details, columns = run.details, [f"{name}@{k}" for k in cutoffs for name in ("HR", "NDCG")]
    rows = {protocol: ranking_metrics(ranks.ranks, cutoffs) for protocol, ranks in run.ranks.items()}
    lines = [
        f"\n{run.label} ({details['system']}), {details['split']}, {details['part']}: {details['num_examples']:,} "
        f"examples, whole catalog, match {details['match']}; {details['decoding']}",
        details["collision_policy"],
        "",
        format_metric_table(rows, columns=columns, row_header="protocol"),
    ]
    for protocol, by_number in (run.steps or {}).items():
        seeds = {number: _by_seed(metrics) for number, metrics in by_number.items()}
        lines += ["", f"By number of steps, {protocol}", format_seed_table(seeds, columns=columns, row_header="steps")]
    if run.latency:
        lines += ["", "Milliseconds per user", _latency_table(run.latency)]
    return "\n".join([*lines, "", what_next(place)])


def what_next(place: str) -> str:
    """How the results are looked at."""
    return (
        f"Everything is in {place} (metrics.json has coverage, groups of users and more).\n"
        f"  compare with another model:  python recipes/compare.py {place} OTHER_OUTPUT_DIR\n"
        f"  one page with pictures:      python recipes/report.py {place} --baselines OTHER_OUTPUT_DIR"
    )


def _by_seed(metrics: dict[str, list[float]]) -> list[dict[str, float]]:
    """The metrics of each seed, from the seeds of each metric."""
    return [dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)]


def _latency_table(rows: Sequence[dict[str, Any]]) -> str:
    """One row for each way of thinking and batch size, one column for each stage."""
    from hf_latentrec.evaluation import format_metric_table

    names = {True: "thinking", False: "no thoughts", "explicit_cot": "text"}
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        how = names.get(row["thinking"], row["thinking"])
        milliseconds = table.setdefault(f"{how}, batch of {row['batch_size']}", {})
        milliseconds[row["stage"]] = 1000 * row["seconds_per_user"]
    columns = [stage for stage in ("encode", "think", "decode", "total") if stage in next(iter(table.values()))]
    return format_metric_table(table, columns=columns, row_header="users at once")


__all__ = ["describe"]
