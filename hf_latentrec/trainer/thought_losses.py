"""Loss terms of LASAR's thoughts and of their number: pure functions of tensors, one per equation.

Shapes: B prompts, D hidden, N_max the most thoughts that a prompt may have.
"""

from __future__ import annotations

import torch


ALIGNMENTS = ("kl", "cosine", "mse")


def thought_alignment(thoughts: torch.Tensor, anchors: torch.Tensor, kind: str = "kl") -> torch.Tensor:
    """
    How far a thought is from the hidden state of the reasoning text that it stands for, LASAR Eq. 4.

    Args:
        thoughts (`torch.Tensor` [..., D]): hidden states, with gradient.
        anchors (`torch.Tensor` [..., D]): hidden states of the text's segments.
        kind (`str`, *optional*, defaults to `"kl"`):
            `"kl"`: the mean of both KL divergences between the softmax of the D dimensions,
            `1/2 (KL(a || b) + KL(b || a)) = 1/2 sum_d (p_d - q_d) (log p_d - log q_d)`; `"cosine"`: `1 - cos(a, b)`;
            `"mse"`: the mean squared difference over the D dimensions.

    Returns:
        `torch.Tensor` [...]: float32; 0 where both are the same, never negative.

    Raises:
        ValueError: for an unknown `kind`.

    Example:
        >>> thoughts, anchors = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [4.0, 3.0]])
        >>> thought_alignment(thoughts, anchors)
        tensor([0.1155, 0.4621])
        >>> thought_alignment(thoughts, anchors, "mse")
        tensor([0.5000, 1.0000])
    """
    thoughts, anchors = thoughts.float(), anchors.float()
    if kind == "kl":
        log_p, log_q = thoughts.log_softmax(-1), anchors.log_softmax(-1)
        return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
    if kind == "cosine":
        return 1 - torch.cosine_similarity(thoughts, anchors, dim=-1)
    if kind == "mse":
        return (thoughts - anchors).square().mean(-1)
    raise ValueError(f"thought_alignment: kind is {kind!r}; choose one of {ALIGNMENTS}")


def depth_entropy(depth_logits: torch.Tensor) -> torch.Tensor:
    """
    Entropy of a depth policy in nats, `H(pi)` of LASAR Eq. 6.

    Args:
        depth_logits (`torch.Tensor` [..., N_max]): logits of the depths.

    Returns:
        `torch.Tensor` [...]: float32, from 0 to `log N_max`.

    Example:
        >>> depth_entropy(torch.zeros(2))
        tensor(0.6931)
    """
    logps = depth_logits.float().log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)


def reinforce_loss(
    depth_logits: torch.Tensor,
    num_thoughts: torch.Tensor,
    rewards: torch.Tensor,
    baseline: torch.Tensor | float,
    n_penalty: float = 5e-4,
    entropy_coef: float = 0.01,
) -> torch.Tensor:
    """
    REINFORCE on the number of thoughts, LASAR Eq. 6: `-(R - b - lambda N) log pi(N | h_0) - eta H(pi)`.

    Args:
        depth_logits (`torch.Tensor` [B, N_max]): of the depth policy, with gradient; class c stands for depth c + 1.
        num_thoughts (`torch.LongTensor` [B]): the sampled depths N, 1 to N_max.
        rewards (`torch.Tensor` [B]): R of what followed the thoughts; no gradient passes through.
        baseline (`torch.Tensor` or `float`): b.
        n_penalty (`float`, *optional*, defaults to 5e-4): lambda, what a thought costs.
        entropy_coef (`float`, *optional*, defaults to 0.01): eta.

    Returns:
        `torch.Tensor` [B]: float32.

    Example:
        >>> reinforce_loss(torch.zeros(1, 2), torch.tensor([2]), torch.tensor([1.5]), 0.5, 0.1, 0.0)  # 0.8 log 2
        tensor([0.5545])
    """
    advantages = (rewards.float() - baseline - n_penalty * num_thoughts).detach()
    taken = depth_logits.float().log_softmax(-1).gather(-1, num_thoughts[:, None] - 1)[:, 0]
    return -advantages * taken - entropy_coef * depth_entropy(depth_logits)


__all__ = ["ALIGNMENTS", "depth_entropy", "reinforce_loss", "thought_alignment"]
