"""What the candidates of a prompt are as a group, before rewards: pure functions of tensors.

Candidates are [B, G, T], best first and padded with -100; one of nothing but padding does not exist.
Shapes: B prompts, G candidate answers of a prompt, T tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .rewards import IGNORE_INDEX, is_target


class RepairedGroups(NamedTuple):
    """Candidates [B, G, T] and which groups were changed [B]."""

    candidates: torch.Tensor
    repaired: torch.Tensor


def repair_groups(candidates: torch.Tensor, target: torch.Tensor) -> RepairedGroups:
    """
    Puts the target in the place of the worst candidate of every group that lacks it.

    All rewards of a group without a hit are the same, so it has no gradient; a repaired one has.

    Args:
        candidates (`torch.LongTensor` [B, G, T]): token ids, best candidate first, -100 = padding.
        target (`torch.LongTensor` [B, T]): token ids, -100 = padding.

    Returns:
        `RepairedGroups`

    Example:
        >>> repair_groups(torch.tensor([[[5, 7], [5, 8], [-100, -100]]]), torch.tensor([[5, 6]])).candidates
        tensor([[[   5,    7],
                 [   5,    6],
                 [-100, -100]]])
    """
    lacks_target = ~is_target(candidates, target).any(-1)
    num_existing = (candidates != IGNORE_INDEX).any(-1).sum(-1)
    worst_B = (num_existing - 1).clamp(min=0)
    rank_G = torch.arange(candidates.shape[1], device=candidates.device)
    gives_way_BG = lacks_target[:, None] & (rank_G == worst_B[:, None])
    return RepairedGroups(torch.where(gives_way_BG[..., None], target[:, None], candidates), lacks_target)


def candidate_diversity(candidates: torch.Tensor) -> torch.Tensor:
    """
    The share of tokens in which two candidates of a group differ, as a mean over its pairs.

    Args:
        candidates (`torch.LongTensor` [B, G, T]): token ids, -100 = padding, which counts where the other has a token.

    Returns:
        `torch.Tensor` [B]: float32, from 0 (all the same) to 1; 0 for a group of fewer than two.

    Example:
        >>> candidate_diversity(torch.tensor([[[5, 7], [5, 8], [4, 6]]]))  # shares of 1/2, 1 and 1
        tensor([0.8333])
    """
    first, second = candidates[:, :, None], candidates[:, None]
    has_token = (first != IGNORE_INDEX) | (second != IGNORE_INDEX)
    share_BGG = (first != second).sum(-1) / has_token.sum(-1).clamp(min=1)
    exists_BG = (candidates != IGNORE_INDEX).any(-1)
    is_pair_BGG = (exists_BG[:, :, None] & exists_BG[:, None]).triu(1)
    return (share_BGG * is_pair_BGG).sum((-2, -1)) / is_pair_BGG.sum((-2, -1)).clamp(min=1)


__all__ = ["RepairedGroups", "candidate_diversity", "repair_groups"]
