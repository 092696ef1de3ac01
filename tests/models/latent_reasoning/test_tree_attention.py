"""Masks and positions of branches against drawing them by hand."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning.tree_attention import (
    build_attention_mask,
    causal_visibility,
    extend_positions,
    extend_visibility,
    prompt_visibility,
)


VISIBLE = torch.tensor([[[0, 1, 1, 1], [0, 1, 1, 0]]], dtype=torch.bool)  # one prompt, two branches, padding first


def test_a_new_token_sees_its_branch_and_its_own_past():
    seen = extend_visibility(VISIBLE, causal_visibility(2)).int()
    assert seen.tolist() == [
        [
            [[0, 1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0]],
            [[0, 1, 1, 0, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0, 1, 1]],
        ]
    ]


def test_forks_of_a_branch_do_not_see_each_other():
    seen = causal_visibility(2, num_forks=2, fork_length=2)
    expected = [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert seen.int().tolist() == [*expected, [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 1, 1]]
    assert extend_positions(VISIBLE, seen).tolist() == [[[3, 4, 5, 6, 5, 6], [2, 3, 4, 5, 4, 5]]]
    assert causal_visibility(0).shape == (0, 0)


def test_the_prompt_sees_itself_and_no_branch():
    real = torch.tensor([[False, True, True]])
    assert prompt_visibility(real, 2).int().tolist() == [[[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]]


def test_positions_count_what_a_branch_sees():
    assert extend_positions(VISIBLE, causal_visibility(2)).tolist() == [[[3, 4], [2, 3]]]


def test_mask_is_added_to_scores():
    seen = extend_visibility(VISIBLE, causal_visibility(1)).flatten(1, 2)
    for attn_implementation in ("sdpa", "eager"):
        added = build_attention_mask(seen, attn_implementation, torch.bfloat16)
        assert added.dtype == torch.bfloat16 and torch.equal(added == 0, seen[:, None])
        assert (added[~seen[:, None]] == torch.finfo(torch.bfloat16).min).all()
    with pytest.raises(ValueError, match="flash_attention_2"):
        build_attention_mask(seen, "flash_attention_2", torch.float16)
