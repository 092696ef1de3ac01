"""TedRec: item ids and item texts, fused along the sequence (Xu et al. 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict

from ..lares.configuration_sequential import SequentialConfig
from ..lares.frequency_layers import window_mask
from ..lares.item_scores import exact_scores
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack, TransformerLayer
from ..lares.text_fusion import TextFusion
from .base import EmbeddingRecommender, WholeWindow


@strict
class TedRecConfig(SequentialConfig):
    """
    Settings of [`TedRecForSequentialRecommendation`], beyond those of [`SequentialConfig`]. Its objective is cross
    entropy over the catalog.

    Args:
        text_size (`int`, *optional*, defaults to 1): width of the text embeddings.
        num_text_experts (`int`, *optional*, defaults to 8): experts of the text adaptor.
        text_dropout (`float`, *optional*, defaults to 0.2): on text embeddings.
        temperature (`float`, *optional*, defaults to 0.07): scores are cosines divided by it.
    """

    model_type = "tedrec"

    text_size: int = 1
    num_text_experts: int = 8
    text_dropout: float | int = 0.2
    temperature: float | int = 0.07

    def _check(self) -> None:
        super()._check()
        for field in ("text_size", "num_text_experts", "temperature"):
            if getattr(self, field) <= 0:
                raise ValueError(f"TedRecConfig: {field} is {getattr(self, field)}; pass a positive number")
        if not 0 <= self.text_dropout < 1:
            raise ValueError(f"TedRecConfig: text_dropout is {self.text_dropout}; pass a value in [0, 1)")
        if self.objective != "cross_entropy":
            raise ValueError(f"TedRecConfig: objective is {self.objective!r}, but cosines have 'cross_entropy'")


class TedRecForSequentialRecommendation(WholeWindow, EmbeddingRecommender):
    """
    Ids and texts of a window are fused in the frequency domain ([`TextFusion`]); causal self-attention follows, and
    the cosine of a state and an item's vector, divided by a temperature, is the item's score.

    The paper scores by item embeddings alone, so that an item without a past has none. Here an item's vector is its
    embedding and a projection of its text, and that of a cold item its text alone: it can be recommended.

    Args:
        config ([`TedRecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> import torch
    >>> from hf_latentrec import ItemTable, TedRecConfig, TedRecForSequentialRecommendation

    >>> items = ItemTable(["a", "b", "c"], popularity=[2, 2, 0])
    >>> model = TedRecForSequentialRecommendation(TedRecConfig(num_items=3, text_size=5), items=items)
    >>> model.fusion.set_texts(torch.randn(3, 5), items.is_cold)
    >>> [item["item_id"] for item in model.recommend([["a", "b"]], exclude_seen=True)[0]]
    ['c']

    ```
    """

    config_class = TedRecConfig
    scores_cold_items = True

    def __init__(self, config: TedRecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.fusion = TextFusion(config)
        self.layers = LayerStack([TransformerLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def encode_window(self, window_ids: torch.Tensor) -> torch.Tensor:
        """[B, W] → [B, D]; see [`WholeWindow`]."""
        fused = self.fusion(window_ids, self.embeddings.items.weight)
        return self.layers(self.embeddings.embed(fused), window_mask(window_ids))[:, -1]

    @property
    def item_embeddings(self) -> torch.Tensor:
        """Vectors [I, D] of length 1 / temperature."""
        return self._item_vectors(slice(None))

    def _item_vectors(self, items: slice) -> torch.Tensor:
        vectors = self.fusion.item_vectors(self.embeddings.items.weight, items)
        return F.normalize(vectors, dim=-1) / self.config.temperature

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Scores [B, block] of a block of item rows for states [B, D]."""
        return exact_scores(F.normalize(states, dim=-1), self._item_vectors(items))

    def item_loss(
        self, states: torch.Tensor, targets: torch.Tensor, negative_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum of the cross entropies of states [G, D] and their next items [G] (row + 1)."""
        return super().item_loss(F.normalize(states, dim=-1), targets, negative_ids)

    def resize_item_embeddings(self, items: ItemTable, texts: torch.Tensor) -> None:
        """
        As [`SequentialRecommender`], with the texts of the whole new catalog: new items can be recommended at once.

        Args:
            items (`ItemTable`): the items of now, in their order, then the new ones.
            texts (`torch.Tensor` [I, E]): text embeddings of all of them.
        """
        super().resize_item_embeddings(items)
        self.fusion.set_texts(texts, self.items.is_cold)


__all__ = ["TedRecConfig", "TedRecForSequentialRecommendation"]
