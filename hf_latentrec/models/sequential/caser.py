"""Caser: convolutions over a history as an image (Tang & Wang 2018)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ..lares.configuration_sequential import SequentialConfig
from ..lares.fast_dropout import FastDropout
from ..lares.item_table import ItemTable
from ..lares.sequential_recommender import SequentialRecommender
from .base import WholeWindow


@strict
class CaserConfig(SequentialConfig):
    """
    Settings of [`CaserForSequentialRecommendation`], beyond those of [`SequentialConfig`]. The window of the
    convolutions, L in the paper, is `max_history`; the paper's is 5.

    Args:
        num_horizontal_filters (`int`, *optional*, defaults to 16): filters of each height.
        num_vertical_filters (`int`, *optional*, defaults to 8): filters over one dimension of all items.
    """

    model_type = "caser"

    num_horizontal_filters: int = 16
    num_vertical_filters: int = 8

    def _check(self) -> None:
        super()._check()
        for field in ("num_horizontal_filters", "num_vertical_filters"):
            if getattr(self, field) < 1:
                raise ValueError(f"CaserConfig: {field} is {getattr(self, field)}; pass a positive number")


class CaserForSequentialRecommendation(WholeWindow, SequentialRecommender):
    r"""
    The window's embeddings $E$ [W, D] as an image (Tang & Wang 2018, Eq. 3 to 8): horizontal filters $F$ [h, D] of
    every height h = 1..W slide over its rows, `max_t relu(E[t:t+h] * F + b)`, vertical ones weigh its rows,
    `sum_t v_t E[t]`, and a layer with relu makes the state of both.

    The paper adds an embedding of the user; here users are known by their history alone, as for every other model, and
    the item embeddings score the items.

    Args:
        config ([`CaserConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import CaserConfig, CaserForSequentialRecommendation, ItemTable

    >>> config = CaserConfig(num_items=3, max_history=5)
    >>> model = CaserForSequentialRecommendation(config, items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = CaserConfig

    def __init__(self, config: CaserConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(config.hidden_size, config.num_horizontal_filters, height)
            for height in range(1, config.max_history + 1)
        )
        self.vertical = nn.Linear(config.max_history, config.num_vertical_filters, bias=False)
        num_features = config.num_horizontal_filters * config.max_history
        num_features += config.num_vertical_filters * config.hidden_size
        self.dropout = FastDropout(config.dropout)
        self.out = nn.Linear(num_features, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.item_embedding = value

    def encode_window(self, window_ids: torch.Tensor) -> torch.Tensor:
        """[B, W] → [B, D]; see [`WholeWindow`]."""
        image_BDW = self.item_embedding(window_ids).transpose(1, 2)
        horizontal = [convolution(image_BDW).relu().amax(-1) for convolution in self.horizontal]
        features = torch.cat([*horizontal, self.vertical(image_BDW).flatten(1)], dim=-1)
        return self.out(self.dropout(features)).relu()


__all__ = ["CaserConfig", "CaserForSequentialRecommendation"]
