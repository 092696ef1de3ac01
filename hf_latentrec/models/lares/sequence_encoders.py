"""What item-ID recommenders are made of: embeddings of a sequence, and stacks of layers over it.

Shapes: B rows, L positions, D hidden. A row holds one sequence, or several that do not see each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from .configuration_sequential import SequentialConfig
from .fast_dropout import FastDropout


class SequenceEmbeddings(nn.Module):
    """
    Item and position embeddings, added, normalized and with dropout.

    Args:
        config (`SequentialConfig`): of the model.

    Example:
        >>> embeddings = SequenceEmbeddings(SequentialConfig(num_items=9, hidden_size=4))
        >>> embeddings(torch.tensor([[3, 9, 0]])).shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, config: SequentialConfig):
        super().__init__()
        self.items = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.positions = nn.Embedding(config.max_history, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = FastDropout(config.dropout)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """[B, L] item rows + 1 (0: padding), and where in its sequence each stands → [B, L, D]."""
        return self.embed(self.items(input_ids), position_ids)

    def embed(self, items_BLD: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """The same for item vectors [B, L, D] that are there already."""
        length, most = items_BLD.shape[1], self.positions.num_embeddings
        if position_ids is None:
            if length > most:
                raise ValueError(
                    f"input_ids hold {length} positions, but the model has {most} (max_history); cut histories to "
                    "their newest items"
                )
            position_ids = torch.arange(length, device=items_BLD.device)
        return self.dropout(self.norm(items_BLD + self.positions(position_ids)))


class TransformerLayer(nn.Module):
    """
    Self-attention and a feed-forward block, each with a residual and a normalization after it (SASRec).

    Args:
        config (`SequentialConfig`): of the model.
    """

    def __init__(self, config: SequentialConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention_dropout = FastDropout(config.attention_dropout)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = FastDropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(
        self, hidden_BLD: torch.Tensor, mask: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            hidden_BLD (`torch.Tensor` [B, L, D]): states.
            mask (`torch.BoolTensor` [B, 1, L, L], *optional*): True where a position may attend; by default to itself
                and everything before it.
            index (`torch.LongTensor` [G], *optional*): which of the B * L positions are wanted, where not all are.

        Returns:
            `torch.Tensor` [B, L, D], or [G, D] with an index.
        """
        return self.feed_forward(self.attend(hidden_BLD, *self.project(hidden_BLD), mask, index))

    def project(self, hidden_BLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each [B, heads, L, D / heads]."""
        B, L, _ = hidden_BLD.shape
        return self.qkv(hidden_BLD).view(B, L, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()

    def attend(
        self,
        hidden_BLD: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The attention block alone, for what [`project`] gave; there may be further keys."""
        attended = dropped_attention(query, key, value, mask, self.attention_dropout).transpose(1, 2).flatten(2)
        if index is not None:
            attended, hidden_BLD = attended.flatten(0, 1)[index], hidden_BLD.flatten(0, 1)[index]
        return self.attention_norm(hidden_BLD + self.dropout(self.out(attended)))


def dropped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, dropout: FastDropout
) -> torch.Tensor:
    """
    Attention [B, heads, L, D / heads] with dropout on its weights; `mask` as in [`TransformerLayer`].

    Fused where it can be. `torch` has no fused attention with dropout for a CPU, and there it is written out, with the
    faster dropout.
    """
    dropout_p = dropout.p if dropout.training else 0.0
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, dropout_p=dropout_p
        )
    if mask is None:
        mask = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril_()
    scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
    return dropout(scores.masked_fill(~mask, -torch.inf).softmax(-1)) @ value


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, dropout, residual and normalization."""

    def __init__(self, config: SequentialConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = FastDropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., D] → [..., D]."""
        return self.norm(hidden + self.dropout(self.down(self.activation(self.up(hidden)))))


class LayerStack(nn.Module):
    """
    Layers of one kind, one after the other.

    Args:
        layers (`list[nn.Module]`): each called as `layer(hidden [B, L, D], mask)`.
    """

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, hidden_BLD: torch.Tensor, mask: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[B, L, D] → [B, L, D]; with an index [G] into the B * L positions (of [`TransformerLayer`]s) → [G, D]."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            only = {} if index is None or number < last else {"index": index}
            hidden_BLD = layer(hidden_BLD, mask, **only)
        return hidden_BLD


def sequence_mask(position_ids: torch.Tensor | None) -> torch.Tensor | None:
    """
    Who may attend to whom where a row holds several sequences: to itself and to what is before it in its sequence.

    Args:
        position_ids (`torch.LongTensor` [B, L], *optional*): 0 starts a sequence.

    Returns:
        `torch.BoolTensor` [B, 1, L, L], or None (plain causal attention) where rows hold one sequence each.

    Example:
        >>> sequence_mask(torch.tensor([[0, 1, 0]]))[0, 0].int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    if position_ids is None:
        return None
    sequence_BL = (position_ids == 0).cumsum(-1)
    same_BLL = sequence_BL[:, :, None] == sequence_BL[:, None, :]
    return same_BLL.tril_()[:, None]


def last_positions(input_ids: torch.Tensor) -> torch.Tensor:
    """Index of the last item of each right-padded row, [B]; a row without items gives 0."""
    return (input_ids.ne(0).sum(-1) - 1).clamp_(min=0)


def last_index(input_ids: torch.Tensor) -> torch.Tensor:
    """Index [B] into all B * L positions of the last item of each right-padded row."""
    num_rows, length = input_ids.shape
    return torch.arange(num_rows, device=input_ids.device) * length + last_positions(input_ids)


__all__ = [
    "FeedForward",
    "LayerStack",
    "SequenceEmbeddings",
    "TransformerLayer",
    "last_index",
    "last_positions",
    "sequence_mask",
]
