"""FMLP-Rec: learnable filters in the frequency domain (Zhou et al. 2022)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict

from ..lares.configuration_sequential import SequentialConfig
from ..lares.frequency_layers import FilterLayer
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack
from .base import EmbeddingRecommender, WholeWindow


@strict
class FMLPRecConfig(SequentialConfig):
    """Settings of [`FMLPRecForSequentialRecommendation`]: those of [`SequentialConfig`]."""

    model_type = "fmlp_rec"


class FMLPRecForSequentialRecommendation(WholeWindow, EmbeddingRecommender):
    """
    Blocks of a frequency filter and a feed-forward network ([`FilterLayer`]) over a window of the history.

    Args:
        config ([`FMLPRecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import FMLPRecConfig, FMLPRecForSequentialRecommendation, ItemTable

    >>> model = FMLPRecForSequentialRecommendation(FMLPRecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = FMLPRecConfig

    def __init__(self, config: FMLPRecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.layers = LayerStack([FilterLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def encode_window(self, window_ids: torch.Tensor) -> torch.Tensor:
        """[B, W] → [B, D]; see [`WholeWindow`]."""
        return self.layers(self.embeddings(window_ids))[:, -1]


__all__ = ["FMLPRecConfig", "FMLPRecForSequentialRecommendation"]
