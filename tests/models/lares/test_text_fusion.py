"""TedRec's fusion against an explicit circular convolution, and what it knows of texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_latentrec import TedRecConfig
from hf_latentrec.models.lares.text_fusion import TextAdaptor, TextFusion, circular_convolution


def make_config(window: int = 5) -> TedRecConfig:
    return TedRecConfig(
        num_items=4, max_history=window, hidden_size=6, text_size=3, num_text_experts=2, initializer_range=0.5
    )


def make_fusion(window: int = 5) -> tuple[TextFusion, torch.Tensor]:
    """A fusion of four items, the last of which is cold, and their embeddings."""
    fusion = TextFusion(make_config(window)).eval()
    fusion.set_texts(torch.randn(4, 3), np.array([False, False, False, True]))
    torch.nn.init.normal_(fusion.adaptor.shifts)
    weight = torch.randn(5, 6)
    weight[0] = 0
    return fusion, weight


def slow_convolution(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(first)
    size = first.shape[1]
    for t in range(size):
        for s in range(size):
            out[:, t] += first[:, s] * second[:, (t - s) % size]
    return out / math.sqrt(size)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_product_of_spectra_is_a_circular_convolution(size):
    first, second = torch.randn(2, 3, size, 4)
    torch.testing.assert_close(circular_convolution(first, second), slow_convolution(first, second))


def test_adaptor_mixes_shifted_and_projected_texts():
    adaptor = TextAdaptor(make_config()).eval()
    torch.nn.init.normal_(adaptor.shifts)
    text = torch.randn(2, 5, 3)
    adapted = adaptor(text)
    for row in range(2):
        for slot in range(5):
            gates = (adaptor.gate.weight @ text[row, slot]).softmax(0)
            expected = sum(
                gates[k] * (adaptor.experts.weight[k * 6 : k * 6 + 6] @ (text[row, slot] + adaptor.shifts[k, slot]))
                for k in range(2)
            )
            torch.testing.assert_close(adapted[row, slot], expected, atol=1e-5, rtol=1e-4)


def test_gates_are_noisy_in_training_alone():
    adaptor, text = TextAdaptor(make_config()), torch.randn(1, 5, 3)
    adaptor.dropout.p = 0.0
    assert not torch.equal(adaptor(text), adaptor(text))
    adaptor.eval()
    assert torch.equal(adaptor(text), adaptor(text))


@pytest.mark.parametrize("window", [4, 5])
def test_fusion_gates_a_filtered_and_a_fused_sequence(window):
    fusion, weight = make_fusion(window)
    ids = torch.tensor([[0, 1, 2, 3, 1], [1, 3, 2, 1, 2]])[:, :window]
    embedded, texts = weight[ids], fusion.adaptor(fusion.texts[ids])
    texts[ids == 0] = 0
    filtered, fused = fusion.filter(embedded), slow_convolution(embedded, texts)
    expected = torch.empty_like(filtered)
    for row in range(2):
        for slot in range(window):
            u, v = filtered[row, slot], fused[row, slot]
            id_gate = torch.sigmoid(fusion.id_gate.weight[0] @ u + fusion.id_gate.bias[0])
            fusion_gate = torch.sigmoid(fusion.fusion_gate.weight[0] @ v + fusion.fusion_gate.bias[0])
            expected[row, slot] = 2 * (id_gate * u + fusion_gate * v)
    torch.testing.assert_close(fusion(ids, weight), expected, atol=1e-5, rtol=1e-4)


def test_a_cold_item_is_its_text_alone():
    fusion, weight = make_fusion()
    ids, changed = torch.tensor([[0, 1, 4, 2, 4]]), weight.clone()
    changed[4] += 1
    assert torch.equal(fusion(ids, weight), fusion(ids, changed))
    vectors = fusion.item_vectors(weight)
    projected = fusion.texts[1:] @ fusion.item_projection.weight.T + fusion.item_projection.bias
    torch.testing.assert_close(vectors[3], projected[3])
    torch.testing.assert_close(vectors[:3], projected[:3] + weight[1:4])
    torch.testing.assert_close(fusion.item_vectors(weight, slice(1, 3)), vectors[1:3])


def test_texts_are_checked():
    fusion = TextFusion(make_config())
    with pytest.raises(ValueError, match="there are no texts"):
        fusion(torch.tensor([[0, 0, 0, 1, 2]]), torch.randn(5, 6))
    with pytest.raises(ValueError, match=r"shape \(4, 2\).*4 items.*text_size is 3"):
        fusion.set_texts(torch.randn(4, 2), np.zeros(4, dtype=bool))
    with pytest.raises(ValueError, match="row 2 is not finite"):
        fusion.set_texts(torch.tensor([[0.0] * 3] * 2 + [[0.0, math.nan, 0.0], [0.0] * 3]), np.zeros(4, dtype=bool))
