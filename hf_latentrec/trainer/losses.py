"""Loss terms of the reinforcement-learning trainers: pure functions of tensors, one per equation.

Shapes: B prompts, G candidate answers of a prompt, T tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class PolicyLoss(NamedTuple):
    """Per-prompt means [B] of the clipped objective and of the share of tokens that each bound clips."""

    loss: torch.Tensor
    clip_low: torch.Tensor
    clip_high: torch.Tensor


def group_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Mean over the tokens of a candidate, then over the candidates of a prompt.

    This is how TRL reduces with `loss_type="grpo"`, where every group has the same size. A candidate without tokens
    (a catalog with fewer items than candidates) does not count.

    Args:
        values (`torch.Tensor` [B, G, T]): one value per token.
        mask (`torch.Tensor` [B, G, T]): True for the tokens that exist.

    Returns:
        `torch.Tensor` [B]: 0 for a prompt without any candidate.

    Example:
        >>> values = torch.tensor([[[1.0, 3.0], [4.0, 9.0]]])
        >>> group_mean(values, torch.tensor([[[True, True], [True, False]]]))
        tensor([3.])
    """
    tokens_BG = mask.sum(-1)
    mean_BG = (values * mask).sum(-1) / tokens_BG.clamp(min=1)
    return mean_BG.sum(-1) / (tokens_BG > 0).sum(-1).clamp(min=1)


def clipped_policy_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
) -> PolicyLoss:
    """
    The clipped objective of GRPO, LASAR Eq. 5 without its KL term.

    With `rho = exp(logps - old_logps)` per token:
    `loss = -min(rho * A, clip(rho, 1 - epsilon, 1 + epsilon_high) * A)`, reduced by [`group_mean`]. Eq. 5 prints the
    reference policy in the ratio; a clipped objective needs the policy that gave the candidates.

    Args:
        logps (`torch.Tensor` [B, G, T]): log-probabilities of the candidates' tokens, with gradient.
        old_logps (`torch.Tensor` [B, G, T]): the same of the policy that gave the candidates.
        advantages (`torch.Tensor` [B, G]): one per candidate.
        mask (`torch.Tensor` [B, G, T]): True for the tokens that exist.
        epsilon (`float`, *optional*, defaults to 0.2): clipping below.
        epsilon_high (`float`, *optional*): clipping above; `epsilon` if not given.

    Returns:
        `PolicyLoss`: means per prompt, so that a caller may divide by the prompts of a global batch.

    Example:
        >>> logps = torch.tensor([[[-1.0], [-2.0]]])
        >>> mask = torch.ones(1, 2, 1, dtype=torch.bool)
        >>> clipped_policy_loss(logps, logps, torch.tensor([[1.0, -3.0]]), mask).loss
        tensor([1.])
    """
    epsilon_high = epsilon if epsilon_high is None else epsilon_high
    ratio = (logps - old_logps).exp()
    advantages = advantages[..., None]
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantages)
    is_low_clipped = (ratio < 1 - epsilon) & (advantages < 0)
    is_high_clipped = (ratio > 1 + epsilon_high) & (advantages > 0)
    return PolicyLoss(group_mean(loss, mask), group_mean(is_low_clipped, mask), group_mean(is_high_clipped, mask))


def kl_k3(logps: torch.Tensor, ref_logps: torch.Tensor) -> torch.Tensor:
    """
    The k3 estimate of `KL(policy || reference)` per token: `exp(d) - d - 1` with `d = ref_logps - logps`.

    It is never negative and 0 where both agree (Schulman, "Approximating KL divergence", 2020).

    Args:
        logps (`torch.Tensor`): log-probabilities under the policy, with gradient.
        ref_logps (`torch.Tensor`): log-probabilities under the reference, same shape.

    Returns:
        `torch.Tensor`: same shape.

    Example:
        >>> kl_k3(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -2.0]))
        tensor([0.0000, 0.3679])
    """
    delta = ref_logps - logps
    return delta.exp() - delta - 1


__all__ = ["PolicyLoss", "clipped_policy_loss", "group_mean", "kl_k3"]
