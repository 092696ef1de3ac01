"""Ranking metrics as a module of `evaluate`: ranked lists against one or several relevant items, on any processes.

Shapes: U users, P predictions of all users, R relevant items of all users, H predictions that are relevant.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Not relative: `evaluate.load` copies the file to a place of its own.
from hf_latentrec.evaluation.metrics import METRICS, check_cutoff


logger = logging.getLogger(__name__)

_DESCRIPTION = "HR, NDCG, Recall, MRR, MAP and Precision of ranked recommendations at any cutoffs."
_INPUTS = """
Args:
    predictions (`list[list[str]]`): item ids recommended to each user, best first.
    references (`list[list[str]]`): relevant item ids of each user, one or several.
    ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): cutoffs.

Returns:
    `dict[str, float]`: such as `{"HR@5": ..., "NDCG@5": ...}`; `None` on processes other than the first.
"""


class RankingMetrics(evaluate.Metric):
    r"""
    Means over users of binary relevance $rel_r \in \{0, 1\}$ at ranks $r = 1, 2, \dots$ against $R$ relevant items:

    | metric | of one user |
    |---|---|
    | HR@k | $[\sum_{r \le k} rel_r > 0]$ |
    | Recall@k | $\sum_{r \le k} rel_r / R$ |
    | Precision@k | $\sum_{r \le k} rel_r / k$, also where fewer than k items are predicted |
    | MRR@k | $1 / r$ of the first relevant item, 0 if it is beyond k |
    | MAP@k | $\frac{1}{R} \sum_{r \le k} rel_r \, \text{Precision@}r$ |
    | NDCG@k | $\sum_{r \le k} \frac{rel_r}{\log_2(r + 1)} \big/ \sum_{r \le \min(k, R)} \frac{1}{\log_2(r + 1)}$ |

    These are the definitions of trec_eval. Its MAP divides by all relevant items $R$, so that at a cutoff below $R$ it
    cannot reach 1; others divide by $\min(k, R)$. With one relevant item the two are the same.

    The arguments are those of any `evaluate.Metric`. With several processes, each makes the metric with the same
    `num_process`, `experiment_id` and `cache_dir` and its own `process_id`, adds its share of the users, and calls
    `compute`; the first one gets the metrics.

    Args:
        config_name (`str`, *optional*): the metric wanted, one of `"HR"`, `"NDCG"`, `"Recall"`, `"MRR"`, `"MAP"` and
            `"Precision"`; by default all of them.
        **kwargs: of `evaluate.Metric`, such as `num_process`, `process_id`, `experiment_id`, `keep_in_memory`.

    Raises:
        ValueError: an unknown metric. In `compute`: no users; a user without predictions or without relevant items, a
            missing item id, or an item twice among the predictions or the relevant items of a user.

    Example:
        >>> metric = RankingMetrics("NDCG", keep_in_memory=True)
        >>> metric.add_batch(predictions=[["a", "b", "c"], ["a", "b", "c"]], references=[["a"], ["b", "c"]])
        >>> metric.compute(ks=(1, 3))
        {'NDCG@1': 0.5, 'NDCG@3': 0.84...}

        From the path of its file, without a network: `evaluate.load(hf_latentrec.evaluation.metric_modules.__file__,
        "NDCG")`.
    """

    def __init__(self, config_name: str | None = None, **kwargs: Any):
        if config_name not in (None, "default", *METRICS):
            raise ValueError(f"RankingMetrics: metric {config_name!r} is unknown; choose one of {METRICS}, or none")
        super().__init__(config_name=config_name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        of_items = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": of_items, "references": of_items}),
        )

    def _compute(
        self, *, predictions: list[list[str]], references: list[list[str]], ks: Sequence[int] = (5, 10, 20)
    ) -> dict[str, float]:
        names = METRICS if self.config_name == "default" else (self.config_name,)
        return ranked_list_metrics(predictions, references, ks, names)


def ranked_list_metrics(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    ks: Sequence[int] = (5, 10, 20),
    names: Sequence[str] = METRICS,
) -> dict[str, float]:
    """
    What [`RankingMetrics`] computes, of users who are all at hand.

    Args:
        predictions (`Sequence[Sequence[str]]`, length U): item ids recommended to each user, best first.
        references (`Sequence[Sequence[str]]`, length U): relevant item ids of each user.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): cutoffs.
        names (`Sequence[str]`, *optional*): metrics; by default all.

    Returns:
        `dict[str, float]`: by name and cutoff.

    Raises:
        ValueError: as [`RankingMetrics`], or not as many predictions as references.

    Example:
        >>> ranked_list_metrics([["a", "b"]], [["b"]], ks=(2,), names=("HR", "MRR"))
        {'HR@2': 1.0, 'MRR@2': 0.5}
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} references; give both of every user")
    if len(predictions) == 0:
        raise ValueError("predictions: there are no users; add the predictions of one at least")
    if len(ks) == 0:
        raise ValueError("ks is empty; name at least one cutoff, for example ks=(5, 10, 20)")
    for k in ks:
        check_cutoff(k)
    item_P, predicted_U = _flatten(predictions, "predictions", "predict at least one item, or leave the user out")
    item_R, relevant_U = _flatten(references, "references", "give what is relevant, or leave the user out")
    if max(ks) > predicted_U.max():
        logger.warning(
            "The longest prediction has %d items, so metrics at %d count no more of them", predicted_U.max(), max(ks)
        )
    encoded = pa.concat_arrays([item_P, item_R]).dictionary_encode()
    items, code = encoded.dictionary, encoded.indices.to_numpy()
    # One whole number for each pair of user and item, so that membership is one search for all users.
    users = np.arange(len(predicted_U))
    user_P = np.repeat(users, predicted_U)
    pair_P = user_P * len(items) + code[: len(item_P)]
    pair_R = np.repeat(users, relevant_U) * len(items) + code[len(item_P) :]
    _check_unique(pair_P, items, "predictions", "a list that repeats an item is not a ranking")
    _check_unique(pair_R, items, "references", "give each relevant item once")
    hit_P = np.isin(pair_P, pair_R)
    start_U = predicted_U.cumsum() - predicted_U
    user_H, place_H = user_P[hit_P], (np.arange(len(pair_P)) - start_U[user_P] + 1)[hit_P]
    hits = _Hits(user_H, place_H, relevant_U)
    return {f"{name}@{k}": float(hits.values(name, k).mean()) for k in ks for name in names}


@dataclass(frozen=True)
class _Hits:
    """Predictions that are relevant, in order: whose they are and their places from 1; how many are relevant."""

    user_H: np.ndarray
    place_H: np.ndarray
    relevant_U: np.ndarray

    def values(self, name: str, k: int) -> np.ndarray:
        """Of each user, shape [U]."""
        within_H = self.place_H <= k
        match name:
            case "HR":
                return np.minimum(self._sum(within_H), 1)
            case "Recall":
                return self._sum(within_H) / self.relevant_U
            case "Precision":
                return self._sum(within_H) / k
            case "MRR":
                return self._sum(within_H & (self._found_so_far() == 1), 1 / self.place_H)
            case "MAP":
                return self._sum(within_H, self._found_so_far() / self.place_H) / self.relevant_U
            case "NDCG":
                best = np.minimum(self.relevant_U, k)
                ideal = np.cumsum(1 / np.log2(np.arange(best.max()) + 2.0))
                return self._sum(within_H, 1 / np.log2(self.place_H + 1.0)) / ideal[best - 1]
        raise ValueError(f"metric {name!r} is unknown; choose among {METRICS}")

    def _sum(self, chosen_H: np.ndarray, gain_H: np.ndarray | None = None) -> np.ndarray:
        gains = None if gain_H is None else gain_H[chosen_H]
        return np.bincount(self.user_H[chosen_H], gains, minlength=len(self.relevant_U))

    def _found_so_far(self) -> np.ndarray:
        """How many of a user's relevant items there are up to each hit, itself included; shape [H]."""
        hits_U = self._sum(np.ones(len(self.user_H), dtype=bool))
        return np.arange(len(self.user_H)) - (hits_U.cumsum() - hits_U)[self.user_H] + 1


def _flatten(lists: Sequence[Sequence[str]], what: str, remedy: str) -> tuple[pa.Array, np.ndarray]:
    """Item ids of all users one after another, and how many each user has, which is one at least."""
    try:
        array = pa.array(lists, pa.list_(pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{what}: expected a list of item ids, as text, for every user; found {error}") from error
    length_U = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    if (length_U == 0).any():
        rows = np.flatnonzero(length_U == 0)
        raise ValueError(f"{what}: the list of the user in row {rows[0]} is empty ({len(rows)} such rows); {remedy}")
    items = pc.list_flatten(array)
    if items.null_count > 0:
        row = int(np.repeat(np.arange(len(length_U)), length_U)[items.is_null().index(True).as_py()])
        raise ValueError(f"{what}: an item id of the user in row {row} is None; {remedy}")
    return items, length_U


def _check_unique(pairs: np.ndarray, items: pa.Array, what: str, remedy: str) -> None:
    sorted_pairs = np.sort(pairs)
    twice = sorted_pairs[1:][sorted_pairs[1:] == sorted_pairs[:-1]]
    if len(twice) > 0:
        row, item = divmod(int(twice[0]), len(items))
        raise ValueError(
            f"{what}: the user in row {row} has the item {items[item].as_py()!r} more than once; {remedy}"
        )


__all__ = ["RankingMetrics", "ranked_list_metrics"]
