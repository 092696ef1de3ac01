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
    (all_first, all_second), start = gather_samples(first, second)
    there = _find_own(first / temperature, all_second, start)
    back = _find_own(second / temperature, all_first, start)
    return (there + back) / 2


def contrast(states: torch.Tensor, counterparts: torch.Tensor) -> torch.Tensor:
    r"""
    Each state has to find its own counterpart among those of all samples, of all processes: one direction of
    [`info_nce`], $-\log \mathrm{softmax}_p(x_g \cdot y_p)$ at $p = g$.

    Args:
        states (`torch.Tensor` [G, D]): x, divided by the temperature.
        counterparts (`torch.Tensor` [G, D]): y.

    Returns:
        `torch.Tensor` [G], float32.

    Example:
        >>> contrast(100 * torch.eye(3), torch.eye(3)).max().item() < 1e-6
        True
    """
    (all_counterparts,), start = gather_samples(counterparts.float())
    return _find_own(states.float(), all_counterparts, start)


def _find_own(states_GD: torch.Tensor, others_PD: torch.Tensor, start: int) -> torch.Tensor:
    own = torch.arange(start, start + len(states_GD), device=states_GD.device)
    return F.cross_entropy(states_GD @ others_PD.T, own, reduction="none")


def gather_samples(*views: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """
    Each view of the samples of all processes [P, D], with gradients, and where this process's samples start.

    The processes may hold different numbers of samples.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return list(views), 0
    from torch.distributed.nn.functional import all_gather

    count = torch.tensor([len(views[0])], device=views[0].device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    padded = F.pad(torch.stack(views), (0, 0, 0, max(sizes) - len(views[0])))
    gathered = torch.cat(
        [part[:, :size] for part, size in zip(all_gather(padded.contiguous()), sizes, strict=True)], dim=1
    )
    return list(gathered), sum(sizes[: distributed.get_rank()])


__all__ = ["SIMILARITIES", "contrast", "gather_samples", "info_nce"]
