"""Contrastive losses between two views of the same samples.

Shapes: G samples of this process, P samples of all processes, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import distributed


SIMILARITIES = ("dot", "cosine")


def info_nce(
    first: torch.Tensor,
    second: torch.Tensor,
    temperature: float = 1.0,
    similarity: str = "dot",
    users: torch.Tensor | None = None,
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
        users (`torch.LongTensor` [G], *optional*):
            Whose samples they are. Then the sums leave out the other samples of the same user.

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
    others = _other_samples_of_the_user(users, start)
    there = _find_own(first / temperature, all_second, start, others)
    back = _find_own(second / temperature, all_first, start, others)
    return (there + back) / 2


def contrast(states: torch.Tensor, counterparts: torch.Tensor, users: torch.Tensor | None = None) -> torch.Tensor:
    r"""
    Each state has to find its own counterpart among those of all samples, of all processes: one direction of
    [`info_nce`], $-\log \mathrm{softmax}_p(x_g \cdot y_p)$ at $p = g$.

    Args:
        states (`torch.Tensor` [G, D]): x, divided by the temperature.
        counterparts (`torch.Tensor` [G, D]): y.
        users (`torch.LongTensor` [G], *optional*): as in [`info_nce`].

    Returns:
        `torch.Tensor` [G], float32.

    Example:
        >>> contrast(100 * torch.eye(3), torch.eye(3)).max().item() < 1e-6
        True
    """
    (all_counterparts,), start = gather_samples(counterparts.float())
    return _find_own(states.float(), all_counterparts, start, _other_samples_of_the_user(users, start))


def _find_own(
    states_GD: torch.Tensor, counterparts_PD: torch.Tensor, start: int, left_out_GP: torch.Tensor | None
) -> torch.Tensor:
    scores_GP = states_GD @ counterparts_PD.T
    if left_out_GP is not None:
        scores_GP = scores_GP.masked_fill(left_out_GP, -torch.inf)
    own = torch.arange(start, start + len(states_GD), device=states_GD.device)
    return F.cross_entropy(scores_GP, own, reduction="none")


def _other_samples_of_the_user(users: torch.Tensor | None, start: int) -> torch.Tensor | None:
    """True where a sample of all processes has the user of a sample of this one, but is another sample."""
    if users is None:
        return None
    same_GP = users[:, None] == gather_numbers(users)
    same_GP.diagonal(start).fill_(False)
    return same_GP


def gather_samples(*views: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """
    Each view of the samples of all processes [P, D], with gradients, and where this process's samples start.

    The processes may hold different numbers of samples.
    """
    if not _several_processes():
        return list(views), 0
    from torch.distributed.nn.functional import all_gather

    sizes = _sample_counts(views[0])
    padded = F.pad(torch.stack(views), (0, 0, 0, max(sizes) - len(views[0])))
    gathered = torch.cat(
        [part[:, :size] for part, size in zip(all_gather(padded.contiguous()), sizes, strict=True)], dim=1
    )
    return list(gathered), sum(sizes[: distributed.get_rank()])


def gather_numbers(numbers_G: torch.Tensor) -> torch.Tensor:
    """A number of each sample of all processes [P], in the order of [`gather_samples`]."""
    if not _several_processes():
        return numbers_G
    sizes = _sample_counts(numbers_G)
    padded = F.pad(numbers_G, (0, max(sizes) - len(numbers_G)))
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _sample_counts(samples: torch.Tensor) -> list[int]:
    """Samples of each process."""
    count = torch.tensor([len(samples)], device=samples.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    return torch.cat(counts).tolist()


__all__ = ["SIMILARITIES", "contrast", "gather_numbers", "gather_samples", "info_nce"]
