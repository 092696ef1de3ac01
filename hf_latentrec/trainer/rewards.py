"""Rewards of candidate answers: pure functions of tensors, one per equation.

A reward function takes the candidates [B, G, T], best first and padded with -100, and the targets [B, T], and returns
[B, G] in float32. A candidate of nothing but padding does not exist: its reward is 0 and is never used.

Shapes: B prompts, G candidate answers of a prompt, T tokens of an answer.
"""

from __future__ import annotations

import torch


IGNORE_INDEX = -100


def is_target(candidate_sequences: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """True for the candidates [B, G] whose tokens are those of the target."""
    return (candidate_sequences == target[:, None]).all(-1)


def rule_reward(candidate_sequences: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Exact match, LASAR Eq. 9: 1 for the target, else 0.

    Args:
        candidate_sequences (`torch.LongTensor` [B, G, T]): token ids, -100 = padding.
        target (`torch.LongTensor` [B, T]): token ids, -100 = padding.

    Returns:
        `torch.Tensor` [B, G].

    Example:
        >>> rule_reward(torch.tensor([[[5, 7], [5, 6]]]), torch.tensor([[5, 6]]))
        tensor([[0., 1.]])
    """
    return is_target(candidate_sequences, target).float()


def ndcg_reward(candidate_sequences: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Penalty of a wrong candidate by its rank, LASAR Eq. 10.

    `r_i = -w_i / sum_j w_j` with `w_i = 1 / log2(i + 2)` for a wrong candidate at rank i (0-based) of a group that
    holds the target; 0 for the target itself and in groups without it. As printed, the signs of Eq. 10 cancel; the
    text says that it penalizes.

    Args:
        candidate_sequences (`torch.LongTensor` [B, G, T]): token ids, best candidate first, -100 = padding.
        target (`torch.LongTensor` [B, T]): token ids, -100 = padding.

    Returns:
        `torch.Tensor` [B, G].

    Example:
        >>> ndcg_reward(torch.tensor([[[5, 7], [5, 6]]]), torch.tensor([[5, 6]]))
        tensor([[-0.6131, 0.0000]])
    """
    hit_BG = is_target(candidate_sequences, target)
    exists_BG = (candidate_sequences != IGNORE_INDEX).any(-1)
    rank_G = torch.arange(candidate_sequences.shape[1], device=candidate_sequences.device)
    weight_BG = exists_BG / torch.log2(rank_G + 2.0)
    penalty_BG = weight_BG / weight_BG.sum(-1, keepdim=True).clamp(min=1.0)  # w_0 is 1: only empty groups are clamped
    return torch.where(hit_BG.any(-1, keepdim=True) & ~hit_BG, -penalty_BG, 0.0)


__all__ = ["IGNORE_INDEX", "is_target", "ndcg_reward", "rule_reward"]
