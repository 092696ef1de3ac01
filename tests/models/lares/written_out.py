"""SASRec, LARES and their losses for one history at a time, written out position by position; only weights are the
library's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def normalize(x_D: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    centred = x_D - x_D.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def linear(x_D: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return layer.weight @ x_D + layer.bias


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def run_layer(layer: nn.Module, hidden: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Self-attention to the positions up to one's own, then the feed-forward block; both normalized after."""
    size = len(hidden[0]) // layer.num_heads
    projected = [linear(x_D, layer.qkv).split(len(x_D)) for x_D in hidden]
    out = []
    for t, x_D in enumerate(hidden):
        heads = []
        for head in range(layer.num_heads):
            part = slice(head * size, (head + 1) * size)
            query = projected[t][0][part]
            scores = torch.stack([query @ projected[s][1][part] / math.sqrt(size) for s in range(t + 1)])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(weights[s] * projected[s][2][part] for s in range(t + 1)))
        x_D = normalize(x_D + linear(torch.cat(heads), layer.out), layer.attention_norm)
        block = layer.feed_forward
        out.append(normalize(x_D + linear(gelu(linear(x_D, block.up)), block.down), block.norm))
    return out


def run_layers(stack: nn.Module, hidden: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    for layer in stack.layers:
        hidden = run_layer(layer, hidden)
    return list(hidden)


def embed(embeddings: nn.Module, item_ids: Sequence[int]) -> list[torch.Tensor]:
    return [
        normalize(embeddings.items.weight[item] + embeddings.positions.weight[position], embeddings.norm)
        for position, item in enumerate(item_ids)
    ]


def sasrec_state(model: nn.Module, item_ids: Sequence[int]) -> torch.Tensor:
    """The state [D] after a history of item rows + 1."""
    return run_layers(model.layers, embed(model.embeddings, item_ids))[-1]


def aggregate(aggregation: nn.Module, state_D: torch.Tensor, hidden_D: torch.Tensor) -> torch.Tensor:
    if aggregation.kind == "concat":
        return linear(torch.cat([state_D, hidden_D]), aggregation.projection)
    if aggregation.kind == "linear":
        return aggregation.state_weight * state_D + aggregation.input_weight * hidden_D
    return (state_D + hidden_D) / 2


def lares_states(
    model: nn.Module, item_ids: Sequence[int], initial_state: Sequence[torch.Tensor], num_steps: int
) -> list[torch.Tensor]:
    """The states [D] of the newest item after every step (Eq. 5), from T_0 [L, D]."""
    encoder = model.model
    inputs = run_layers(encoder.pre_block, embed(encoder.embeddings, item_ids))
    states, out = list(initial_state), []
    for _ in range(num_steps):
        mixed = [
            normalize(aggregate(encoder.aggregation, state_D, hidden_D), encoder.norm)
            for state_D, hidden_D in zip(states, inputs, strict=True)
        ]
        states = run_layers(encoder.core_block, mixed)
        out.append(states[-1])
    return out


def item_loss(state_D: torch.Tensor, item_weight: torch.Tensor, target: int) -> torch.Tensor:
    """-log of Eq. 7; `item_weight` has a row of padding, which is no item."""
    weights = [(state_D @ item_weight[item]).exp() for item in range(1, len(item_weight))]
    return -(weights[target - 1] / sum(weights)).log()


def info_nce(
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
    temperature: float = 1.0,
    users: Sequence[int] | None = None,
    within_views: bool = False,
) -> torch.Tensor:
    """Sum over samples of Eq. 8 or 9, with the dot product; with `users`, without other samples of the same user; with
    `within_views`, with the negatives of CL4SRec and DuoRec."""
    users = range(len(first)) if users is None else users

    def one_way(x_D: torch.Tensor, own: int, others: Sequence[torch.Tensor], mine: Sequence[torch.Tensor]):
        weights = [(x_D @ y_D / temperature).exp() for y_D in others]
        counted = [weight for p, weight in enumerate(weights) if p == own or users[p] != users[own]]
        if within_views:
            counted += [(x_D @ z_D / temperature).exp() for p, z_D in enumerate(mine) if users[p] != users[own]]
        return -(weights[own] / sum(counted)).log()

    return sum(
        (one_way(x_D, g, second, first) + one_way(y_D, g, first, second)) / 2
        for g, (x_D, y_D) in enumerate(zip(first, second, strict=True))
    )
