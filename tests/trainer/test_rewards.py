"""Rewards against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.trainer.rewards import (
    MAX_MEAN_NEGATIVE_LOGP,
    hybrid_reward,
    ndcg_reward,
    perplexity_reward,
    rank_ndcg_reward,
    recall_reward,
    rule_reward,
)


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


@pytest.mark.parametrize("own_answers", [False, True])
def test_perplexity_reward_equals_the_loop(own_answers):
    B, K, T = 3, 4, 5
    logps = torch.randn(B, K, T).abs().neg()
    lengths = torch.randint(1, T + 1, (B, K) if own_answers else (B,))
    mask = torch.arange(T) < lengths[..., None]
    result = perplexity_reward(logps, mask)
    for b in range(B):
        for k in range(K):
            length = int(lengths[b, k] if own_answers else lengths[b])
            perplexity = math.prod(1 / math.exp(logps[b, k, t]) for t in range(length)) ** (1 / length)
            assert result.rewards[b, k].item() == pytest.approx(-perplexity, rel=1e-5)
    assert not result.clamped.any()


def test_perplexity_reward_by_hand():
    # A token of probability 1/8 and one of 1/2: the geometric mean of 8 and 2 is 4. What is padding does not matter.
    logps = torch.tensor([[[1 / 8, 1 / 2, 1 / 5], [1.0, 1.0, 1 / 5]]]).log()
    result = perplexity_reward(logps, torch.tensor([[True, True, False]]))
    assert result.rewards[0].tolist() == pytest.approx([-4.0, -1.0])
    assert result.rewards.dtype == torch.float32


def test_perplexity_that_overflows_is_clamped_and_counted():
    """exp(200) is beyond float32; the limit itself is not clamped, and infinity is."""
    nll = torch.tensor([[200.0, MAX_MEAN_NEGATIVE_LOGP, MAX_MEAN_NEGATIVE_LOGP + 1e-3, math.inf, 1.0]])
    padding = torch.tensor([[math.nan]])  # what stands in padding never counts
    logps = torch.stack([-nll, padding.expand_as(nll)], dim=-1)
    rewards, clamped = perplexity_reward(logps, torch.tensor([[True, False]]))
    worst = -math.exp(MAX_MEAN_NEGATIVE_LOGP)
    assert rewards[0].tolist() == pytest.approx([worst, worst, worst, worst, -math.e])
    assert clamped.tolist() == [[True, False, True, True, False]]
    assert math.isfinite(rewards.square().sum().item() * 2**15)  # as many in one batch would still sum


@pytest.mark.parametrize("own_answers", [False, True])
def test_hybrid_reward_equals_the_loop(own_answers):
    B, K, T = 3, 4, 5
    logps = torch.randn(B, K, T).abs().neg()
    lengths = torch.randint(1, T + 1, (B, K) if own_answers else (B,))
    mask = torch.arange(T) < lengths[..., None]
    matches = torch.rand(B, K) < 0.5
    rewards = hybrid_reward(
        logps.masked_fill(~(mask if own_answers else mask[:, None]), math.nan), mask, matches, 0.3, 0.7
    )
    for b in range(B):
        for k in range(K):
            length = int(lengths[b, k] if own_answers else lengths[b])
            confidence = sum(logps[b, k, t].item() for t in range(length)) / length
            expected = 0.3 * confidence + (0.7 if matches[b, k] else 0.0)
            assert rewards[b, k].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_hybrid_reward_by_hand():
    # Two tokens of probability 1/e and 1/e^3: a mean of -2, times 0.1, and 1 for the match.
    logps = torch.tensor([[[-1.0, -3.0], [-1.0, -3.0]]], dtype=torch.bfloat16)
    rewards = hybrid_reward(logps, torch.tensor([[True, True]]), torch.tensor([[True, False]]))
    assert rewards[0].tolist() == pytest.approx([0.8, -0.2]) and rewards.dtype == torch.float32


@pytest.mark.parametrize("k", [1, 5, 10])
def test_rewards_of_ranks_equal_the_loop(k):
    ranks = torch.arange(0, 24).view(2, 3, 4)
    recall, ndcg = recall_reward(ranks, k), rank_ndcg_reward(ranks, k)
    assert recall.shape == ndcg.shape == ranks.shape and recall.dtype == ndcg.dtype == torch.float32
    for rank, hit, gain in zip(ranks.flatten().tolist(), recall.flatten(), ndcg.flatten(), strict=True):
        is_hit = 1 <= rank <= k
        assert hit == float(is_hit) and float(gain) == pytest.approx(1 / math.log2(rank + 1) if is_hit else 0.0)
