"""Reasoners: small modules that turn what a branch has seen into the embedding of its next thought.

A reasoner knows nothing of caches, masks of branches or decoding; the model asks it for one thought at a time.
"""

from __future__ import annotations

import torch
from torch import nn

from .configuration_latent_reasoning import LatentReasonerConfig


class FeedbackReasoner(nn.Module):
    """
    The hidden state of one step is the input embedding of the next (LASAR Eq. 3, Coconut): `thought_t = h_{t-1}`.

    The thoughts stand between two marker tokens, `[prompt] <s> thought x N <e> [answer]`; `h_0` is the hidden state
    at `<s>`. The module has no parameters of its own.
    """

    uses_markers = True

    def forward(self, hidden_BKD: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_BKD (`torch.Tensor`): last-layer hidden state of each branch's newest position.

        Returns:
            `torch.Tensor`: embedding of the next thought, [B, K, D].
        """
        return hidden_BKD


REASONER_CLASSES = {"feedback": FeedbackReasoner}


def build_reasoner(config: LatentReasonerConfig) -> nn.Module:
    """The reasoner that a configuration asks for."""
    return REASONER_CLASSES[config.reasoner]()


__all__ = ["FeedbackReasoner", "build_reasoner"]
