"""The cache of fixed slots against transformers' `DynamicCache`."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from hf_latentrec.models.latent_reasoning.branch_cache import BranchCache


@pytest.fixture
def new_states():
    """Keys and values of 2 layers for a prompt of 5 tokens and 3 more, [B, H, Q, d]."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, 2, 3, Q, 4, generator=generator) for Q in (5, 3)]


def test_appending_equals_the_dynamic_cache(new_states):
    ours, plain = BranchCache(num_layers=2, num_slots=10), DynamicCache()
    for states in new_states:
        for layer, (keys, values) in enumerate(states):
            for mine, expected in zip(
                ours.update(keys, values, layer), plain.update(keys, values, layer), strict=True
            ):
                assert torch.equal(mine, expected)
    assert ours.get_seq_length() == plain.get_seq_length() == 8
    assert ours.num_slots == 10


def test_slots_are_written_by_number_and_used_again(new_states):
    cache = BranchCache(num_layers=2, num_slots=6)
    prompt, new = new_states
    slots_BQ = torch.tensor([[5, 0, 2], [5, 1, 3]])
    for layer, (keys, values) in enumerate(prompt):
        cache.update(keys, values, layer)
    cache.write_next(slots_BQ, num_read=6)
    for layer, (keys, values) in enumerate(new):
        read_keys, read_values = cache.update(keys, values, layer)
        for row, slots in enumerate(slots_BQ.tolist()):
            for position, slot in enumerate(slots):
                assert torch.equal(read_keys[row, :, slot], keys[row, :, position])
                assert torch.equal(read_values[row, :, slot], values[row, :, position])
        untouched = [4, 1, 3]
        assert torch.equal(read_keys[0, :, untouched], prompt[layer][0][0, :, untouched])


def test_growing_keeps_what_was_written(new_states):
    cache = BranchCache(num_layers=2, num_slots=5)
    for layer, (keys, values) in enumerate(new_states[0]):
        cache.update(keys, values, layer)
    cache.grow(9)
    assert cache.num_slots == 9
    assert torch.equal(cache.layers[1].keys[:, :, :5], new_states[0][1, 0])
    assert cache.layers[1].keys[:, :, 5:].eq(0).all()
