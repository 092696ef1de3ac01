"""Rewards against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.trainer.rewards import ndcg_reward, rule_reward


# Four prompts: target at rank 2, target first, target absent, and a group of two candidates.
CANDIDATES = torch.tensor(
    [
        [[4, 8], [5, 8], [4, 9], [6, 8]],
        [[4, 9], [5, 8], [4, 8], [6, 8]],
        [[4, 8], [5, 8], [4, 10], [6, 8]],
        [[4, 9], [5, 8], [-100, -100], [-100, -100]],
    ]
)
TARGET = torch.tensor([[4, 9]] * 4)


def test_rule_reward():
    assert rule_reward(CANDIDATES, TARGET).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_rule_reward_wants_every_token():
    assert rule_reward(torch.tensor([[[4, 8], [4, -100]]]), torch.tensor([[4, -100]])).tolist() == [[0, 1]]


def test_ndcg_reward_equals_the_loop():
    rewards = ndcg_reward(CANDIDATES, TARGET)
    for group, target, found in zip(CANDIDATES.tolist(), TARGET.tolist(), rewards.tolist(), strict=True):
        group = [candidate for candidate in group if candidate[0] != -100]
        weights = [1 / math.log2(rank + 2) for rank in range(len(group))]
        for rank in range(4):
            wrong = rank < len(group) and target in group and group[rank] != target
            assert found[rank] == pytest.approx(-weights[rank] / sum(weights) if wrong else 0.0)


def test_ndcg_reward_by_hand():
    # 1, 0.6309, 0.5, 0.4307 sum to 2.5616: the best-ranked wrong answer is punished most.
    expected = [-1 / 2.5616, -0.6309 / 2.5616, 0, -0.4307 / 2.5616]
    assert ndcg_reward(CANDIDATES, TARGET)[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert ndcg_reward(CANDIDATES, TARGET)[2].tolist() == [0, 0, 0, 0]
