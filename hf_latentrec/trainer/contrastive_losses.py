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
    counts = _sample_counts(first)
    all_first, all_second = _gather_samples([first, second], counts)
    others = _other_samples_of_the_user(users, counts)
    there = _find_own(first / temperature, all_second, _start(counts), others)
    back = _find_own(second / temperature, all_first, _start(counts), others)
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
    counts = _sample_counts(states)
    (all_counterparts,) = _gather_samples([counterparts.float()], counts)
    others = _other_samples_of_the_user(users, counts)
    return _find_own(states.float(), all_counterparts, _start(counts), others)


def _find_own(
    states_GD: torch.Tensor, counterparts_PD: torch.Tensor, start: int, left_out_GP: torch.Tensor | None
) -> torch.Tensor:
    scores_GP = states_GD @ counterparts_PD.T
    if left_out_GP is not None:
        scores_GP = scores_GP.masked_fill(left_out_GP, -torch.inf)
    own = torch.arange(start, start + len(states_GD), device=states_GD.device)
    return F.cross_entropy(scores_GP, own, reduction="none")


def _other_samples_of_the_user(users_G: torch.Tensor | None, counts: list[int]) -> torch.Tensor | None:
    """True where a sample of all processes has the user of a sample of this one, but is another sample."""
    if users_G is None:
        return None
    same_GP = users_G[:, None] == _gather_numbers(users_G, counts)
    same_GP.diagonal(_start(counts)).fill_(False)
    return same_GP


def _sample_counts(samples: torch.Tensor) -> list[int]:
    """Samples of each process; processes may hold different numbers of them."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return [len(samples)]
    count = torch.tensor([len(samples)], device=samples.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    return torch.cat(counts).tolist()


def _start(counts: list[int]) -> int:
    """Where this process's samples start among those of all."""
    return sum(counts[: distributed.get_rank()]) if len(counts) > 1 else 0


def _gather_samples(views: list[torch.Tensor], counts: list[int]) -> list[torch.Tensor]:
    """Each view of the samples of all processes [P, D], with gradients."""
    if len(counts) == 1:
        return views
    from torch.distributed.nn.functional import all_gather

    padded = F.pad(torch.stack(views), (0, 0, 0, max(counts) - len(views[0])))
    parts = all_gather(padded.contiguous())
    return list(torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1))


def _gather_numbers(numbers_G: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """A number of each sample of all processes [P], in the order of [`_gather_samples`]."""
    if len(counts) == 1:
        return numbers_G
    padded = F.pad(numbers_G, (0, max(counts) - len(numbers_G)))
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


__all__ = ["SIMILARITIES", "contrast", "info_nce"]
