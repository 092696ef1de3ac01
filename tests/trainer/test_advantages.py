"""Group advantages against slow loops and numbers worked out by hand."""

from __future__ import annotations

import statistics

import pytest
import torch

from hf_latentrec.trainer.advantages import group_advantage


@pytest.mark.parametrize("scale", [True, False])
def test_group_advantage_equals_the_loop(scale):
    rewards = torch.randn(5, 6)
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[1, 4:] = False
    result = group_advantage(rewards, mask, scale=scale)
    for row in range(5):
        kept = [reward for reward, keep in zip(rewards[row].tolist(), mask[row].tolist(), strict=True) if keep]
        mean, std = statistics.mean(kept), statistics.stdev(kept)
        expected = [(reward - mean) / (std + 1e-4 if scale else 1) for reward in kept] + [0.0] * (6 - len(kept))
        assert result.advantages[row].tolist() == pytest.approx(expected, abs=1e-5)
        assert result.reward_std[row].item() == pytest.approx(std, abs=1e-5)
    assert not result.has_zero_std.any()


def test_group_advantage_by_hand():
    # mean 0.25, deviations 0.75 and -0.25, sample variance (0.5625 + 3 * 0.0625) / 3 = 0.25
    advantages = group_advantage(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).advantages
    assert advantages[0].tolist() == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6])
def test_equal_rewards_give_exactly_zero(value):
    result = group_advantage(torch.full((1, 7), value))
    assert result.advantages.tolist() == [[0.0] * 7]
    assert result.has_zero_std.tolist() == [True]


def test_missing_candidates_do_not_count():
    rewards = torch.tensor([[1.0, 0.0, 55.0], [1.0, 3.0, 5.0], [1.0, 3.0, 5.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    result = group_advantage(rewards, mask)
    assert result.advantages[0].tolist() == pytest.approx([0.5 / 0.7072, -0.5 / 0.7072, 0.0], abs=1e-4)
    assert result.advantages[1:].tolist() == [[0.0] * 3] * 2
    assert result.has_zero_std.tolist() == [False, True, True]
