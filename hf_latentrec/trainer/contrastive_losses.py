"""Contrastive losses between two views of the same samples.

Shapes: G samples of this process, P samples of all processes, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import distributed


SIMILARITIES = ("dot", "cosine")


def info_nce(
    first: torch.Tensor, second: torch.Tensor, temperature: float = 1.0, similarity: str = "dot"
) -> torch.Tensor:
    r"""
    Each sample's view has to be found among the views of all samples, in both directions (LARES, Eq. 8 and 9).

    $$\tfrac12 \left(-\log \frac{\exp(s(x_g, y_g) / \tau)}{\sum_p \exp(s(x_g, y_p) / \tau)}
      -\log \frac{\exp(s(y_g, x_g) / \tau)}{\sum_p \exp(s(y_g, x_p) / \tau)}\right)$$

    On several processes the sums run over the samples of all of them, and gradients flow back to all.

    Args:
        first (`torch.Tensor` [G, D]): x.
        second (`torch.Tensor` [G, D]): y.
        temperature (`float`, *optional*, defaults to 1.0): tau.
        similarity (`str`, *optional*, defaults to `"dot"`): s; `"dot"` or `"cosine"`.

    Returns:
        `torch.Tensor` [G], float32.

    Raises:
        ValueError: for an unknown similarity.

    Example:
        >>> x = torch.eye(3)
        >>> info_nce(x, x, temperature=0.01).max().item() < 1e-6
        True
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"info_nce: similarity is {similarity!r}; choose one of {SIMILARITIES}")
    first, second = first.float(), second.float()
    if similarity == "cosine":
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    all_first, all_second, start = gather_samples(first, second)
    own = torch.arange(start, start + len(first), device=first.device)
    there = F.cross_entropy(first @ all_second.T / temperature, own, reduction="none")
    back = F.cross_entropy(second @ all_first.T / temperature, own, reduction="none")
    return (there + back) / 2


def gather_samples(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """
    Both views of the samples of all processes [P, D], with gradients, and where this process's samples start.

    The processes may hold different numbers of samples.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return first, second, 0
    from torch.distributed.nn.functional import all_gather

    count = torch.tensor([len(first)], device=first.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    padded = F.pad(torch.stack([first, second]), (0, 0, 0, max(sizes) - len(first)))
    gathered = torch.cat(
        [part[:, :size] for part, size in zip(all_gather(padded.contiguous()), sizes, strict=True)], dim=1
    )
    return gathered[0], gathered[1], sum(sizes[: distributed.get_rank()])


__all__ = ["SIMILARITIES", "gather_samples", "info_nce"]
