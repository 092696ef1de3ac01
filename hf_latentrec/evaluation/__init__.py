"""Metrics of ranks, of lists and of groups of users, files of evaluated models, their comparison, latency, the tables
that show them, and what a thought looks at (drawn by `.plots`; a run of reinforcement learning by `.training_plots`;
both need the extra `plots`).

`.metric_modules` is imported by who wants it: it needs the library `evaluate`, whose name a script of the recipes has,
too, and from there the script would be found first."""

from __future__ import annotations

from .comparison import MetricComparison, check_comparable, compare_ranks
from .evaluator import DECODERS, RecEvaluator
from .explanation import Explanation, explain
from .factors import FactorStatistics, disentanglement_score, measure_factors
from .groups import GroupMetrics, length_buckets, metrics_by_group
from .latency import measure_item_latency, measure_latency
from .list_metrics import (
    catalog_coverage,
    gini,
    intra_list_diversity,
    metrics_of_lists,
    novelty,
    title_vectors,
)
from .metrics import (
    METRICS,
    check_cutoffs,
    hit_rate,
    mean_average_precision,
    metric_values,
    mrr,
    ndcg,
    precision,
    ranking_metrics,
    recall,
    split_metric,
)
from .popularity import metrics_by_popularity, popular_items
from .ranking_evaluator import MATCHES, PROTOCOLS, EvaluationResult, RankedBatch, RankingEvaluator
from .ranks import RankFile, load_ranks, save_ranks
from .recommendation_files import Recommendations, load_recommendations, save_recommendations
from .run import EvaluatedItems, EvaluationRun
from .sequential_evaluator import SequentialEvaluator
from .significance import (
    CORRECTIONS,
    bootstrap_interval,
    correct_p_values,
    differences_of_users,
    paired_t_test,
    wilcoxon_test,
)
from .summary import summarize
from .tables import format_metric_table, format_seed_table, format_table


__all__ = [
    "CORRECTIONS",
    "DECODERS",
    "MATCHES",
    "METRICS",
    "PROTOCOLS",
    "EvaluatedItems",
    "EvaluationResult",
    "EvaluationRun",
    "Explanation",
    "FactorStatistics",
    "GroupMetrics",
    "MetricComparison",
    "RankFile",
    "RankedBatch",
    "RankingEvaluator",
    "RecEvaluator",
    "Recommendations",
    "SequentialEvaluator",
    "bootstrap_interval",
    "catalog_coverage",
    "check_comparable",
    "check_cutoffs",
    "compare_ranks",
    "correct_p_values",
    "differences_of_users",
    "disentanglement_score",
    "explain",
    "format_metric_table",
    "format_seed_table",
    "format_table",
    "gini",
    "hit_rate",
    "intra_list_diversity",
    "length_buckets",
    "load_ranks",
    "load_recommendations",
    "mean_average_precision",
    "measure_factors",
    "measure_item_latency",
    "measure_latency",
    "metric_values",
    "metrics_by_group",
    "metrics_by_popularity",
    "metrics_of_lists",
    "mrr",
    "ndcg",
    "novelty",
    "paired_t_test",
    "popular_items",
    "precision",
    "ranking_metrics",
    "recall",
    "save_ranks",
    "save_recommendations",
    "split_metric",
    "summarize",
    "title_vectors",
    "wilcoxon_test",
]
