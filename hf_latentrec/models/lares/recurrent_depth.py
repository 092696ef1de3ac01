"""The two random numbers of recurrent depth: how many steps, and the state that they start from."""

from __future__ import annotations

import math

import torch


TRUNCATION = 3.0  # standard deviations at which the initial state is cut
MOST_STEPS = 3  # the deepest training step, in units of mean_steps


def draw_num_steps(mean_steps: int, sigma: float, generator: torch.Generator | None = None) -> int:
    r"""
    A depth from the log-normal Poisson distribution (LARES, Eq. 6), at most `3 * mean_steps`.

    $$\xi \sim N(\log \bar k - \sigma^2 / 2,\ \sigma^2),\quad k = \min(1 + \mathrm{Poisson}(e^\xi),\ 3 \bar k)$$

    Args:
        mean_steps (`int`): \bar k; the mean depth before the cut is one more.
        sigma (`float`): standard deviation of the logarithm.
        generator (`torch.Generator`, *optional*): of a CPU.

    Returns:
        `int`: from 1 to `3 * mean_steps`.

    Example:
        >>> draw_num_steps(4, 0.5, torch.Generator().manual_seed(0)) in range(1, 13)
        True
    """
    log_rate = math.log(mean_steps) - sigma**2 / 2 + sigma * torch.randn((), generator=generator)
    return min(1 + int(torch.poisson(log_rate.exp(), generator=generator)), MOST_STEPS * mean_steps)


def draw_initial_state(
    *shape: int, std: float, scale: float, generator: torch.Generator | None = None, device: torch.device | None = None
) -> torch.Tensor:
    """
    T_0: a normal distribution cut at three standard deviations, multiplied by `scale`.

    Args:
        shape (`int`): of the state.
        std (`float`): standard deviation before the cut.
        scale (`float`): factor.
        generator (`torch.Generator`, *optional*): of the device.
        device (`torch.device`, *optional*): where the state is made.

    Returns:
        `torch.Tensor` of that shape.

    Example:
        >>> state = draw_initial_state(1000, std=1.0, scale=3.0)
        >>> state.shape, bool(state.abs().max() <= 9.0)
        (torch.Size([1000]), True)
    """
    return to_initial_state(torch.rand(shape, generator=generator, device=device), std, scale)


def to_initial_state(uniform: torch.Tensor, std: float, scale: float) -> torch.Tensor:
    """T_0 from random numbers between 0 and 1, which are overwritten; see [`draw_initial_state`]."""
    inside = math.erf(TRUNCATION / math.sqrt(2.0))  # share of the distribution within the cut
    normal = uniform.mul_(2.0).sub_(1.0).mul_(inside).erfinv_().mul_(math.sqrt(2.0))
    return normal.clamp_(-TRUNCATION, TRUNCATION).mul_(std * scale)


__all__ = ["draw_initial_state", "draw_num_steps", "to_initial_state"]
