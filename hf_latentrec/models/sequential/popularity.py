"""The items that most people take."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ..lares.configuration_sequential import SequentialConfig
from ..lares.item_table import ItemTable
from ..lares.sequential_recommender import SequentialRecommender


@strict
class PopularityConfig(SequentialConfig):
    """Settings of [`PopularityRecommender`], which has none of its own."""

    model_type = "popularity_rec"


class PopularityRecommender(SequentialRecommender):
    """
    Recommends everybody the items that occur most often in the training data. It has nothing to train, and is saved,
    loaded and evaluated like every other recommender.

    Args:
        config ([`PopularityConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog, with popularities.

    Raises:
        ValueError: for a table without popularities.

    Example:

    ```python
    >>> from hf_latentrec import ItemTable, PopularityConfig, PopularityRecommender

    >>> items = ItemTable(["a", "b", "c"], popularity=[1, 5, 3])
    >>> model = PopularityRecommender(PopularityConfig(num_items=3), items=items)
    >>> [item["item_id"] for item in model.recommend([["a"]], k=2)[0]]
    ['b', 'c']

    ```
    """

    config_class = PopularityConfig

    def __init__(self, config: PopularityConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.counts = nn.Parameter(torch.zeros(config.num_items), requires_grad=False)
        if items is not None:
            if items.popularity is None:
                raise ValueError(
                    "PopularityRecommender: the item table has no popularities; pass ItemTable(..., popularity=...)"
                )
            self.counts.data = torch.from_numpy(items.popularity).float()
        self.post_init()

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """The same state for everybody, [B, L, 1]; see [`SequentialRecommender`]."""
        return self.counts.new_ones(*input_ids.shape, 1)

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """The items' counts for everybody, [B, block]."""
        return states * self.counts[items]


__all__ = ["PopularityConfig", "PopularityRecommender"]
