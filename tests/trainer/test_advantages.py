"""Advantages against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math
import statistics
import threading

import pytest
import torch

from hf_latentrec.trainer.advantages import baseline_advantage, batch_advantage, group_advantage


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


def slow_batch_advantage(groups):
    """Eq. 7, one number at a time."""
    baseline = sum(group[0] for group in groups) / len(groups)
    norm = math.sqrt(sum((reward - baseline) ** 2 for group in groups for reward in group))
    return [[(reward - baseline) / (norm + 1e-6) for reward in group] for group in groups]


def test_batch_advantage_equals_the_loop():
    rewards = -torch.randn(6, 4).exp()
    result = batch_advantage(rewards)
    for found, expected in zip(result.advantages.tolist(), slow_batch_advantage(rewards.tolist()), strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    assert result.baseline.item() == pytest.approx(statistics.mean(rewards[:, 0].tolist()), rel=1e-5)
    assert not result.has_zero_std.any()


def test_batch_advantage_by_hand():
    # Baseline (-2 - 4) / 2 = -3: sample 1 alone. Deviations 1, 2, 2, -1, -3, -9 have the norm sqrt(100) = 10.
    result = batch_advantage(torch.tensor([[-2.0, -1.0, -1.0], [-4.0, -6.0, -12.0]]))
    assert result.advantages.flatten().tolist() == pytest.approx([0.1, 0.2, 0.2, -0.1, -0.3, -0.9], abs=1e-6)
    assert result.baseline.item() == -3


def test_batch_advantage_over_processes_equals_that_of_one():
    """Three processes with 3, 0 and 2 groups, each in its thread, that wait for each other to sum."""
    rewards = -torch.randn(5, 4).exp()
    parts, results = rewards.split([3, 0, 2]), [None] * 3
    barrier, given = threading.Barrier(3), [None] * 3

    def run(process):
        def reduce(sums):
            given[process] = sums
            barrier.wait()
            total = torch.stack(given).sum(0)
            barrier.wait()
            return total

        results[process] = batch_advantage(parts[process], reduce)

    threads = [threading.Thread(target=run, args=(process,)) for process in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    alone = batch_advantage(rewards)
    torch.testing.assert_close(torch.cat([result.advantages for result in results]), alone.advantages)
    assert all(result.baseline.item() == pytest.approx(alone.baseline.item()) for result in results)


@pytest.mark.parametrize("value", [-1.0, -1 / 3, -4.85e8])
def test_batch_advantage_of_equal_rewards_is_exactly_zero(value):
    rewards = torch.tensor([[value] * 3, [-2.0, -3.0, -4.0]])
    result = batch_advantage(rewards)
    assert result.has_zero_std.tolist() == [True, False]
    assert result.advantages[0].tolist() == [0.0] * 3
    # The group still counts in the baseline and the norm of the others.
    expected = slow_batch_advantage(rewards.tolist())[1]
    assert result.advantages[1].tolist() == pytest.approx(expected, rel=1e-5)
    alone = batch_advantage(rewards[:1])
    assert alone.advantages.tolist() == [[0.0] * 3] and alone.has_zero_std.all()


def test_baseline_advantage_equals_the_loop():
    rewards = torch.randn(6, 5)
    result = baseline_advantage(rewards)
    for group, found in zip(rewards.tolist(), result.advantages.tolist(), strict=True):
        norm = math.sqrt(sum((reward - group[0]) ** 2 for reward in group[1:]))
        assert found == pytest.approx([(reward - group[0]) / (norm + 1e-6) for reward in group], abs=1e-6)
        assert found[0] == 0.0
    assert not result.has_zero_std.any()


def test_baseline_advantage_by_hand():
    # Against 0.1: 0.2, -0.1 and 0.2, of the norm 0.3. Other groups do not matter.
    result = baseline_advantage(torch.tensor([[0.1, 0.3, 0.0, 0.3], [9.0, 9.0, 9.0, 7.0]]))
    assert result.advantages[0].tolist() == pytest.approx([0.0, 2 / 3, -1 / 3, 2 / 3], abs=1e-4)
    assert result.advantages[1].tolist() == pytest.approx([0.0, 0.0, 0.0, -1.0], abs=1e-4)


@pytest.mark.parametrize("value", [0.0, -1 / 3, 1e6])
def test_baseline_advantage_of_equal_rewards_is_exactly_zero(value):
    result = baseline_advantage(torch.tensor([[value] * 3, [0.0, 1.0, 1.0]]))
    assert result.advantages[0].tolist() == [0.0] * 3
    assert result.has_zero_std.tolist() == [True, False]
