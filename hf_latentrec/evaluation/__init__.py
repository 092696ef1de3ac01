"""Ranking metrics, per-user rank files, latency, the tables that show them, and what a thought looks at (drawn by
`.plots`; a run of reinforcement learning by `.training_plots`; both need the extra `plots`)."""

from __future__ import annotations

from .evaluator import DECODERS, RecEvaluator
from .explanation import Explanation, explain
from .factors import FactorStatistics, disentanglement_score, measure_factors
from .latency import measure_item_latency, measure_latency
from .metrics import check_cutoffs, hit_rate, ndcg, ranking_metrics
from .popularity import GroupMetrics, metrics_by_popularity, popular_items
from .ranking_evaluator import MATCHES, PROTOCOLS, EvaluationResult, RankedBatch, RankingEvaluator
from .ranks import RankFile, load_ranks, save_ranks
from .recommendation_files import Recommendations, load_recommendations, save_recommendations
from .run import EvaluatedItems, EvaluationRun
from .sequential_evaluator import SequentialEvaluator
from .tables import format_metric_table, format_seed_table


__all__ = [
    "DECODERS",
    "MATCHES",
    "PROTOCOLS",
    "EvaluatedItems",
    "EvaluationResult",
    "EvaluationRun",
    "Explanation",
    "FactorStatistics",
    "GroupMetrics",
    "RankFile",
    "RankedBatch",
    "RankingEvaluator",
    "RecEvaluator",
    "Recommendations",
    "SequentialEvaluator",
    "check_cutoffs",
    "disentanglement_score",
    "explain",
    "format_metric_table",
    "format_seed_table",
    "hit_rate",
    "load_ranks",
    "load_recommendations",
    "measure_factors",
    "measure_item_latency",
    "measure_latency",
    "metrics_by_popularity",
    "ndcg",
    "popular_items",
    "ranking_metrics",
    "save_ranks",
    "save_recommendations",
]
