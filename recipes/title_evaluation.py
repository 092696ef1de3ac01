"""How recipes over titles test: decoders and length penalties, popular and long-tail items apart, and latency."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_setup import some_users
from training_stages import Stage, evaluate_protocols


if TYPE_CHECKING:
    import numpy as np
    from datasets import DatasetDict

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.evaluation import RecEvaluator


CUTOFFS = (5, 10)
TABLE_COLUMNS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "popular NDCG@10", "long-tail NDCG@10")
LATENCY_FILE, LATENCY_BATCH_SIZE = "latency.json", 4  # LatentR³, App. G


def make_evaluators(
    processor: LatentRecProcessor, splits: DatasetDict, args: Any
) -> tuple[dict[str, RecEvaluator], RecEvaluator]:
    """Evaluators of test, by what tables call their decoding, and the one of some validation users that watches RL."""
    from hf_latentrec.evaluation import RecEvaluator

    shared = {"num_beams": args.eval_num_beams, "batch_size": args.eval_batch_size, "ks": CUTOFFS}
    beams = {
        f"length penalty {penalty:g}": {"length_penalty": penalty, "normalize": args.eval_normalize}
        for penalty in args.length_penalty
    }
    settings = {
        **(beams if "constrained" in args.decoders else {}),
        **({"grounding": {"decoder": "grounding"}} if "grounding" in args.decoders else {}),
    }
    tests = {name: RecEvaluator(processor, splits["test"], **shared, **own) for name, own in settings.items()}
    users = some_users(splits["validation"], args.validation_users)
    return tests, RecEvaluator(processor, users, **shared, **next(iter(beams.values())))


def evaluate_stage(
    stage: Stage,
    model: Any,
    tests: Mapping[str, RecEvaluator],
    ranks_folder: Path,
    protocols: Sequence[str],
    popularity: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Metrics by decoding and protocol: of all users, and of those with a popular and with a long-tail target."""
    from hf_latentrec.evaluation import metrics_by_popularity

    metrics = {}
    for name, evaluator in tests.items():
        how = {name: getattr(evaluator, name) for name in ("decoder", "length_penalty", "normalize")}
        results = evaluate_protocols(evaluator, model, stage, ranks_folder, name, protocols, popularity, **how)
        targets = evaluator.processor.catalog.rows(evaluator.examples["target"])
        for protocol, result in results.items():
            row = dict(result.metrics)
            groups = metrics_by_popularity(result.ranks, targets, popularity, CUTOFFS)
            for group, members in groups.items():
                row |= {f"{group} {metric}": value for metric, value in members.metrics.items()}
                row[f"{group} users"] = members.num_users
            metrics[f"{name}, {protocol}"] = row
    return metrics


def time_thoughts(model_folder: Path, histories: list[list[str]], num_beams: int, device: Any) -> str:
    """One line on what the thoughts of a model cost a user; the figures go to `latency.json` beside its folder."""
    from transformers import AutoModel, AutoProcessor

    from hf_latentrec.evaluation import measure_latency

    model, processor = AutoModel.from_pretrained(model_folder), AutoProcessor.from_pretrained(model_folder)
    rows = measure_latency(
        model.to(device),
        processor,
        histories,
        num_users=len(histories),
        batch_sizes=[min(LATENCY_BATCH_SIZE, len(histories))],
        num_beams=num_beams,
    )
    num_thoughts = model.config.num_thoughts
    figures = {"num_thoughts": num_thoughts, "num_users": len(histories), "rows": rows}
    (model_folder.parent / LATENCY_FILE).write_text(json.dumps(figures, indent=2))
    thinking, without = (
        next(row["seconds_per_user"] for row in rows if (row["stage"], row["thinking"]) == ("total", thinks))
        for thinks in (True, False)
    )
    return (
        f"Latency of {model_folder.name}: {1000 * thinking:.1f} ms per user with {num_thoughts} thought(s), "
        f"{1000 * without:.1f} ms without ({100 * (thinking / without - 1):+.1f} %)"
    )
