"""GRU4Rec: a recurrent network over a history (Hidasi et al. 2016)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ..lares.configuration_sequential import SequentialConfig
from ..lares.fast_dropout import FastDropout
from ..lares.item_table import ItemTable
from ..lares.sequential_recommender import SequentialRecommender


@strict
class GRU4RecConfig(SequentialConfig):
    """
    Settings of [`GRU4RecForSequentialRecommendation`], beyond those of [`SequentialConfig`].

    Args:
        gru_size (`int`, *optional*, defaults to 128): width of the recurrent states.
        num_hidden_layers (`int`, *optional*, defaults to 1): recurrent layers.
        dropout (`float`, *optional*, defaults to 0.3): on item embeddings.
    """

    model_type = "gru4rec"

    gru_size: int = 128
    num_hidden_layers: int = 1
    dropout: float | int = 0.3

    def _check(self) -> None:
        super()._check()
        if self.gru_size < 1:
            raise ValueError(f"GRU4RecConfig: gru_size is {self.gru_size}; pass a positive number")


class GRU4RecForSequentialRecommendation(SequentialRecommender):
    """
    Gated recurrent units over item embeddings; a linear map brings their states back to the width of the embeddings,
    which also score the items (Hidasi et al. 2016, section 3.1, with the embedding layer of RecBole's version and the
    objective of the configuration in place of BPR and TOP1).

    Args:
        config ([`GRU4RecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import GRU4RecConfig, GRU4RecForSequentialRecommendation, ItemTable

    >>> model = GRU4RecForSequentialRecommendation(GRU4RecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = GRU4RecConfig

    def __init__(self, config: GRU4RecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.dropout = FastDropout(config.dropout)
        self.gru = nn.GRU(config.hidden_size, config.gru_size, config.num_hidden_layers, batch_first=True)
        self.out = nn.Linear(config.gru_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.item_embedding = value

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """[B, L] → states [B, L, D]; see [`SequentialRecommender`]."""
        embedded = self.dropout(self.item_embedding(input_ids))
        if position_ids is None:
            return self.out(self.gru(embedded)[0])
        # a recurrent state must not run from one sequence of a row into the next: every sequence gets a row of its own
        sequence = (position_ids == 0).flatten().cumsum(0).view_as(position_ids) - 1
        shape = (int(sequence.max()) + 1, int(position_ids.max()) + 1, embedded.shape[-1])
        alone = embedded.new_zeros(shape).index_put((sequence, position_ids), embedded)
        return self.out(self.gru(alone)[0][sequence, position_ids])


__all__ = ["GRU4RecConfig", "GRU4RecForSequentialRecommendation"]
