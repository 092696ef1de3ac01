"""Means of what single steps measure, for the logs."""

from __future__ import annotations

import torch


class RunningMeans:
    """Weighted means that stay on the device until they are logged: per name, a sum and a weight."""

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, total: torch.Tensor, weight: torch.Tensor | float) -> None:
        """Adds a sum of `weight` observations; both are scalars, without gradient."""
        pair = torch.stack([total.detach().float(), torch.as_tensor(weight, device=total.device).float()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def pop(self, reduce=lambda sums: sums) -> dict[str, float]:
        """The means since the last call, of what was observed at all; `reduce` sums a tensor over processes."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        totals, weights = reduce(torch.stack([self._sums[name] for name in names])).cpu().unbind(-1)
        self._sums = {}
        means = zip(names, (totals / weights).tolist(), weights.tolist(), strict=True)
        return {name: mean for name, mean, weight in means if weight != 0}


__all__ = ["RunningMeans"]
