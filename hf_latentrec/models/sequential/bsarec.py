"""BSARec: self-attention with a bias towards frequencies (Shin et al. 2024)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict

from ..lares.configuration_sequential import SequentialConfig
from ..lares.frequency_layers import FrequencyAttentionLayer, window_mask
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack
from .base import EmbeddingRecommender, WholeWindow


@strict
class BSARecConfig(SequentialConfig):
    """
    Settings of [`BSARecForSequentialRecommendation`], beyond those of [`SequentialConfig`].

    Args:
        frequency_weight (`float`, *optional*, defaults to 0.7): weight of the frequency part, alpha in the paper; that
            of self-attention is the rest.
        num_low_frequencies (`int`, *optional*, defaults to 5): c in the paper; the lowest `c // 2 + 1` frequencies
            stay as they are, and the others are rescaled.
    """

    model_type = "bsarec"

    frequency_weight: float | int = 0.7
    num_low_frequencies: int = 5

    def _check(self) -> None:
        super()._check()
        if not 0 <= self.frequency_weight <= 1:
            raise ValueError(f"BSARecConfig: frequency_weight is {self.frequency_weight}; pass a value in [0, 1]")
        if self.num_low_frequencies < 0:
            raise ValueError(f"BSARecConfig: num_low_frequencies is {self.num_low_frequencies}; pass 0 or more")


class BSARecForSequentialRecommendation(WholeWindow, EmbeddingRecommender):
    """
    Blocks of frequency rescaling beside causal self-attention ([`FrequencyAttentionLayer`]) over a window of the
    history.

    Args:
        config ([`BSARecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import BSARecConfig, BSARecForSequentialRecommendation, ItemTable

    >>> model = BSARecForSequentialRecommendation(BSARecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = BSARecConfig

    def __init__(self, config: BSARecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.layers = LayerStack([FrequencyAttentionLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def encode_window(self, window_ids: torch.Tensor) -> torch.Tensor:
        """[B, W] → [B, D]; see [`WholeWindow`]."""
        return self.layers(self.embeddings(window_ids), window_mask(window_ids))[:, -1]


__all__ = ["BSARecConfig", "BSARecForSequentialRecommendation"]
