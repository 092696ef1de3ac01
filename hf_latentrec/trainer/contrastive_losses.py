"""Contrastive losses between two views of the same samples.

Shapes: G samples of this process, P samples of all processes, D hidden.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import distributed


SIMILARITIES = ("dot", "cosine")


class GlobalSamples:
    """
    The samples of a batch among those of all processes: what all contrastive losses of the batch share. Processes ask
    each other once, when a loss first needs it.

    Args:
        users_G (`torch.LongTensor` [G], *optional*): whose samples they are; no loss can do without.
        same_user_negatives (`bool`, *optional*, defaults to `False`):
            Whether a sample's negatives are all others, also those of its own user.

    Raises:
        ValueError: when a loss needs users who are not known.

    Example:
        >>> GlobalSamples(torch.tensor([7, 7, 8])).left_out_GP.int().tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """

    def __init__(self, users_G: torch.Tensor | None, same_user_negatives: bool = False):
        self.users_G, self.same_user_negatives = users_G, same_user_negatives

    @cached_property
    def counts(self) -> list[int]:
        """Samples of each process; processes may hold different numbers of them."""
        if self.users_G is None:
            raise ValueError(
                "a contrastive loss has to know whose samples a batch holds, but the batch has no sample_users; let "
                "the collator add them, as SequenceCollator does"
            )
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return [len(self.users_G)]
        count = torch.tensor([len(self.users_G)], device=self.users_G.device)
        counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
        distributed.all_gather(counts, count)
        return torch.cat(counts).tolist()

    @property
    def start(self) -> int:
        """Where this process's samples start among those of all."""
        return sum(self.counts[: distributed.get_rank()]) if len(self.counts) > 1 else 0

    @cached_property
    def left_out_GP(self) -> torch.Tensor | None:
        """True where a sample of all processes has the user of a sample of this one, but is another sample; None where
        it is a negative all the same."""
        if self.same_user_negatives:
            return None
        same_GP = self.users_G[:, None] == self._users_P
        same_GP.diagonal(self.start).fill_(False)
        return same_GP

    @property
    def _users_P(self) -> torch.Tensor:
        if len(self.counts) == 1:
            return self.users_G
        padded = F.pad(self.users_G, (0, max(self.counts) - len(self.users_G)))
        parts = [torch.empty_like(padded) for _ in self.counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def gather(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """Each view [G, D] of the samples of all processes [P, D], with gradients."""
        if len(self.counts) == 1:
            return views
        from torch.distributed.nn.functional import all_gather

        padded = F.pad(torch.stack(views), (0, 0, 0, max(self.counts) - len(views[0])))
        parts = all_gather(padded.contiguous())
        return list(torch.cat([part[:, :count] for part, count in zip(parts, self.counts, strict=True)], dim=1))


def info_nce(
    first: torch.Tensor,
    second: torch.Tensor,
    temperature: float = 1.0,
    similarity: str = "dot",
    samples: GlobalSamples | None = None,
    within_views: bool = False,
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
        samples ([`GlobalSamples`], *optional*): whose they are; by default all others are negatives.
        within_views (`bool`, *optional*, defaults to `False`):
            Whether the others of a sample's own view are negatives, too: twice as many (CL4SRec, DuoRec).

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
    samples = samples or _of_any_user(first)
    all_first, all_second = samples.gather([first, second])
    there = _find_own(first / temperature, all_second, samples, all_first if within_views else None)
    back = _find_own(second / temperature, all_first, samples, all_second if within_views else None)
    return (there + back) / 2


def contrast(states: torch.Tensor, counterparts: torch.Tensor, samples: GlobalSamples | None = None) -> torch.Tensor:
    r"""
    Each state has to find its own counterpart among those of all samples, of all processes: one direction of
    [`info_nce`], $-\log \mathrm{softmax}_p(x_g \cdot y_p)$ at $p = g$.

    Args:
        states (`torch.Tensor` [G, D]): x, divided by the temperature.
        counterparts (`torch.Tensor` [G, D]): y.
        samples ([`GlobalSamples`], *optional*): as in [`info_nce`].

    Returns:
        `torch.Tensor` [G], float32.

    Example:
        >>> contrast(100 * torch.eye(3), torch.eye(3)).max().item() < 1e-6
        True
    """
    samples = samples or _of_any_user(states)
    (all_counterparts,) = samples.gather([counterparts.float()])
    return _find_own(states.float(), all_counterparts, samples)


def _of_any_user(states_GD: torch.Tensor) -> GlobalSamples:
    return GlobalSamples(torch.zeros(len(states_GD), dtype=torch.int64, device=states_GD.device), True)


def _find_own(
    states_GD: torch.Tensor,
    counterparts_PD: torch.Tensor,
    samples: GlobalSamples,
    own_view_PD: torch.Tensor | None = None,
) -> torch.Tensor:
    def scores(others_PD: torch.Tensor) -> torch.Tensor:
        scores_GP = states_GD @ others_PD.T
        return scores_GP if samples.left_out_GP is None else scores_GP.masked_fill(samples.left_out_GP, -torch.inf)

    scores_GN = scores(counterparts_PD)
    if own_view_PD is not None:
        within_GP = scores(own_view_PD)
        within_GP.diagonal(samples.start).fill_(-torch.inf)  # the sample itself
        scores_GN = torch.cat([scores_GN, within_GP], dim=1)
    own = torch.arange(samples.start, samples.start + len(states_GD), device=states_GD.device)
    return F.cross_entropy(scores_GN, own, reduction="none")


__all__ = ["SIMILARITIES", "GlobalSamples", "contrast", "info_nce"]
