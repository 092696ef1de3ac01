"""LASAR's alignment and REINFORCE against slow loops and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.trainer.thought_losses import depth_entropy, reinforce_loss, thought_alignment


def slow_softmax(values):
    exponentials = [math.exp(value) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def slow_alignment(a, b, kind):
    """Eq. 4 as it is printed, with both divergences; `1 - cos`; the mean squared difference."""
    if kind == "kl":
        p, q = slow_softmax(a), slow_softmax(b)
        forward = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
        backward = sum(y * math.log(y / x) for x, y in zip(p, q, strict=True))
        return 0.5 * (forward + backward)
    if kind == "cosine":
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse"])
def test_alignment_equals_the_loop(kind):
    thoughts, anchors = torch.randn(2, 3, 4, 7), 2 * torch.randn(2, 3, 4, 7)
    result = thought_alignment(thoughts, anchors, kind)
    assert result.shape == (2, 3, 4)
    pairs = zip(thoughts.flatten(0, 2).tolist(), anchors.flatten(0, 2).tolist(), strict=True)
    assert result.flatten().tolist() == pytest.approx([slow_alignment(*pair, kind) for pair in pairs], rel=1e-4)
    assert thought_alignment(thoughts, thoughts, kind).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse"])
def test_alignment_in_half_precision_and_of_zeros(kind):
    """Hidden states of a large model in bfloat16; padding, of which no gradient may be NaN."""
    thoughts = (30 * torch.randn(4, 64)).bfloat16()
    anchors = 30 * torch.randn(4, 64)
    result = thought_alignment(thoughts, anchors, kind)
    assert result.dtype == torch.float32 and result.isfinite().all()
    torch.testing.assert_close(result, thought_alignment(thoughts.double(), anchors, kind).float())
    nothing = torch.zeros(2, 5, requires_grad=True)
    thought_alignment(nothing, torch.zeros(2, 5), kind).sum().backward()
    assert nothing.grad.isfinite().all()


def test_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="kind is 'l1'; choose one of"):
        thought_alignment(torch.zeros(1, 2), torch.zeros(1, 2), "l1")


def test_reinforce_equals_the_loop():
    logits, depths, rewards = torch.randn(6, 4), torch.tensor([1, 2, 3, 4, 2, 1]), torch.randn(6)
    losses = reinforce_loss(logits, depths, rewards, baseline=0.3, n_penalty=0.05, entropy_coef=0.2)
    for loss, row, depth, reward in zip(
        losses.tolist(), logits.tolist(), depths.tolist(), rewards.tolist(), strict=True
    ):
        policy = slow_softmax(row)
        entropy = -sum(p * math.log(p) for p in policy)
        expected = -(reward - 0.3 - 0.05 * depth) * math.log(policy[depth - 1]) - 0.2 * entropy
        assert loss == pytest.approx(expected, rel=1e-4)
    assert depth_entropy(torch.zeros(8)).item() == pytest.approx(math.log(8))


def test_reinforce_gradient_is_that_of_eq_6():
    """`-(R - b - lambda N) (1[c = N] - pi_c)` per logit; rewards get none."""
    logits = torch.randn(3, 5, requires_grad=True)
    rewards = torch.tensor([1.0, -0.5, 0.2], requires_grad=True)
    depths = torch.tensor([1, 5, 3])
    reinforce_loss(logits, depths, rewards, 0.1, 0.01, 0.0).sum().backward()
    policy = logits.detach().softmax(-1)
    advantages = rewards.detach() - 0.1 - 0.01 * depths
    expected = -advantages[:, None] * (torch.nn.functional.one_hot(depths - 1, 5) - policy)
    torch.testing.assert_close(logits.grad, expected)
    assert rewards.grad is None
