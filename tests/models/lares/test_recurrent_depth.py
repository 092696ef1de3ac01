"""The distributions of the depth and of T_0, against probabilities that are summed up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_latentrec.models.lares.recurrent_depth import draw_initial_state, draw_num_steps


def uncut_probabilities(mean_steps: int, sigma: float, most: int) -> np.ndarray:
    """P(k) for k = 1 to `most` of Eq. 6 without its cut: the Poisson probability, averaged over xi."""
    z = np.linspace(-8, 8, 4001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    log_rates = np.log(mean_steps) - sigma**2 / 2 + sigma * z
    counts = np.arange(most)[:, None]
    log_factorials = np.array([math.lgamma(count + 1) for count in range(most)])[:, None]
    return (np.exp(counts * log_rates - np.exp(log_rates) - log_factorials) * weights).sum(1)


def check_shares(found: np.ndarray, probabilities: np.ndarray, number: int) -> None:
    """Within four standard deviations of a share."""
    deviations = np.sqrt(probabilities * (1 - probabilities) / number)
    assert (np.abs(found - probabilities) <= 4 * deviations + 1e-9).all(), (found, probabilities)


@pytest.mark.parametrize(("mean_steps", "sigma"), [(4, 0.5), (2, 1.0), (3, 0.0), (1, 0.5)])
@pytest.mark.parametrize("fresh", [False, True])  # one generator, or one per training step with the step as its seed
def test_depths_follow_equation_6(mean_steps, sigma, fresh):
    number, most = 4000, 3 * mean_steps
    generator = torch.Generator().manual_seed(0)
    depths = [
        draw_num_steps(mean_steps, sigma, torch.Generator().manual_seed(step) if fresh else generator)
        for step in range(number)
    ]
    probabilities = uncut_probabilities(mean_steps, sigma, most)
    probabilities[-1] = 1 - probabilities[:-1].sum()  # the cut: all that is deeper
    check_shares(np.bincount(depths, minlength=most + 1) / number, np.array([0, *probabilities]), number)


def test_the_mean_of_equation_6_before_the_cut():
    probabilities = uncut_probabilities(4, 0.5, 120)
    assert probabilities.sum() == pytest.approx(1) and probabilities @ np.arange(1, 121) == pytest.approx(5)


def test_a_seed_gives_its_depths():
    first, again, other = (
        [draw_num_steps(4, 0.5, generator) for _ in range(20)]
        for generator in (torch.Generator().manual_seed(seed) for seed in (3, 3, 4))
    )
    assert first == again != other


def test_the_initial_state_is_a_normal_distribution_cut_at_three():
    number = 200_000
    state = (draw_initial_state(number, std=0.5, scale=3.0, generator=torch.Generator().manual_seed(0)) / 1.5).numpy()
    assert 2.9 < np.abs(state).max() <= 3.0 + 1e-6
    assert (np.abs(state) >= 2.9999).mean() < 1e-4  # what is beyond is drawn again, not moved to the border
    points = np.array([-2.5, -1.0, -0.3, 0.0, 0.8, 2.0])
    inside = math.erf(3 / math.sqrt(2))
    shares = np.array([0.5 + math.erf(point / math.sqrt(2)) / inside / 2 for point in points])
    check_shares(np.array([(state < point).mean() for point in points]), shares, number)


def test_initial_states_by_seed_and_without_spread():
    first, again, other = (
        draw_initial_state(2, 3, std=1.0, scale=3.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and (first != other).all()
    assert torch.equal(draw_initial_state(2, 3, std=0.0, scale=3.0), torch.zeros(2, 3))
