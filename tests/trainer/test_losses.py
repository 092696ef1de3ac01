"""Losses against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.trainer.losses import clipped_policy_loss, group_mean, kl_k3


@pytest.fixture
def batch():
    B, G, T = 3, 4, 5
    mask = torch.rand(B, G, T) < 0.7
    mask[0, 3] = False  # a candidate that does not exist
    mask[2] = False  # a prompt without candidates
    return torch.randn(B, G, T), torch.randn(B, G, T), torch.randn(B, G), mask


def slow_group_mean(values, mask):
    means = []
    for group, group_mask in zip(values.tolist(), mask.tolist(), strict=True):
        candidates = []
        for tokens, exists in zip(group, group_mask, strict=True):
            kept = [value for value, keep in zip(tokens, exists, strict=True) if keep]
            if kept:
                candidates.append(sum(kept) / len(kept))
        means.append(sum(candidates) / len(candidates) if candidates else 0.0)
    return means


def test_group_mean_is_a_mean_of_candidate_means(batch):
    values, _, _, mask = batch
    assert group_mean(values, mask).tolist() == pytest.approx(slow_group_mean(values, mask), abs=1e-6)


@pytest.mark.parametrize("epsilon_high", [None, 0.5])
def test_clipped_policy_loss_equals_the_loop(batch, epsilon_high):
    logps, old_logps, advantages, mask = batch
    result = clipped_policy_loss(logps, old_logps, advantages, mask, 0.2, epsilon_high)
    high = 1.2 if epsilon_high is None else 1 + epsilon_high
    loss, low_clipped, high_clipped = (torch.zeros_like(logps) for _ in range(3))
    for b, g, t in torch.cartesian_prod(*map(torch.arange, logps.shape)).tolist():
        ratio = math.exp(logps[b, g, t] - old_logps[b, g, t])
        advantage = advantages[b, g].item()
        loss[b, g, t] = -min(ratio * advantage, min(max(ratio, 0.8), high) * advantage)
        low_clipped[b, g, t] = ratio < 0.8 and advantage < 0
        high_clipped[b, g, t] = ratio > high and advantage > 0
    assert result.loss.tolist() == pytest.approx(slow_group_mean(loss, mask), abs=1e-5)
    assert result.clip_low.tolist() == pytest.approx(slow_group_mean(low_clipped, mask), abs=1e-6)
    assert result.clip_high.tolist() == pytest.approx(slow_group_mean(high_clipped, mask), abs=1e-6)
    assert result.clip_low.sum() > 0 and result.clip_high.sum() > 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the bounds: d(-rho A)/d logp = -rho A
        (1.5, 2.0, -2.4, 0.0),  # good enough already: clipped above, no gradient
        (1.5, -2.0, 3.0, 3.0),  # a bad answer that became likelier is never clipped
        (0.5, -2.0, 1.6, 0.0),  # bad and unlikely already: clipped below
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_clipping_by_hand(ratio, advantage, loss, gradient):
    logps = torch.tensor([[[math.log(ratio)]]], requires_grad=True)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    result = clipped_policy_loss(logps, torch.zeros(1, 1, 1), torch.tensor([[advantage]]), mask, 0.2).loss.sum()
    result.backward()
    assert result.item() == pytest.approx(loss, rel=1e-5)
    assert logps.grad.item() == pytest.approx(gradient, rel=1e-5)


def test_kl_k3_by_hand():
    logps = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    ref_logps = torch.tensor([-1.0, -1.5, -1.0])
    kl = kl_k3(logps, ref_logps)
    assert kl.tolist() == pytest.approx([0.0, math.exp(-1) + 1 - 1, math.e - 1 - 1], rel=1e-5)
    kl.sum().backward()  # d/d logp = 1 - exp(ref - logp)
    assert logps.grad.tolist() == pytest.approx([0.0, 1 - math.exp(-1), 1 - math.e], rel=1e-5)


def test_kl_k3_is_the_kl_divergence_in_expectation():
    policy, reference = torch.randn(2, 6).log_softmax(-1)
    expectation = (policy.exp() * kl_k3(policy, reference)).sum()
    assert expectation.item() == pytest.approx((policy.exp() * (policy - reference)).sum().item(), rel=1e-5)
