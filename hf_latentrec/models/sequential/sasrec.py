"""SASRec: self-attention over a history (Kang & McAuley 2018)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict

from ..lares.configuration_sequential import SequentialConfig
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack, TransformerLayer, sequence_mask
from .base import EmbeddingRecommender


@strict
class SASRecConfig(SequentialConfig):
    """
    Settings of [`SASRecForSequentialRecommendation`]: those of [`SequentialConfig`]. The original trains with
    `objective="bce"`; cross entropy over the catalog is what makes it strong.
    """

    model_type = "sasrec"


class SASRecForSequentialRecommendation(EmbeddingRecommender):
    """
    A causal transformer over item and position embeddings, which scores an item by the product of its embedding and
    the state of the newest item (Kang & McAuley 2018, Eq. 1 to 6). Its layers normalize after every block, as in
    RecBole and the papers that compare with it, where the original normalizes before.

    CL4SRec and DuoRec are this model, trained with a contrastive loss: see `SequentialTrainingConfig.contrastive`.

    Args:
        config ([`SASRecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import ItemTable, SASRecConfig, SASRecForSequentialRecommendation

    >>> model = SASRecForSequentialRecommendation(SASRecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> [item["item_id"] for item in model.recommend([["a", "b"]], exclude_seen=True)[0]]
    ['c']

    ```
    """

    config_class = SASRecConfig

    def __init__(self, config: SASRecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.layers = LayerStack([TransformerLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """[B, L] → states [B, L, D]; see [`SequentialRecommender`]."""
        return self.layers(self.embeddings(input_ids, position_ids), sequence_mask(position_ids))

    def states_at(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None, index: torch.Tensor
    ) -> torch.Tensor:
        """As [`SequentialRecommender.states_at`]; after its attention the last layer goes on with these positions."""
        return self.layers(self.embeddings(input_ids, position_ids), sequence_mask(position_ids), index)


__all__ = ["SASRecConfig", "SASRecForSequentialRecommendation"]
