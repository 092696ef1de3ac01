"""Losses against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.trainer.losses import (
    attention_diversity_loss,
    clipped_policy_loss,
    group_mean,
    kl_k3,
    orthogonality_loss,
    sparsity_loss,
    uncertainty_weighted,
)


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


def slow_cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.mark.parametrize("num_factors", [1, 2, 3, 5])
def test_orthogonality_equals_the_loop(num_factors):
    """FLR Eq. 5, entry by entry of the matrix."""
    factors = torch.randn(3, num_factors, 6)
    for loss, rows in zip(orthogonality_loss(factors).tolist(), factors.tolist(), strict=True):
        entries = [slow_cosine(rows[i], rows[j]) - (i == j) for i in range(num_factors) for j in range(num_factors)]
        assert loss == pytest.approx(sum(entry**2 for entry in entries), abs=1e-5)


def test_orthogonal_factors_have_no_loss():
    factors = torch.linalg.qr(torch.randn(2, 5, 5))[0][:, :4] * torch.tensor([0.1, 1.0, 7.0, 30.0])[:, None]
    assert orthogonality_loss(factors).tolist() == pytest.approx([0, 0], abs=1e-9)
    assert orthogonality_loss(torch.ones(3, 4)).item() == pytest.approx(6)  # all alike: F (F - 1)
    assert orthogonality_loss(torch.zeros(3, 4, requires_grad=True)).item() == 0


@pytest.mark.parametrize("num_factors", [2, 3, 5])
def test_attention_diversity_equals_the_loop(num_factors):
    """FLR Eq. 6, pair by pair, over the positions that are there; padding in between changes nothing."""
    weights = torch.randn(2, 3, num_factors, 4).softmax(-1)
    losses = attention_diversity_loss(torch.nn.functional.pad(weights, (3, 2)))
    assert losses.shape == (2, 3)
    for loss, rows in zip(losses.flatten().tolist(), weights.flatten(0, 1).tolist(), strict=True):
        pairs = [(i, j) for i in range(num_factors) for j in range(i + 1, num_factors)]
        total = sum(slow_cosine(rows[i], rows[j]) for i, j in pairs)
        assert loss == pytest.approx(2 / (num_factors * (num_factors - 1)) * total, abs=1e-6)


def test_attention_diversity_of_one_factor_or_one_position():
    assert attention_diversity_loss(torch.ones(2, 1, 3)).tolist() == [0, 0]
    alike = torch.tensor([[[0.9, 0.1]] * 3] * 2)
    assert attention_diversity_loss(alike, torch.tensor([2, 1])).tolist() == pytest.approx([1, 0])


def test_sparsity_equals_the_loop():
    gates = torch.randn(4, 3).softmax(-1)
    for loss, row in zip(sparsity_loss(gates).tolist(), gates.tolist(), strict=True):
        assert loss == pytest.approx(-sum(gate * math.log(gate + 1e-8) for gate in row), abs=1e-6)
    assert sparsity_loss(torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx(0, abs=1e-7)
    assert sparsity_loss(torch.full((4,), 0.25)).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("log_variance", [-1.0, 0.0, 0.3])
def test_learned_weight_is_the_papers(log_variance):
    """`1 / (2 exp(s))` and `s / 2`; the bound is not felt near 0."""
    weighted, offset = uncertainty_weighted(torch.tensor(2.0), torch.tensor(log_variance))
    assert weighted.item() == pytest.approx(2.0 / (2 * math.exp(log_variance)), rel=0.02)
    assert offset.item() == pytest.approx(log_variance / 2, rel=0.02)


def test_learned_weights_never_run_away():
    """10,000 steps, also where a loss is 0 or huge, and the minimum `s = log L` is out of reach."""
    losses = torch.tensor([1.5, 0.2, 0.0, 1e6])
    log_variances = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.AdamW([log_variances], lr=0.05, weight_decay=0.0)
    for _ in range(10_000):
        optimizer.zero_grad()
        weighted, offset = uncertainty_weighted(losses, log_variances)
        (weighted + offset).sum().backward()
        optimizer.step()
    weights, offset = uncertainty_weighted(torch.ones(4), log_variances)
    assert all(values.isfinite().all() for values in (log_variances, weights, log_variances.grad))
    assert (2 * offset).tolist() == pytest.approx([math.log(1.5), math.log(0.2), -5, 5], abs=0.01)
