"""Advantages from rewards: pure functions of tensors, one per equation.

Shapes: B prompts, G candidate answers of a prompt, K thoughts of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
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


class BatchAdvantage(NamedTuple):
    """Advantages [B, K], the baseline of the global batch (scalar), and which groups have equal rewards [B]."""

    advantages: torch.Tensor
    baseline: torch.Tensor
    has_zero_std: torch.Tensor


def batch_advantage(
    rewards: torch.Tensor, reduce: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums, eps: float = 1e-6
) -> BatchAdvantage:
    """
    Rewards relative to the unperturbed thoughts of the global batch, LatentR³ Eq. 7.

    `A^k = (s^k - baseline) / (norm + eps)`: the baseline is the mean of `s^1` over all groups, the norm is the L2 norm
    of the deviations of all rewards from it. A group whose rewards are all equal prefers none of its thoughts: its
    advantages are exactly 0. It counts in baseline and norm as the equation has it.

    Args:
        rewards (`torch.Tensor` [B, K]): of all micro-batches of this process; column 0 holds those of the unperturbed
            thoughts. B may differ from process to process, and be 0.
        reduce (`Callable`, *optional*): sums a tensor over processes; called twice on every process. By default the
            batch is that of one process.
        eps (`float`, *optional*, defaults to 1e-6): added to the norm.

    Returns:
        `BatchAdvantage`

    Example:
        >>> batch_advantage(torch.tensor([[-2.0, -1.0], [-4.0, -6.0]])).advantages  # baseline -3, norm sqrt(15)
        tensor([[ 0.2582,  0.5164],
                [-0.2582, -0.7746]])
    """
    first = rewards[:, 0]
    total, count = reduce(torch.stack([first.sum(), first.new_tensor(float(len(first)))])).unbind()
    baseline = total / count
    deviation = rewards - baseline
    norm = reduce(deviation.square().sum()).sqrt()
    has_zero_std = (rewards == rewards[:, :1]).all(-1)
    advantages = (deviation / (norm + eps)).masked_fill(has_zero_std[:, None], 0.0)
    return BatchAdvantage(advantages, baseline, has_zero_std)


class BaselineAdvantage(NamedTuple):
    """Advantages [B, K] and which groups have equal rewards [B]."""

    advantages: torch.Tensor
    has_zero_std: torch.Tensor


def baseline_advantage(rewards: torch.Tensor, eps: float = 1e-6) -> BaselineAdvantage:
    """
    Rewards relative to the unperturbed thought of their group, FLR Eq. 11.

    `A_i = (r_i - r_1) / (||r_{2:K} - r_1|| + eps)` with the L2 norm. The unperturbed thought's own advantage is 0, and
    so are all of a group whose rewards are equal, exactly.

    Args:
        rewards (`torch.Tensor` [B, K]): column 0 holds those of the unperturbed thoughts.
        eps (`float`, *optional*, defaults to 1e-6): added to the norm.

    Returns:
        `BaselineAdvantage`

    Example:
        >>> baseline_advantage(torch.tensor([[1.0, 4.0, -3.0], [0.1, 0.1, 0.1]])).advantages  # norms 5 and 0
        tensor([[ 0.0000,  0.6000, -0.8000],
                [ 0.0000,  0.0000,  0.0000]])
    """
    deviation = rewards - rewards[:, :1]
    norm = deviation.norm(dim=-1, keepdim=True)  # the first deviation is 0, so this is the norm of the others
    return BaselineAdvantage(deviation / (norm + eps), (deviation == 0).all(-1))


__all__ = [
    "BaselineAdvantage",
    "BatchAdvantage",
    "GroupAdvantage",
    "baseline_advantage",
    "batch_advantage",
    "group_advantage",
]
