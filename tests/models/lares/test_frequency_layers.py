"""Frequency layers against sums that are written out, slot by slot and frequency by frequency."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch.nn import functional as F

from hf_latentrec import BSARecConfig
from hf_latentrec.models.lares.frequency_layers import (
    FilterLayer,
    FrequencyAttentionLayer,
    FrequencyFilter,
    FrequencyRescaler,
    row_lengths,
    to_window,
    window_mask,
)


WINDOWS = [1, 6, 7]  # one slot, an even and an odd number


def make_config(window: int, **settings) -> BSARecConfig:
    return BSARecConfig(num_items=9, max_history=window, hidden_size=4, intermediate_size=8, **settings)


def slow_spectrum(signal: list[float]) -> list[complex]:
    """Orthonormal discrete Fourier transform, all W frequencies, by its definition."""
    size = len(signal)
    return [
        sum(value * cmath.exp(-2j * cmath.pi * k * t / size) for t, value in enumerate(signal)) / math.sqrt(size)
        for k in range(size)
    ]


def slow_signal(spectrum: list[complex]) -> list[float]:
    size = len(spectrum)
    return [
        sum(value * cmath.exp(2j * cmath.pi * k * t / size) for k, value in enumerate(spectrum)).real / math.sqrt(size)
        for t in range(size)
    ]


def scale_frequencies(hidden: torch.Tensor, factors: list[list[complex]]) -> torch.Tensor:
    """Every dimension of every row with frequency k multiplied by `factors[dimension][k]` (k up to W // 2)."""
    out = torch.empty_like(hidden)
    size = hidden.shape[1]
    for row in range(hidden.shape[0]):
        for dim in range(hidden.shape[2]):
            spectrum = slow_spectrum(hidden[row, :, dim].tolist())
            for k in range(size // 2 + 1):
                factor = factors[dim][k]
                if 2 * k % size == 0:  # the constant and the fastest one are real in a real signal
                    spectrum[k] *= factor.real
                else:
                    spectrum[k] *= factor
                    spectrum[size - k] *= factor.conjugate()
            out[row, :, dim] = torch.tensor(slow_signal(spectrum))
    return out


@pytest.mark.parametrize("window", WINDOWS)
def test_filter_equals_a_written_out_fourier_transform(window):
    config = make_config(window, initializer_range=1.0)
    module, hidden = FrequencyFilter(config), torch.randn(3, window, 4)
    weight = module.weight.detach()
    factors = [[complex(*weight[k, dim].tolist()) for k in range(window // 2 + 1)] for dim in range(4)]
    torch.testing.assert_close(module(hidden), scale_frequencies(hidden, factors), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("num_low", [0, 3, 50])
def test_rescaler_keeps_low_frequencies_and_scales_the_rest(window, num_low):
    module, hidden = FrequencyRescaler(make_config(window, num_low_frequencies=num_low)), torch.randn(3, window, 4)
    factors = [
        [complex(1 if k < num_low // 2 + 1 else beta**2) for k in range(window // 2 + 1)]
        for beta in module.beta.tolist()
    ]
    torch.testing.assert_close(module(hidden), scale_frequencies(hidden, factors), atol=1e-5, rtol=1e-4)


def slow_feed_forward(module, hidden: torch.Tensor) -> torch.Tensor:
    inner = F.gelu(hidden @ module.up.weight.T + module.up.bias) @ module.down.weight.T + module.down.bias
    return F.layer_norm(hidden + inner, (4,), eps=1e-12)


def test_filter_layer_adds_normalizes_and_feeds_forward():
    layer, hidden = FilterLayer(make_config(6, initializer_range=0.5)).eval(), torch.randn(2, 6, 4)
    expected = slow_feed_forward(layer.feed_forward, F.layer_norm(hidden + layer.filter(hidden), (4,), eps=1e-12))
    torch.testing.assert_close(layer(hidden), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_frequency_attention_layer_mixes_both_branches(weight):
    config = make_config(6, frequency_weight=weight, num_attention_heads=2)
    layer, hidden = FrequencyAttentionLayer(config).eval(), torch.randn(2, 6, 4)
    mask = window_mask(torch.tensor([[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]))
    layer.requires_grad_(False)
    attended = torch.empty_like(hidden)
    for row in range(2):
        for slot in range(6):
            heads = []
            for head in range(2):
                query, key, value = (
                    hidden[row] @ layer.qkv.weight[part * 4 + head * 2 :][:2].T
                    + layer.qkv.bias[part * 4 + head * 2 :][:2]
                    for part in range(3)
                )
                seen = [other for other in range(6) if mask[row, 0, slot, other]]
                weights = torch.tensor([float(query[slot] @ key[other]) / math.sqrt(2) for other in seen]).softmax(0)
                heads.append(sum(weights[i] * value[other] for i, other in enumerate(seen)))
            attended[row, slot] = torch.cat(heads) @ layer.out.weight.T + layer.out.bias
    attended = F.layer_norm(hidden + attended, (4,), eps=1e-12)
    rescaled = F.layer_norm(hidden + layer.rescaler(hidden), (4,), eps=1e-12)
    expected = slow_feed_forward(layer.feed_forward, weight * rescaled + (1 - weight) * attended)
    torch.testing.assert_close(layer(hidden, mask), expected, atol=1e-5, rtol=1e-4)


def test_window_holds_the_newest_items_at_its_end():
    rows = torch.tensor([[4, 5, 6, 7, 8], [1, 2, 0, 0, 0], [3, 0, 9, 0, 0]])
    assert to_window(rows, 3).tolist() == [[6, 7, 8], [0, 1, 2], [3, 0, 9]]
    assert to_window(rows, 7).tolist() == [[0, 0, 4, 5, 6, 7, 8], [0, 0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 3, 0, 9]]
    assert row_lengths(rows).tolist() == [5, 2, 3]
    assert to_window(torch.nn.functional.pad(rows, (0, 4)), 3).tolist() == to_window(rows, 3).tolist()


def test_window_mask_by_a_loop():
    ids = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]])
    mask = window_mask(ids)
    assert mask.shape == (2, 1, 4, 4)
    for row in range(2):
        for i in range(4):
            for j in range(4):
                assert bool(mask[row, 0, i, j]) == (i == j or (j <= i and ids[row, j] != 0))


def test_half_precision_goes_through_the_transforms():
    hidden = torch.randn(2, 6, 4, dtype=torch.bfloat16)
    layer = FrequencyAttentionLayer(make_config(6)).to(torch.bfloat16)
    assert layer(hidden).dtype == torch.bfloat16
    assert FilterLayer(make_config(6)).to(torch.bfloat16)(hidden).dtype == torch.bfloat16
