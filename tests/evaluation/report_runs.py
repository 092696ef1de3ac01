"""Runs as evaluate.py leaves them, made up: a model that thinks, with all there can be of it, and one with nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hf_latentrec.evaluation.ranks import RankFile
from hf_latentrec.evaluation.recommendation_files import Recommendations
from hf_latentrec.evaluation.run import EvaluatedItems, EvaluationRun


FULL, UNSEEN = "nothing filtered", "seen items excluded"
PROTOCOLS = (FULL, UNSEEN)
TITLES = ["<script>alert(1)</script>", "$x^2$ and $y$", "石鹸 日本語", "Soap 🧼", None]


def make_run(
    label: str, quality: float, *, seed: int = 0, num_users: int = 200, num_items: int = 40, **extras: Any
) -> EvaluationRun:
    """Ranks that are the better the larger `quality` is, of the same users and targets for every seed."""
    data = np.random.default_rng(1)
    popularity = np.sort(data.zipf(1.5, num_items).clip(max=900))[::-1].copy()
    popularity[-3:] = 0
    titles = [TITLES[row % len(TITLES)] if row < 10 else f"Item number {row}" for row in range(num_items)]
    items = EvaluatedItems([f"B{row:04}" for row in range(num_items)], titles, popularity)
    targets = data.integers(0, num_items, num_users)
    columns = {
        "target": np.array(items.item_ids, dtype=object)[targets],
        "target_popularity": popularity[targets],
        "history_length": data.integers(1, 30, num_users),
    }
    users = [f"u{row}" for row in range(num_users)]
    draw = np.random.default_rng(seed)
    ranks, recommendations = {}, {}
    for protocol in PROTOCOLS:
        drawn = draw.geometric(quality * (1.3 if protocol == UNSEEN else 1), num_users)
        metadata = {"split_fingerprint": "5ab1e0c4", "protocol": protocol, "num_beams": None}
        ranks[protocol] = RankFile(users, np.where(drawn > num_items, 0, drawn), metadata, None, columns)
        scores = draw.random((num_users, num_items)) + np.linspace(1, 0, num_items)
        recommendations[protocol] = Recommendations(users, np.argsort(-scores, 1)[:, :20])
    details = {"split_fingerprint": "5ab1e0c4", "model_class": "SASRec", "num_parameters": 1_234_567, "seed": 2026}
    return EvaluationRun(label, details, items, ranks, recommendations, **extras)


def thinking_run(label: str, quality: float = 0.2, **sizes: int) -> EvaluationRun:
    """A run that has everything."""
    run, draw = make_run(label, quality, seed=3, **sizes), np.random.default_rng(5)
    num_users = len(run.ranks[FULL].ranks)
    thoughts = draw.choice([1, 2, 3, 4, 6, 8], num_users, p=[0.05, 0.3, 0.25, 0.2, 0.15, 0.05])
    ranks = {name: replace(file, num_thoughts=thoughts) for name, file in run.ranks.items()}
    details = run.details | {
        "model_class": "Qwen3ForLatentReasoning",
        "data": "amazon_beauty_2014",
        "decoding": "constrained beam search",
        "collision_policy": "items that share a code are ranked by popularity, then by id: 12,101 items, 311 of them "
        "share one of 140 codes with another",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "cutoffs": [5, 10, 20],
        "compiled": False,
        "revision": None,
    }
    return replace(
        run, ranks=ranks, details=details, latency=latency(), steps=steps(), factors=factors(), log_history=logged()
    )


def latency() -> list[dict[str, Any]]:
    rows = []
    for size in (1, 4, 16, 64):
        stages = {"encode": 0.02, "think": 0.008, "decode": 0.09}
        for thinking in (True, False, "explicit_cot"):
            factor = (1 / size**0.6) * (12 if thinking == "explicit_cot" else 1)
            names = [name for name in stages if name != "think" or thinking is True]
            seconds = {name: stages[name] * factor for name in names}
            seconds = {"total": sum(seconds.values())} | ({} if thinking == "explicit_cot" else seconds)
            for stage, value in seconds.items():
                rows.append(
                    {
                        "stage": stage, "thinking": thinking, "batch_size": size, "seconds_per_user": value,
                        "users_per_second": 1 / value,
                    }
                )  # fmt: skip
    return rows


def steps() -> dict[str, dict[str, dict[str, list[float]]]]:
    draw = np.random.default_rng(2)

    def metrics(number: int, shift: float) -> dict[str, list[float]]:
        values = 0.03 + shift + 0.008 * np.log2(number) + 0.001 * draw.standard_normal(3)
        return {"HR@10": (1.8 * values).tolist(), "NDCG@10": values.tolist()}

    return {
        protocol: {str(number): metrics(number, shift) for number in (1, 2, 4, 8, 12)}
        for protocol, shift in zip(PROTOCOLS, (0.0, 0.01), strict=True)
    }


def factors() -> dict[str, Any]:
    correlation = [[1.0, 0.31, -0.2, 0.05], [0.31, 1.0, 0.12, 0.4], [-0.2, 0.12, 1.0, -0.07], [0.05, 0.4, -0.07, 1.0]]
    return {
        "num_users": 200, "num_factors": 4, "mean_abs_correlation": 0.24, "abs_mean_correlation": 0.19,
        "correlation": correlation, "disentanglement_score": 0.413, "gates": [0.4, 0.3, 0.2, 0.1],
        "gate_entropy": 1.28, "dominant": [0.6, 0.25, 0.1, 0.05],
    }  # fmt: skip


def logged() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index in range(1, 13):
        step = 10 * index
        rows.append(
            {
                "step": step, "loss": 11 / index, "learning_rate": 1e-3, "reward": 0.02 * index,
                "rewards/ndcg_reward/mean": 0.01 * index, "rewards/rule_reward/mean": 0.01 * index,
                "depth/mean": 4 - 0.1 * index, "depth/share_1": 0.2, "depth/share_2": 0.8, "loss/kl": 1e-5 * index,
            }
        )  # fmt: skip
        scores = {f"eval_{name}@{k}": 0.005 * index * k**0.3 for name in ("HR", "NDCG") for k in (5, 10, 20)}
        rows.append({"step": step, "eval_runtime": 2.0, **scores})
    return [*rows, {"step": 120, "train_runtime": 10.0}]


def minimal_run(label: str = "Popularity") -> EvaluationRun:
    """Nothing but ranks of one protocol."""
    run = make_run(label, 0.05, seed=9)
    ranks = {FULL: replace(run.ranks[FULL], columns={})}
    details = {"split_fingerprint": "5ab1e0c4", "model_class": "Popularity"}
    return replace(run, ranks=ranks, recommendations={}, details=details)
