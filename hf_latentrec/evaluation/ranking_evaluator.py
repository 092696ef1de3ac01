"""What all evaluators share: users in batches on all processes of the launch, ranks in order, metrics over users."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from .metrics import check_cutoffs, ranking_metrics


# How seen items are treated, by the name that tables and rank files carry.
PROTOCOLS = {"nothing filtered": False, "seen items excluded": True}


@dataclass
class EvaluationResult:
    """
    Ranks of one protocol, in the order of the examples.

    Args:
        user_ids (`list[str]`): one per example.
        ranks (`np.ndarray` [users]): 1-based rank of the target, 0 where it is not among the candidates.
        metrics (`dict[str, float]`): HR@K and NDCG@K.
        num_thoughts (`np.ndarray` [users], *optional*): how many thoughts each example had, its depth, where known.
    """

    user_ids: list[str]
    ranks: np.ndarray
    metrics: dict[str, float]
    num_thoughts: np.ndarray | None = None


class RankingEvaluator(ABC):
    """
    Ranks the target of every example among all items. A subclass writes [`num_items`] and [`rank_batch`].

    Args:
        examples (`datasets.Dataset`): rows of `user_id, history, target`.
        batch_size (`int`): users per batch and process.
        ks (`tuple[int, ...]`): cutoffs of the metrics.

    Raises:
        ValueError: for no examples, or a batch size below 1.
    """

    def __init__(self, examples: Dataset, batch_size: int, ks: tuple[int, ...]):
        name = type(self).__name__
        if len(examples) == 0:
            raise ValueError(f"{name}: there are no examples; pass a split with at least one user")
        if batch_size < 1:
            raise ValueError(f"{name}: batch_size is {batch_size}; pass a positive number of users")
        self.examples, self.batch_size, self.ks = examples, batch_size, ks

    @abstractmethod
    def num_items(self, model: Any) -> int:
        """How many items there are to recommend."""

    @abstractmethod
    def rank_batch(
        self, model: Any, prepared: Any, batch: dict[str, list], exclude_seen: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """
        Args:
            model: the recommender, in evaluation mode.
            prepared: what [`prepare`] returned.
            batch (`dict[str, list]`): columns of some examples.
            exclude_seen (`bool`): leave out the items of the history.

        Returns:
            `tuple`: rank of each example and, where known, its number of thoughts.
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
            ValueError: for a cutoff beyond the number of items, or, with `exclude_seen`, for a user who has seen all.
        """
        state = PartialState()
        lengths = np.array([len(history) for history in self.examples["history"]])
        check_cutoffs(self.ks, self.num_items(model))
        if exclude_seen:
            self._check_something_is_unseen(lengths, self.num_items(model))
        # Users of similar history length share a batch, so little is padded; every process takes every n-th batch.
        by_length = np.argsort(-lengths, kind="stable")
        batches = [by_length[i : i + self.batch_size] for i in range(0, len(by_length), self.batch_size)]
        mine = batches[state.process_index :: state.num_processes]
        progress = tqdm(mine, desc=description or "evaluate", disable=not state.is_main_process, unit="batch")
        results = []
        with evaluation_mode(model):
            prepared = self.prepare(model)
            for rows in progress:
                results.append((rows, *self.rank_batch(model, prepared, self.examples[rows], exclude_seen)))
        rows, ranks, num_thoughts = zip(*gather_object(results), strict=True)
        place = np.argsort(np.concatenate(rows))
        ranks = np.concatenate(ranks)[place]
        return EvaluationResult(
            list(self.examples["user_id"]),
            ranks,
            ranking_metrics(ranks, self.ks),
            None if num_thoughts[0] is None else np.concatenate(num_thoughts)[place],
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


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout is off in the block. A recommender that is no network, such as popularity, has no modes."""
    if not isinstance(model, nn.Module):
        yield
        return
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


__all__ = ["PROTOCOLS", "EvaluationResult", "RankingEvaluator"]
