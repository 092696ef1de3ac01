"""Rewards of candidate answers, of thoughts and of rankings: pure functions of tensors, one per equation.

A reward function of answers takes the candidates [B, G, T], best first and padded with -100, and the targets [B, T],
and returns [B, G] in float32. A candidate of nothing but padding does not exist: its reward is 0 and is never used.

Shapes: B prompts, G candidate answers of a prompt, K thoughts of a prompt, T tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


IGNORE_INDEX = -100
# A perplexity of exp(20) = 4.9e8: beyond any vocabulary, and the squares of a large batch still sum in float32.
MAX_MEAN_NEGATIVE_LOGP = 20.0


class PerplexityReward(NamedTuple):
    """Rewards [B, K] and which of them were clamped [B, K]."""

    rewards: torch.Tensor
    clamped: torch.Tensor


def pad_answers(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Answers [..., T] padded with -100 to `num_tokens`, which is at least T."""
    return nn.functional.pad(tokens, (0, num_tokens - tokens.shape[-1]), value=IGNORE_INDEX)


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


def mean_logps(logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Mean log-probability of the target's tokens after each thought: `mean_t log p(y_t | x, y_<t, r^k)`.

    Args:
        logps (`torch.Tensor` [B, K, T]): log-probabilities of the target's tokens after each thought.
        mask (`torch.Tensor` [B, T] or [B, K, T]): True for the tokens that exist, at least one per target.

    Returns:
        `torch.Tensor` [B, K]: float32.

    Example:
        >>> mean_logps(torch.tensor([[[-1.0, -2.0, -9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[-1.5000]])
    """
    mask = (mask if mask.dim() == 3 else mask[:, None]).expand(logps.shape)
    return logps.float().masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1)


def perplexity_reward(logps: torch.Tensor, mask: torch.Tensor) -> PerplexityReward:
    """
    Minus the perplexity of the target after each thought, LatentR³ Eq. 6: `s^k = -exp(-mean_i log p(y_i | x, r^k))`.

    The mean negative log-probability is clamped at `MAX_MEAN_NEGATIVE_LOGP`, in log space, so that no reward is
    infinite and no single one outweighs a batch without bounds.

    Args:
        logps (`torch.Tensor` [B, K, T]): log-probabilities of the target's tokens after each thought.
        mask (`torch.Tensor` [B, T] or [B, K, T]): True for the tokens that exist, at least one per target.

    Returns:
        `PerplexityReward`: float32, -1 for a certain target, at least `-exp(MAX_MEAN_NEGATIVE_LOGP)`.

    Example:
        >>> logps = torch.tensor([[0.5, 0.25], [0.5, 0.5]]).log()[:, None]  # two prompts, one thought each
        >>> perplexity_reward(logps, torch.tensor([[True, True], [True, False]])).rewards
        tensor([[-2.8284],
                [-2.0000]])
    """
    mean_nll = -mean_logps(logps, mask)
    return PerplexityReward(-mean_nll.clamp(max=MAX_MEAN_NEGATIVE_LOGP).exp(), mean_nll > MAX_MEAN_NEGATIVE_LOGP)


def hybrid_reward(
    logps: torch.Tensor,
    mask: torch.Tensor,
    greedy_matches: torch.Tensor,
    confidence_weight: float = 0.1,
    match_weight: float = 1.0,
) -> torch.Tensor:
    """
    Confidence in the target and exact match after each thought, FLR Eq. 10:
    `r = alpha * mean_t log p(y_t | x, y_<t) + beta_r * 1[y_hat = y]`.

    Args:
        logps (`torch.Tensor` [B, K, T]): log-probabilities of the target's tokens after each thought.
        mask (`torch.Tensor` [B, T] or [B, K, T]): True for the tokens that exist, at least one per target.
        greedy_matches (`torch.BoolTensor` [B, K]): where the greedy answer after the thought is the target.
        confidence_weight (`float`, *optional*, defaults to 0.1): alpha.
        match_weight (`float`, *optional*, defaults to 1.0): beta_r.

    Returns:
        `torch.Tensor` [B, K]: float32, at most `match_weight`.

    Example:
        >>> logps = torch.tensor([[[-1.0, -3.0], [-0.5, -0.5]]])  # one prompt, two thoughts
        >>> hybrid_reward(logps, torch.tensor([[True, True]]), torch.tensor([[False, True]]))
        tensor([[-0.2000,  0.9500]])
    """
    return confidence_weight * mean_logps(logps, mask) + match_weight * greedy_matches.float()


def recall_reward(ranks: torch.Tensor, k: int = 10) -> torch.Tensor:
    """
    Recall@k of a single target, LARES section 2.4: 1 where it is among the first k, else 0.

    Args:
        ranks (`torch.LongTensor` [...]): 1-based ranks of targets; 0 where a target is not ranked.
        k (`int`, *optional*, defaults to 10): the cutoff.

    Returns:
        `torch.Tensor` [...]: float32.

    Example:
        >>> recall_reward(torch.tensor([1, 10, 11, 0]))
        tensor([1., 1., 0., 0.])
    """
    return ((ranks > 0) & (ranks <= k)).float()


def rank_ndcg_reward(ranks: torch.Tensor, k: int = 10) -> torch.Tensor:
    """
    NDCG@k of a single target, LARES section 2.4: `1 / log2(rank + 1)` where it is among the first k, else 0.

    Args:
        ranks (`torch.LongTensor` [...]): 1-based ranks of targets; 0 where a target is not ranked.
        k (`int`, *optional*, defaults to 10): the cutoff.

    Returns:
        `torch.Tensor` [...]: float32.

    Example:
        >>> rank_ndcg_reward(torch.tensor([1, 3, 11, 0]))
        tensor([1.0000, 0.5000, 0.0000, 0.0000])
    """
    return recall_reward(ranks, k) / torch.log2(ranks.clamp(min=1) + 1.0)


__all__ = [
    "IGNORE_INDEX",
    "MAX_MEAN_NEGATIVE_LOGP",
    "PerplexityReward",
    "hybrid_reward",
    "is_target",
    "mean_logps",
    "ndcg_reward",
    "perplexity_reward",
    "rank_ndcg_reward",
    "recall_reward",
    "rule_reward",
]
