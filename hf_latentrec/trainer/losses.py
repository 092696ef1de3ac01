"""Loss terms of the trainers: pure functions of tensors, one per equation.

Shapes: B prompts, G candidate answers of a prompt, F factors of a thought, S positions, T tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


# A learned loss weight stays between exp(-5) / 2 and exp(5) / 2: 0.0034 and 74.
MAX_LOG_VARIANCE = 5.0


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


def orthogonality_loss(factors: torch.Tensor) -> torch.Tensor:
    """
    How far factors are from orthogonal, FLR Eq. 5: `|| Fn Fn^T - I ||_F^2` with rows of length 1.

    Args:
        factors (`torch.Tensor` [..., F, D]): a factor of length 0 is orthogonal to all others.

    Returns:
        `torch.Tensor` [...]: float32, one value per thought; 0 for one factor, at most `F (F - 1)`.

    Example:
        >>> orthogonality_loss(torch.tensor([[2.0, 0.0], [0.0, 3.0]])), orthogonality_loss(torch.ones(2, 5))
        (tensor(0.), tensor(2.0000))
    """
    return _off_diagonal(_cosines(factors)).square().sum((-2, -1))


def attention_diversity_loss(attentions: torch.Tensor, num_positions: torch.Tensor | None = None) -> torch.Tensor:
    """
    How alike the factors look, FLR Eq. 6: the mean cosine of two factors' attention,
    `2 / (F (F - 1)) sum_{i<j} cos(A_i, A_j)`.

    Args:
        attentions (`torch.Tensor` [..., F, S]): weights; those of padding are 0 and take no part.
        num_positions (`torch.LongTensor` [...], *optional*): how many positions of a history there are to look at.
            Where there is one only, all factors look alike whatever they do: the loss is defined as 0 there.

    Returns:
        `torch.Tensor` [...]: float32, one value per thought, between 0 and 1; 0 for one factor.

    Example:
        >>> attention_diversity_loss(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
        tensor(0.)
    """
    num_factors = attentions.shape[-2]
    pairs = max(1, num_factors * (num_factors - 1))
    loss = _off_diagonal(_cosines(attentions)).sum((-2, -1)) / pairs
    return loss if num_positions is None else loss.masked_fill(num_positions < 2, 0.0)


def sparsity_loss(gates: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """
    Entropy of the factors' shares of a thought in nats, FLR Eq. 7: `-sum_f alpha_f log(alpha_f + eps)`.

    Args:
        gates (`torch.Tensor` [..., F]): shares that sum to 1.
        eps (`float`, *optional*, defaults to 1e-8): added below the logarithm.

    Returns:
        `torch.Tensor` [...]: float32, one value per thought; 0 where one factor has it all, at most `log F`.

    Example:
        >>> sparsity_loss(torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
        tensor([0.5623, 0.6931])
    """
    gates = gates.float()
    return -(gates * (gates + eps).log()).sum(-1)


def uncertainty_weighted(loss: torch.Tensor, log_variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    A loss under a learned weight (FLR section 5.2, Kendall et al., 2018): `lambda L` with `lambda = 1 / (2 exp(s))`,
    and the term `s / 2` that keeps `s` from growing without end; their sum has its minimum at `exp(s) = L`.

    Where a loss vanishes, that minimum does too, and `s` would fall without end. It is bounded smoothly,
    `s = 5 tanh(log_variance / 5)`, so weight and loss are finite whatever is learned.

    Args:
        loss (`torch.Tensor`): L.
        log_variance (`torch.Tensor`): the learned parameter, 0 at first.

    Returns:
        `tuple`: `lambda L` and `s / 2`.

    Example:
        >>> uncertainty_weighted(torch.tensor(3.0), torch.tensor(0.0))
        (tensor(1.5000), tensor(0.))
    """
    bounded = MAX_LOG_VARIANCE * (log_variance.float() / MAX_LOG_VARIANCE).tanh()
    return loss / (2 * bounded.exp()), bounded / 2


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    """Cosines [..., F, F] of vectors [..., F, X] in float32; 0 for a vector of length 0."""
    rows = torch.nn.functional.normalize(rows.float(), dim=-1)
    return rows @ rows.transpose(-2, -1)


def _off_diagonal(matrices: torch.Tensor) -> torch.Tensor:
    """Square matrices with 0 on the diagonal."""
    size = matrices.shape[-1]
    return matrices.masked_fill(torch.eye(size, dtype=torch.bool, device=matrices.device), 0.0)


__all__ = [
    "PolicyLoss",
    "attention_diversity_loss",
    "clipped_policy_loss",
    "group_mean",
    "kl_k3",
    "orthogonality_loss",
    "sparsity_loss",
    "uncertainty_weighted",
]
