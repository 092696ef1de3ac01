"""What all evaluators share: users in batches on all processes of the launch, ranks in order, metrics over users.

Shapes: B users of a batch, U users of all, K recommended items, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from ..models.modes import eval_mode
from .metrics import check_cutoff, check_cutoffs, ranking_metrics


# How seen items are treated, by the name that tables and rank files carry.
PROTOCOLS = {"nothing filtered": False, "seen items excluded": True}
MATCHES = ("item", "title")


@dataclass
class RankedBatch:
    """
    What is known of the users of a batch, in its order.

    Args:
        ranks (`np.ndarray` [B]): 1-based rank of the target, 0 where it is not among the candidates.
        num_thoughts (`np.ndarray` [B], *optional*): how many thoughts each user had, where known.
        item_rows (`np.ndarray` [B, K], *optional*): catalog rows of the best items, padded with -1; where asked for.
    """

    ranks: np.ndarray
    num_thoughts: np.ndarray | None = None
    item_rows: np.ndarray | None = None


@dataclass
class EvaluationResult:
    """
    Ranks of one protocol, in the order of the examples.

    Args:
        user_ids (`list[str]`): one per example.
        ranks (`np.ndarray` [users]): 1-based rank of the target, 0 where it is not among the candidates.
        metrics (`dict[str, float]`): HR@K and NDCG@K.
        num_thoughts (`np.ndarray` [users], *optional*): how many thoughts each example had, its depth, where known.
        recommendations (`np.ndarray` [users, K], *optional*): catalog rows of the best items, padded with -1; with
            `top_k`.
    """

    user_ids: list[str]
    ranks: np.ndarray
    metrics: dict[str, float]
    num_thoughts: np.ndarray | None = None
    recommendations: np.ndarray | None = None


class RankingEvaluator(ABC):
    """
    Ranks the target of every example among all items. A subclass writes [`catalog`] and [`rank_batch`].

    The whole catalog is ranked, always. To rank a target among a few sampled items instead is cheaper, but the metrics
    of such a list are no estimate of those of the catalog: they may reverse which of two models is better (Krichene
    and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020). So there is no such protocol here.

    With `match="item"`, items that share a token sequence take consecutive ranks, by popularity, then by catalog order
    ([`ItemCatalog.describe_collisions`]). `match="title"` is what the papers' code does: it compares text, so an item
    whose title equals the target's, letter by letter, is a hit. The target's rank is then the best among those items;
    an item without a title matches itself alone.

    Args:
        examples (`datasets.Dataset`): rows of `user_id, history, target`.
        batch_size (`int`): users per batch and process.
        ks (`tuple[int, ...]`): cutoffs of the metrics.
        top_k (`int`, *optional*, defaults to 0): keep this many recommended items of every user.
        match (`str`, *optional*, defaults to `"item"`): what a hit is: the target itself, or any item with its
            `"title"`.

    Raises:
        ValueError: for no examples, a batch size below 1, no cutoff or one below 1, a negative `top_k`, or an unknown
            `match`.
    """

    def __init__(self, examples: Dataset, batch_size: int, ks: tuple[int, ...], top_k: int = 0, match: str = "item"):
        name = type(self).__name__
        if len(examples) == 0:
            raise ValueError(f"{name}: there are no examples; pass a split with at least one user")
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size is {batch_size}; pass a positive number of users")
        if top_k < 0:
            raise ValueError(f"{name}: top_k is {top_k}; pass how many recommended items to keep, or 0")
        if match not in MATCHES:
            raise ValueError(f"{name}: match is {match!r}; choose one of {MATCHES}")
        if not ks:
            raise ValueError(f"{name}: ks is empty; pass at least one cutoff, such as (5, 10, 20)")
        for k in ks:
            check_cutoff(k)
        self.examples, self.batch_size, self.ks = examples, batch_size, ks
        self.top_k, self.match = top_k, match

    @abstractmethod
    def catalog(self, model: Any) -> Any:
        """What is ranked: has a length and, by catalog row, `item_ids` and `titles`."""

    @abstractmethod
    def rank_batch(
        self, model: Any, prepared: Any, batch: dict[str, list], exclude_seen: bool, item_groups: np.ndarray | None
    ) -> RankedBatch:
        """
        Args:
            model: the recommender, in evaluation mode.
            prepared: what [`prepare`] returned.
            batch (`dict[str, list]`): columns of some examples.
            exclude_seen (`bool`): leave out the items of the history.
            item_groups (`np.ndarray` [I], *optional*): items with the same number count as the same; by default each
                item counts for itself.

        Returns:
            [`RankedBatch`].
        """

    def prepare(self, model: Any) -> Any:
        """What all batches of one evaluation share."""
        return None

    @torch.inference_mode()
    def evaluate(self, model: Any, exclude_seen: bool = False, description: str = "") -> EvaluationResult:
        """
        Args:
            model: the unwrapped recommender.
            exclude_seen (`bool`, *optional*, defaults to `False`): recommend only items that are not in the history.
            description (`str`, *optional*): of the progress bar.

        Returns:
            `EvaluationResult`: the same on every process.

        Raises:
            ValueError: for a cutoff beyond the number of items, with `exclude_seen` for a user who has seen all, or
                with `match="title"` for a catalog without titles.
        """
        state = PartialState()
        lengths = np.array([len(history) for history in self.examples["history"]])
        catalog = self.catalog(model)
        check_cutoffs(self.ks, len(catalog))
        if exclude_seen:
            self._check_something_is_unseen(lengths, len(catalog))
        item_groups = title_groups(catalog.titles) if self.match == "title" else None
        # Users of similar history length share a batch, so little is padded; every process takes every n-th batch.
        by_length = np.argsort(-lengths, kind="stable")
        batches = [by_length[i : i + self.batch_size] for i in range(0, len(by_length), self.batch_size)]
        mine = batches[state.process_index :: state.num_processes]
        progress = tqdm(mine, desc=description or "evaluate", disable=not state.is_main_process, unit="batch")
        results = []
        with eval_mode(model):
            prepared = self.prepare(model)
            for rows in progress:
                ranked = self.rank_batch(model, prepared, self.examples[rows], exclude_seen, item_groups)
                results.append((rows, ranked))
        rows, parts = zip(*gather_object(results), strict=True)
        place = np.argsort(np.concatenate(rows))

        def in_order(name: str) -> np.ndarray | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else np.concatenate(values)[place]

        ranks = in_order("ranks")
        return EvaluationResult(
            list(self.examples["user_id"]),
            ranks,
            ranking_metrics(ranks, self.ks),
            in_order("num_thoughts"),
            in_order("item_rows"),
        )

    def _check_something_is_unseen(self, history_lengths: np.ndarray, num_items: int) -> None:
        """Before the first batch, and on every process: one that stopped alone would leave the others waiting."""
        for row in np.flatnonzero(history_lengths >= num_items).tolist():
            example = self.examples[row]
            if len(set(example["history"])) >= num_items:
                raise ValueError(
                    f"{type(self).__name__}: user_id {example['user_id']!r} (example {row}) has seen all {num_items} "
                    "items, so exclude_seen=True leaves nothing to rank; leave the user out, or pass "
                    "exclude_seen=False"
                )


def title_groups(titles: Sequence[str | None]) -> np.ndarray:
    """
    Which items have the same title.

    Args:
        titles (`Sequence[str | None]`, length I): of the catalog.

    Returns:
        `np.ndarray` [I], int64: for each item the first row that has its title; its own row where it has none.

    Raises:
        ValueError: for items of which none has a title.

    Example:
        >>> title_groups(["Soap", None, "Soap", None]).tolist()
        [0, 1, 0, 3]
    """
    if not any(title is not None for title in titles):
        raise ValueError(
            f'match="title": none of the {len(titles):,} items has a title, so no title can match; pass match="item"'
        )
    first_row: dict[str, int] = {}
    return np.array(
        [row if title is None else first_row.setdefault(title, row) for row, title in enumerate(titles)],
        dtype=np.int64,
    )


__all__ = ["MATCHES", "PROTOCOLS", "EvaluationResult", "RankedBatch", "RankingEvaluator", "title_groups"]
