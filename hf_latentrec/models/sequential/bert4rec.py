"""BERT4Rec: hidden items are read off their neighbours on both sides (Sun et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.activations import ACT2FN

from ..lares.configuration_sequential import SequentialConfig
from ..lares.frequency_layers import check_one_sequence_per_row, row_lengths
from ..lares.item_scores import item_cross_entropy
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack, TransformerLayer
from ..lares.sequential_recommender import IGNORE_INDEX, SequentialOutput
from .base import EmbeddingRecommender


@strict
class BERT4RecConfig(SequentialConfig):
    """
    Settings of [`BERT4RecForSequentialRecommendation`], beyond those of [`SequentialConfig`]. Its objective is cross
    entropy over the catalog.

    Args:
        mask_probability (`float`, *optional*, defaults to 0.2): of an item to be hidden in training.
        last_only_probability (`float`, *optional*, defaults to 0.5): share of training rows of which only the newest
            item is hidden, as in inference.
    """

    model_type = "bert4rec"

    mask_probability: float | int = 0.2
    last_only_probability: float | int = 0.5

    def _check(self) -> None:
        super()._check()
        for field in ("mask_probability", "last_only_probability"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"BERT4RecConfig: {field} is {getattr(self, field)}; pass a value in [0, 1]")
        if self.objective != "cross_entropy":
            raise ValueError(f"BERT4RecConfig: objective is {self.objective!r}, but hidden items have 'cross_entropy'")


class BERT4RecForSequentialRecommendation(EmbeddingRecommender):
    """
    A transformer without a causal mask (Sun et al. 2019). It recommends by the state of a hidden item that is put
    behind the history, through a projection and with a bias per item (Eq. 7).

    In training the rows are read as usual, one history and its next item each; the model hides items of the two itself
    (every item with `mask_probability` and one at least, or only the newest), and learns the hidden ones (Eq. 8).
    Their mean loss counts once per label of the batch, so that neither the number of hidden items nor that of
    processes changes the size of a gradient. What stands for a hidden item is a vector of its own, not a row of the
    item embeddings: those may grow.

    Args:
        config ([`BERT4RecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import BERT4RecConfig, BERT4RecForSequentialRecommendation, ItemTable

    >>> model = BERT4RecForSequentialRecommendation(BERT4RecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = BERT4RecConfig
    causal = False

    def __init__(self, config: BERT4RecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.embeddings.positions = nn.Embedding(config.max_history + 1, config.hidden_size)  # and the hidden item
        self.hidden_item = nn.Parameter(torch.randn(config.hidden_size) * config.initializer_range)
        self.layers = LayerStack([TransformerLayer(config) for _ in range(config.num_hidden_layers)])
        self.projection = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            ACT2FN[config.hidden_act],
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
        )
        self.item_bias = nn.Parameter(torch.zeros(config.num_items))
        self.post_init()

    # Inference

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """The state of a hidden item behind each row, at every position, [B, L, D]; see [`SequentialRecommender`]."""
        check_one_sequence_per_row(self, position_ids)
        lengths = row_lengths(input_ids)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        hidden = torch.arange(input_ids.shape[1] + 1, device=input_ids.device) == lengths[:, None]
        states = self.encode_hidden(nn.functional.pad(input_ids, (0, 1)), hidden)
        return states[rows, lengths][:, None].expand(-1, input_ids.shape[1], -1)

    def encode_hidden(self, sequences: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """
        Args:
            sequences (`torch.LongTensor` [B, S]): item rows + 1, padded with 0 on the right; S is at most
                `max_history + 1`.
            hidden (`torch.BoolTensor` [B, S]): which of them the model must not see.

        Returns:
            `torch.Tensor` [B, S, D]: states, ready to score items.
        """
        embedded = torch.where(hidden[..., None], self.hidden_item, self.embeddings.items(sequences))
        is_item = sequences.ne(0) | hidden
        itself = torch.eye(sequences.shape[1], dtype=torch.bool, device=sequences.device)
        mask = (is_item[:, None, :] | itself)[:, None]
        return self.projection(self.layers(self.embeddings.embed(embedded), mask))

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Scores [B, block] of a block of item rows for states [B, D]."""
        return super().score(states, items) + self.item_bias[items]

    # Training

    def item_loss(
        self, states: torch.Tensor, targets: torch.Tensor, negative_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum of the cross entropies of states [G, D] and their items [G] (row + 1)."""
        return item_cross_entropy(states, self.item_embeddings, targets - 1, self.item_bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequentialOutput:
        """As [`SequentialRecommender`]; in training the loss is that of hidden items."""
        if labels is None or not self.training:
            return super().forward(input_ids, position_ids, labels, num_items_in_batch, **kwargs)
        if kwargs.get("view_input_ids") is not None:
            raise ValueError("BERT4Rec: views are given, but it learns hidden items; leave contrastive losses out")
        sequences, newest = self.with_label(input_ids, labels)
        hidden = self.draw_hidden(sequences, newest)
        states = self.encode_hidden(sequences, hidden)[hidden]
        targets = sequences[hidden]
        num_labels = labels.ne(IGNORE_INDEX).sum()
        if num_items_in_batch is None:
            num_items_in_batch = num_labels
        weight = num_labels / len(targets) / num_items_in_batch
        return SequentialOutput(loss=self.item_loss(states, targets) * weight)

    def with_label(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each row and its last label behind it: sequences [B, L + 1] and the place of the label [B]."""
        newest = row_lengths(input_ids)
        sequences = nn.functional.pad(input_ids, (0, 1))
        label = labels.gather(1, (newest - 1).clamp(min=0)[:, None])
        return sequences.scatter(1, newest[:, None], label), newest

    def draw_hidden(self, sequences: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """Which items of the sequences [B, S] are hidden; at least one of each."""
        place = torch.arange(sequences.shape[1], device=sequences.device)
        is_newest = place == newest[:, None]
        draws = torch.rand(sequences.shape, device=sequences.device).masked_fill(sequences == 0, torch.inf)
        drawn = (draws < self.config.mask_probability) | (draws == draws.amin(1, keepdim=True))
        last_only = torch.rand(len(sequences), 1, device=sequences.device) < self.config.last_only_probability
        return torch.where(last_only, is_newest, drawn)

    # Catalog

    def resize_item_embeddings(self, items: ItemTable) -> None:
        """As [`SequentialRecommender`]; new items have no bias."""
        super().resize_item_embeddings(items)
        bias = self.item_bias.new_zeros(len(items))
        bias[: len(self.item_bias)] = self.item_bias.detach()
        self.item_bias = nn.Parameter(bias)


__all__ = ["BERT4RecConfig", "BERT4RecForSequentialRecommendation"]
