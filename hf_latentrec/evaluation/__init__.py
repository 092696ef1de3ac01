"""Ranking metrics, per-user rank files and the tables that show them."""

from __future__ import annotations

from .evaluator import PROTOCOLS, EvaluationResult, RecEvaluator
from .metrics import hit_rate, ndcg, ranking_metrics
from .ranks import RankFile, load_ranks, save_ranks
from .tables import format_metric_table


__all__ = [
    "PROTOCOLS",
    "EvaluationResult",
    "RankFile",
    "RecEvaluator",
    "format_metric_table",
    "hit_rate",
    "load_ranks",
    "ndcg",
    "ranking_metrics",
    "save_ranks",
]
