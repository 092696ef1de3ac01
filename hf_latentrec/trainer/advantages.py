"""Advantages from rewards: pure functions of tensors, one per equation.

Shapes: B prompts, G candidate answers of a prompt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class GroupAdvantage(NamedTuple):
    """Advantages [B, G], the rewards' standard deviation in each group [B], and which groups have none [B]."""

    advantages: torch.Tensor
    reward_std: torch.Tensor
    has_zero_std: torch.Tensor


def group_advantage(
    rewards: torch.Tensor, mask: torch.Tensor | None = None, scale: bool = True, eps: float = 1e-4
) -> GroupAdvantage:
    """
    Rewards relative to their group: `A_i = (r_i - mean(r)) / (std(r) + eps)`, below LASAR Eq. 5.

    As in TRL, the standard deviation is that of a sample (divided by G - 1) and `eps` is 1e-4. A group whose rewards
    are all equal teaches nothing: its advantages are exactly 0, without rounding.

    Args:
        rewards (`torch.Tensor` [B, G]): one per candidate.
        mask (`torch.Tensor` [B, G], *optional*): True for the candidates that exist; the others get 0 and do not
            count.
        scale (`bool`, *optional*, defaults to `True`): whether to divide by the standard deviation.
        eps (`float`, *optional*, defaults to 1e-4): added to the standard deviation.

    Returns:
        `GroupAdvantage`

    Example:
        >>> group_advantage(torch.tensor([[1.0, 0.0, 0.0], [0.1, 0.1, 0.1]])).advantages
        tensor([[ 1.1545, -0.5773, -0.5773],
                [ 0.0000,  0.0000,  0.0000]])
    """
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    count = mask.sum(-1, keepdim=True)
    mean = (rewards * mask).sum(-1, keepdim=True) / count.clamp(min=1)
    highest = rewards.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    lowest = rewards.masked_fill(~mask, torch.inf).amin(-1, keepdim=True)
    has_zero_std = highest <= lowest  # also of an empty group, where the bounds are -inf and inf
    deviation = (rewards - mean).masked_fill(~mask | has_zero_std, 0.0)
    std = (deviation.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    advantages = deviation / (std + eps) if scale else deviation
    return GroupAdvantage(advantages, std.squeeze(-1), has_zero_std.squeeze(-1))


__all__ = ["GroupAdvantage", "group_advantage"]
