"""Dropout drops as many, keeps the mean, and draws every element on its own."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.lares.fast_dropout import FastDropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_share_and_value_of_what_stays(p):
    dropped = FastDropout(p)(torch.ones(400, 501))
    assert dropped.unique().tolist() == pytest.approx([1.0] if p == 0 else [0.0, 1 / (1 - p)], rel=1e-4)
    deviation = (p * (1 - p) / dropped.numel()) ** 0.5
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=4 * deviation + 1e-5)


def test_elements_are_dropped_independently():
    """Four elements share one random number."""
    kept = FastDropout(0.3)(torch.ones(100_000, 8)).ne(0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 4 / 100_000**0.5


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 0), (2, 3, 5)])
def test_any_shape(shape):
    hidden = torch.randn(shape)
    dropped = FastDropout(0.5)(hidden)
    assert dropped.shape == shape and ((dropped == 0) | (dropped == 2 * hidden)).all()


def test_nothing_is_dropped_in_evaluation():
    hidden = torch.randn(5)
    assert FastDropout(0.5).eval()(hidden) is hidden


def test_gradient_flows_through_what_stays():
    hidden = torch.randn(50, requires_grad=True)
    dropped = FastDropout(0.5)(hidden)
    dropped.sum().backward()
    assert torch.equal(hidden.grad, 2 * dropped.ne(0).float()) and 0 < dropped.ne(0).sum() < 50


def test_the_seed_decides():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        dropout = FastDropout(0.5)
        results.append([dropout(torch.ones(64)), dropout(torch.ones(64))])
    assert torch.equal(results[0][0], results[1][0]) and not torch.equal(results[0][0], results[2][0])
    assert not torch.equal(results[0][0], results[0][1])


def test_half_precision_stays():
    dropped = FastDropout(0.5)(torch.ones(64, dtype=torch.bfloat16))
    assert dropped.dtype == torch.bfloat16 and dropped.unique().tolist() == [0.0, 2.0]
