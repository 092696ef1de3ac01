"""Full-catalog evaluation of item-ID recommenders: every item is scored for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from .ranking_evaluator import RankingEvaluator


if TYPE_CHECKING:
    from ..models.lares.sequential_recommender import SequentialRecommender


class SequentialEvaluator(RankingEvaluator):
    """
    Ranks all items for every example by `model.rank_targets`, on all processes of the launch.

    Args:
        examples (`datasets.Dataset`): rows of `user_id, history, target`.
        ks (`tuple[int, ...]`, *optional*): cutoffs of the metrics.
        batch_size (`int`, *optional*, defaults to 1024): users per batch and process.
        num_steps (`int`, *optional*): for a model that reasons in steps (LARES): how many, in place of its own number.
        seed (`int`, *optional*): for a model whose evaluation is random (LARES): of its first state.
        split_fingerprint (`str`, *optional*): of the split that the examples are from; rank files keep it.

    Raises:
        ValueError: for no examples.

    Example:
        >>> from hf_latentrec import ItemTable, SASRecConfig, SASRecForSequentialRecommendation
        >>> items = ItemTable(["a", "b", "c"])
        >>> model = SASRecForSequentialRecommendation(SASRecConfig(num_items=3), items)
        >>> examples = Dataset.from_dict({"user_id": ["u"], "history": [["a", "c"]], "target": ["b"]})
        >>> SequentialEvaluator(examples, ks=(1,)).evaluate(model, exclude_seen=True).metrics
        {'HR@1': 1.0, 'NDCG@1': 1.0}
    """

    num_beams = None  # every item is ranked

    def __init__(
        self,
        examples: Dataset,
        ks: tuple[int, ...] = (5, 10, 20),
        batch_size: int = 1024,
        num_steps: int | None = None,
        seed: int | None = None,
        split_fingerprint: str | None = None,
    ):
        super().__init__(examples, batch_size, ks)
        self.num_steps, self.seed, self.split_fingerprint = num_steps, seed, split_fingerprint

    def num_items(self, model: SequentialRecommender) -> int:
        return len(model.items)

    def rank_batch(
        self, model: SequentialRecommender, prepared: None, batch: dict[str, list], exclude_seen: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        given = {"num_steps": self.num_steps, "seed": self.seed}
        given = {name: value for name, value in given.items() if value is not None}
        ranks = model.rank_targets(batch["history"], batch["target"], exclude_seen=exclude_seen, **given)
        return ranks, None if self.num_steps is None else np.full(len(ranks), self.num_steps)


__all__ = ["SequentialEvaluator"]
