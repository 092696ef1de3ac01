"""All figures of one evaluated model under one protocol, for tables, reports and model cards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from .groups import GroupMetrics, length_buckets, metrics_by_group
from .list_metrics import metrics_of_lists, title_vectors
from .metrics import METRICS, mrr, ranking_metrics
from .popularity import metrics_by_popularity
from .ranks import RankFile
from .run import EvaluatedItems, EvaluationRun


logger = logging.getLogger(__name__)


def summarize(
    run: EvaluationRun,
    protocol: str,
    ks: Sequence[int] = (5, 10, 20),
    item_vectors: np.ndarray | sparse.sparray | None = None,
) -> dict[str, Any]:
    """
    Metrics over all users, of their lists, and by group. What the run says nothing of is left out, as is a group
    without users.

    Args:
        run ([`EvaluationRun`]): the evaluated model.
        protocol (`str`): one of `run.ranks`, such as `"nothing filtered"`.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): cutoffs. For lists, those up to their length.
        item_vectors (`np.ndarray` or sparse array of `scipy.sparse`, shape `[I, D]`, *optional*): features of
            `run.items` that intra-list diversity is measured by; by default the words of titles, see
            [`title_vectors`].

    Returns:
        `dict`, which JSON can hold:

        - `"num_users"` (`int`).
        - `"all"`: every metric at every cutoff, and `"MRR"` without one.
        - `"lists"`: see [`metrics_of_lists`]; empty where the run has no recommendations.
        - `"groups"`: of `"popularity"` (`"popular"`, `"long-tail"`), `"history length"` (`"1-3"`, ...),
          `"cold start"` (`"cold"` targets that nobody had in training, `"warm"`) and `"depth"` (thoughts): by group
          `{"num_users": ..., "metrics": {...}}` with HR and NDCG.
        - `"mean_depth"` (`float` or `None`): mean number of thoughts.

    Raises:
        ValueError: the run has no such protocol, a target is not among its items, or what its metrics raise.

    Example:
        >>> items = EvaluatedItems(["a", "b"], ["Apple", "Bee"], np.array([3, 1]))
        >>> metadata = {"split_fingerprint": "s1", "protocol": "nothing filtered", "num_beams": None}
        >>> ranks = RankFile(["u1", "u2"], np.array([1, 2]), metadata, num_thoughts=np.array([4, 2]))
        >>> run = EvaluationRun("SASRec", {"split_fingerprint": "s1"}, items, {"nothing filtered": ranks})
        >>> summary = summarize(run, "nothing filtered", ks=(1,))
        >>> summary["all"]["HR@1"], summary["mean_depth"], summary["groups"]["depth"]["2"]
        (0.5, 3.0, {'num_users': 1, 'metrics': {'HR@1': 0.0, 'NDCG@1': 0.0}})
    """
    if protocol not in run.ranks:
        raise ValueError(f"summarize: {run.label} has no ranks of {protocol!r}; it has those of {list(run.ranks)}")
    ranks = run.ranks[protocol]
    num_beams = ranks.metadata.get("num_beams")
    if num_beams is not None and max(ks) > num_beams:
        logger.warning("%s ranked %d items per user; metrics at %d count no more", run.label, num_beams, max(ks))
    depth_U = ranks.num_thoughts
    groups = {name: _as_json(of) for name, of in _groups(ranks, run.items, ks).items()}
    return {
        "num_users": len(ranks.ranks),
        "all": ranking_metrics(ranks.ranks, ks, METRICS) | {"MRR": mrr(ranks.ranks)},
        "lists": _lists(run, protocol, ks, item_vectors),
        "groups": groups,
        "mean_depth": None if depth_U is None else float(depth_U.mean()),
    }


def _lists(
    run: EvaluationRun, protocol: str, ks: Sequence[int], item_vectors: np.ndarray | sparse.sparray | None
) -> dict[str, float]:
    if protocol not in run.recommendations:
        return {}
    if item_vectors is None and any(run.items.titles):
        item_vectors = title_vectors(run.items.titles)
    return metrics_of_lists(run.recommendations[protocol].item_rows, run.items.popularity, ks, item_vectors)


def _groups(ranks: RankFile, items: EvaluatedItems, ks: Sequence[int]) -> dict[str, dict[str, GroupMetrics]]:
    groups, columns = {}, ranks.columns
    if "target" in columns and items.popularity.any():
        rows = _target_rows(ranks, items)
        groups["popularity"] = metrics_by_popularity(ranks.ranks, rows, items.popularity, ks)
    if "history_length" in columns:
        labels, buckets = length_buckets(columns["history_length"])
        groups["history length"] = metrics_by_group(ranks.ranks, labels, ks, groups=buckets)
    if "target_popularity" in columns:
        labels = np.where(columns["target_popularity"] == 0, "cold", "warm")
        groups["cold start"] = metrics_by_group(ranks.ranks, labels, ks)
    if ranks.num_thoughts is not None:
        groups["depth"] = metrics_by_group(ranks.ranks, ranks.num_thoughts, ks)
    return groups


def _target_rows(ranks: RankFile, items: EvaluatedItems) -> np.ndarray:
    targets = pa.array(ranks.columns["target"], pa.string())
    rows = pc.index_in(targets, pa.array(items.item_ids, pa.string()))
    if rows.null_count > 0:
        user = rows.is_null().index(True).as_py()
        raise ValueError(
            f"summarize: the target {targets[user].as_py()!r} of user_id {ranks.user_ids[user]!r} is not among the "
            f"{len(items.item_ids)} items of the run; evaluate again"
        )
    return rows.to_numpy()


def _as_json(groups: dict[str, GroupMetrics]) -> dict[str, dict[str, Any]]:
    return {
        label: {"num_users": group.num_users, "metrics": group.metrics}
        for label, group in groups.items()
        if group.num_users > 0
    }


__all__ = ["summarize"]
