"""How train_lares.py tests: from several initial states, since they are random, and after other numbers of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_stages import Stage, evaluate_protocols


if TYPE_CHECKING:
    from hf_latentrec.evaluation import SequentialEvaluator

STATES_FILE = "test_states.json"  # the metrics of every initial state, beside the model of a stage


def table_columns(cutoffs: Sequence[int]) -> list[str]:
    """HR and NDCG at the first two cutoffs, so that a table with spreads fits a terminal."""
    return [f"{metric}@{k}" for k in cutoffs[:2] for metric in ("HR", "NDCG")]


def with_seed(evaluator: SequentialEvaluator, seed: int, num_steps: int | None = None) -> SequentialEvaluator:
    """The same evaluator from another initial state, and after another number of steps."""
    from hf_latentrec.evaluation import SequentialEvaluator

    return SequentialEvaluator(
        evaluator.examples, evaluator.ks, evaluator.batch_size, num_steps, seed, evaluator.split_fingerprint
    )


def evaluate_states(
    stage: Stage, model: Any, evaluator: SequentialEvaluator, stage_args: Any, folder: Path, seed: int
) -> dict[str, dict[str, float]]:
    """
    Mean metrics by protocol over initial states; those of each one go to the stage's folder, the ranks to
    `ranks/{stage}_state_{number}_{protocol}.parquet`.

    Args:
        stage (`Stage`): what is tested.
        model (`LaresForSequentialRecommendation`): its model.
        evaluator (`SequentialEvaluator`): of the test examples.
        stage_args (`LaresStageArguments`): how many states, and which protocols.
        folder (`Path`): of the whole run.
        seed (`int`): of the training, for the rank files.
    """
    from accelerate import PartialState

    by_protocol: dict[str, list[dict[str, float]]] = {protocol: [] for protocol in stage_args.eval_protocols}
    for state in range(stage_args.eval_seeds):
        results = evaluate_protocols(
            with_seed(evaluator, state),
            model,
            stage,
            folder / "ranks",
            f"state {state}",
            stage_args.eval_protocols,
            seed=seed,
            num_steps=model.config.mean_steps,
        )
        for protocol, result in results.items():
            by_protocol[protocol].append(result.metrics)
    if PartialState().is_main_process:
        (folder / stage.name / STATES_FILE).write_text(json.dumps(by_protocol, indent=2))
    return {protocol: mean_metrics(metrics) for protocol, metrics in by_protocol.items()}


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric."""
    return {name: sum(row[name] for row in metrics) / len(metrics) for name in metrics[0]}


def report(folder: Path, labels: Mapping[str, str], header: str, columns: Sequence[str]) -> str:
    """
    One table per protocol, one row per stage: mean ± sample standard deviation over initial states.

    Args:
        folder (`Path`): of the whole run.
        labels (`Mapping[str, str]`): what tables call the stages, by name.
        header (`str`): what all tables have in common.
        columns (`Sequence[str]`): the metrics to print.
    """
    from hf_latentrec.evaluation import PROTOCOLS, format_seed_table

    results = {name: json.loads((folder / name / STATES_FILE).read_text()) for name in labels}
    lines = [header]
    for protocol in PROTOCOLS:
        rows = {labels[name]: metrics[protocol] for name, metrics in results.items() if protocol in metrics}
        if rows:
            lines += ["", protocol, format_seed_table(rows, columns=columns, row_header="stage")]
    return "\n".join(lines)


__all__ = ["STATES_FILE", "evaluate_states", "mean_metrics", "report", "with_seed"]
