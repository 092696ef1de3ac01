"""Full-catalog evaluation of item-ID recommenders: every item is scored for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from .ranking_evaluator import RankedBatch, RankingEvaluator


if TYPE_CHECKING:
    from ..models.lares.item_table import ItemTable
    from ..models.lares.sequential_recommender import SequentialRecommender


class SequentialEvaluator(RankingEvaluator):
    """
    Ranks all items for every example by `model.rank_targets`, or with `top_k` by `model.rank_and_recommend`, on all
    processes of the launch.

    Args:
        examples (`datasets.Dataset`): rows of `user_id, history, target`.
        ks (`tuple[int, ...]`, *optional*): cutoffs of the metrics.
        batch_size (`int`, *optional*, defaults to 1024): users per batch and process.
        num_steps (`int`, *optional*): for a model that reasons in steps (LARES): how many, in place of its own number.
        seed (`int`, *optional*): for a model whose evaluation is random (LARES): of its first state.
        split_fingerprint (`str`, *optional*): of the split that the examples are from; rank files keep it.
        top_k (`int`, *optional*, defaults to 0): keep this many recommended items of every user.
        match (`str`, *optional*, defaults to `"item"`): what a hit is, see [`RankingEvaluator`].

    Raises:
        ValueError: for no examples, or an unknown match.

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
        top_k: int = 0,
        match: str = "item",
    ):
        super().__init__(examples, batch_size, ks, top_k, match)
        self.num_steps, self.seed, self.split_fingerprint = num_steps, seed, split_fingerprint

    def catalog(self, model: SequentialRecommender) -> ItemTable:
        return model.items

    def rank_batch(
        self,
        model: SequentialRecommender,
        prepared: None,
        batch: dict[str, list],
        exclude_seen: bool,
        item_groups: np.ndarray | None,
    ) -> RankedBatch:
        given = {"num_steps": self.num_steps, "seed": self.seed, "item_groups": item_groups}
        given = {name: value for name, value in given.items() if value is not None}
        pairs, item_rows = (batch["history"], batch["target"]), None
        if self.top_k:
            ranks, item_rows = model.rank_and_recommend(*pairs, self.top_k, exclude_seen=exclude_seen, **given)
        else:
            ranks = model.rank_targets(*pairs, exclude_seen=exclude_seen, **given)
        return RankedBatch(ranks, None if self.num_steps is None else np.full(len(ranks), self.num_steps), item_rows)


__all__ = ["SequentialEvaluator"]
