"""Ranking metrics, per-user rank files, latency, and the tables that show them."""

from __future__ import annotations

from .evaluator import DECODERS, PROTOCOLS, EvaluationResult, RecEvaluator
from .latency import Latency, measure_latency
from .metrics import hit_rate, ndcg, ranking_metrics
from .popularity import GroupMetrics, metrics_by_popularity, popular_items
from .ranks import RankFile, load_ranks, save_ranks
from .tables import format_metric_table, format_seed_table


__all__ = [
    "DECODERS",
    "PROTOCOLS",
    "EvaluationResult",
    "GroupMetrics",
    "Latency",
    "RankFile",
    "RecEvaluator",
    "format_metric_table",
    "format_seed_table",
    "hit_rate",
    "load_ranks",
    "measure_latency",
    "metrics_by_popularity",
    "ndcg",
    "popular_items",
    "ranking_metrics",
    "save_ranks",
]
