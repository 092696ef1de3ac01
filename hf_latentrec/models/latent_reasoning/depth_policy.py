"""How many thoughts a prompt is worth.

Shapes: B prompts, K branches, C depths, D hidden.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig


class DepthPolicy(nn.Module):
    """
    LASAR's policy head (section 2.2): how many thoughts a prompt is worth, read off the hidden state before the first.

    `pi(N | h_0) = softmax(W_2 tanh(W_1 h_0 + b_1) + b_2)` over N = 1 .. N_max. It reads `h_0` without gradient: what
    is learned about depth moves this head and nothing else.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.hidden_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_thoughts)

    def forward(self, hidden_BKD: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_BKD (`torch.Tensor`): `h_0` of each branch.

        Returns:
            `torch.Tensor` [B, K, C]: logits of the depths 1 .. C, C = N_max, in float32.
        """
        logits_BKC = self.out_proj(self.hidden_proj(hidden_BKD.detach()).tanh())
        return logits_BKC.to(torch.promote_types(logits_BKC.dtype, torch.float32))


def draw_depths(logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """
    Depths drawn from a policy by its inverse distribution function, so that a number says which depth is drawn,
    whatever else is in the batch.

    Args:
        logits (`torch.Tensor` [..., C]): of the depths 1 .. C.
        noise (`torch.Tensor` [...]): numbers in [0, 1).

    Returns:
        `torch.LongTensor` [...]: between 1 and C.

    Example:
        >>> draw_depths(torch.tensor([[0.0, 0.0]]).expand(2, -1), torch.tensor([0.49, 0.51]))
        tensor([1, 2])
    """
    below = logits.softmax(-1).cumsum(-1)[..., :-1]
    return 1 + (below <= noise[..., None]).sum(-1)


__all__ = ["DepthPolicy", "draw_depths"]
