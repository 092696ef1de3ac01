"""Reasoners: small modules that turn what a branch has seen into the embedding of its next thought.

A reasoner reads the hidden states of a [`ThoughtState`] and knows nothing of caches, attention masks or decoding; the
model asks it for one thought at a time.

Shapes: B prompts, K branches, S slots so far (prompt, markers, thoughts), D hidden.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig

from .thought_state import ThoughtState


class FeedbackReasoner(nn.Module):
    """
    The hidden state of one step is the input embedding of the next (LASAR Eq. 3, Coconut): `thought_t = h_{t-1}`.

    `h_0` is the hidden state of the newest token before the thoughts: the marker `<s>` where there are markers, else
    the prompt's last token. The module has no parameters of its own.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()

    def forward(self, state: ThoughtState) -> torch.Tensor:
        """
        Args:
            state (`ThoughtState`): with K branches.

        Returns:
            `torch.Tensor`: embedding of each branch's next thought, [B, K, D].
        """
        return state.hidden_BKD


class LatentAttentionReasoner(nn.Module):
    """
    LatentRATT: one attention head over all hidden states so far gives the next thought (LatentR³ Eq. 2 and 3).

    `r_i = LatentRATT(H_{i-1})[-1]`: the query is the hidden state of the newest position, keys and values are those of
    all positions that its branch sees, itself and earlier thoughts included. One head of the full hidden size; linear
    query, key and value with bias; no output projection; rotary embedding over the full size with base 1000 on queries
    and keys, with positions that count real tokens; scores are divided by `sqrt(D)`.
    """

    rope_base = 1000.0

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        if config.hidden_size % 2:
            raise ValueError(
                f"reasoner 'latent_attention' rotates pairs of hidden dimensions, but hidden_size is "
                f"{config.hidden_size}; choose an even one"
            )
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, state: ThoughtState) -> torch.Tensor:
        """
        Args:
            state (`ThoughtState`): with K branches.

        Returns:
            `torch.Tensor`: embedding of each branch's next thought, [B, K, D].
        """
        hidden_BSD = state.hidden_BSD
        newest_BK = state.visible_BKS.sum(-1) - 1  # positions count what a branch sees
        query_BKD = self._rotate(self.q_proj(state.hidden_BKD), newest_BK)
        key_BSD = self._rotate(self.k_proj(hidden_BSD), state.positions_BS)
        scores_BKS = query_BKD @ key_BSD.transpose(1, 2) * hidden_BSD.shape[-1] ** -0.5
        scores_BKS = scores_BKS.to(_at_least_float32(scores_BKS))
        # Not -inf: a branch that only fills up a batch sees nothing, and must not become NaN.
        scores_BKS = scores_BKS.masked_fill(~state.visible_BKS, torch.finfo(scores_BKS.dtype).min)
        weights_BKS = scores_BKS.softmax(-1).to(hidden_BSD.dtype)
        # The weights sum to 1, so the mean of the values is the value of the mean: one row to project, not S.
        return self.v_proj(weights_BKS @ hidden_BSD)

    def _rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of vectors [..., D] at positions [...]: dimension i turns with dimension i + D/2."""
        half = x.shape[-1] // 2
        exponents = torch.arange(half, device=x.device, dtype=_at_least_float32(x)) / half
        angles = positions[..., None] * self.rope_base**-exponents
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.split(half, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _at_least_float32(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


REASONER_CLASSES = {"feedback": FeedbackReasoner, "latent_attention": LatentAttentionReasoner}


def build_reasoner(config: PreTrainedConfig) -> nn.Module:
    """The reasoner that a model's configuration asks for."""
    return REASONER_CLASSES[config.reasoner_config.reasoner](config)


__all__ = ["FeedbackReasoner", "LatentAttentionReasoner", "build_reasoner"]
