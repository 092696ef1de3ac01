"""Dropout whose random numbers cost next to nothing on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


LEVELS = 2**16  # an element is dropped by 16 random bits


class FastDropout(nn.Module):
    """
    As `nn.Dropout`. On a CPU an element takes 16 bits of a 64-bit random number, while `torch` draws a number in
    double precision for each, which takes longer than the layer's arithmetic; the probability is rounded to a multiple
    of 2^-16.

    Args:
        p (`float`): probability that an element is set to 0, in [0, 1); the others are divided by the probability to
            stay.

    Example:
        >>> dropped = FastDropout(0.5)(torch.ones(1000))
        >>> dropped.unique().tolist()
        [0.0, 2.0]
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[...] → [...]; in evaluation the same tensor."""
        if not self.training or self.p == 0:
            return hidden
        if hidden.device.type != "cpu":
            return F.dropout(hidden, self.p)
        return hidden * self._factors(hidden)

    def _factors(self, hidden: torch.Tensor) -> torch.Tensor:
        """0 for what is dropped, else 1 / probability to stay."""
        num_dropped = round(self.p * LEVELS)
        bits = torch.empty((hidden.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        stays = bits[: hidden.numel()] >= num_dropped - LEVELS // 2
        return stays.view(hidden.shape).to(hidden.dtype).mul_(LEVELS / (LEVELS - num_dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


__all__ = ["FastDropout"]
