"""How train_lasar.py tests a stage, with forced depths too, and what it keeps and prints of that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_setup import some_users
from training_stages import Stage, evaluate_protocols


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.evaluation import RecEvaluator


MEAN_DEPTH = "mean N"
TABLE_COLUMNS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20", MEAN_DEPTH)
LOG_FILE, PLOT_FILE = "log_history.json", "training.png"  # beside the model of a stage


def make_evaluators(
    stage: Any, processor: LatentRecProcessor, test: Dataset, stage_args: Any, max_cot_tokens: int
) -> dict[str, RecEvaluator]:
    """The evaluator of a stage under the name "", and those of its forced depths, where it thinks."""
    from hf_latentrec.evaluation import RecEvaluator

    examples = some_users(test, stage_args.eval_users)
    shared = {"num_beams": stage_args.eval_num_beams, "batch_size": stage_args.eval_batch_size}
    if stage.writes_text:
        shared |= {"decoder": "explicit_cot", "max_cot_tokens": max_cot_tokens}
    forced = stage_args.force_thoughts if stage.num_thoughts > 0 else []
    depths = {"": None, **{f"forced N={depth}": depth for depth in forced}}
    return {name: RecEvaluator(processor, examples, num_thoughts=depth, **shared) for name, depth in depths.items()}


def evaluate_stage(
    stage: Stage,
    model: Any,
    evaluators: Mapping[str, RecEvaluator],
    ranks_folder: Path,
    protocols: Sequence[str],
    popularity: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Metrics and mean depth by forced depth and protocol (`"forced N=1, nothing filtered"`)."""
    metrics = {}
    for setting, evaluator in evaluators.items():
        results = evaluate_protocols(evaluator, model, stage, ranks_folder, setting, protocols, popularity)
        for protocol, result in results.items():
            name = ", ".join(filter(None, [setting, protocol]))
            metrics[name] = {**result.metrics, MEAN_DEPTH: float(result.num_thoughts.mean())}
    return metrics


def report(
    results: Mapping[str, Mapping[str, dict]], labels: Mapping[str, str], header: str, markdown: bool = False
) -> str:
    """
    One table per protocol: a row per stage, and one for each of its forced depths.

    Args:
        results (`Mapping`): by stage, what [`evaluate_stage`] returned.
        labels (`Mapping[str, str]`): what tables call the stages.
        header (`str`): what all tables have in common.
        markdown (`bool`, *optional*, defaults to `False`): tables in markdown.
    """
    from hf_latentrec.evaluation import PROTOCOLS, format_metric_table

    lines = [header]
    for protocol in PROTOCOLS:
        rows = {
            ", ".join([labels[stage], *setting.split(", ")[:-1]]): metrics
            for stage, settings in results.items()
            for setting, metrics in settings.items()
            if setting.split(", ")[-1] == protocol
        }
        if rows:
            # Few beams leave the larger cutoffs without a metric.
            columns = [column for column in TABLE_COLUMNS if all(column in metrics for metrics in rows.values())]
            table = format_metric_table(rows, columns=columns, row_header="stage", markdown=markdown)
            lines += ["", protocol, table]
    return "\n".join(lines)


def save_history(log_history: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes what a run of reinforcement learning logged, as JSON and as a picture; one line that says where."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG_FILE).write_text(json.dumps(list(log_history), indent=1))
    try:
        from hf_latentrec.evaluation.training_plots import plot_training
    except ImportError as error:
        return f"What was logged is in {folder / LOG_FILE}. It is not drawn: {error}"
    return f"What was logged is in {folder / LOG_FILE}, drawn in {plot_training(log_history, folder / PLOT_FILE)}"
