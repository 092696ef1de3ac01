"""Text before the answer, against greedy decoding token by token."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3ForCausalLM

from hf_latentrec.models.latent_reasoning.explicit_cot import as_causal_lm, write_text
from tests.tiny import make_tiny_recommender


@pytest.fixture(scope="module")
def tiny():
    model, processor, splits = make_tiny_recommender(initializer_range=0.3)
    return model.eval(), processor, splits["test"]


@torch.no_grad()
def slow_text(model, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Greedy decoding with one plain pass over everything per token."""
    ids, end = list(prompt), model.config.end_thought_token_id
    for _ in range(max_new_tokens):
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        ids.append(int(model.lm_head(hidden).argmax()))
        if ids[-1] == end:
            return ids
    return [*ids, end]


def rows(inputs):
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]


def closing_after(model, token: int):
    """The model, which now closes its text as soon as it would write this token."""
    model.config.end_thought_token_id = token
    return model


def test_text_equals_greedy_decoding_token_by_token(tiny):
    model, processor, examples = tiny
    inputs = processor(examples["history"][:6], exclude_seen=True)
    own_end = model.config.end_thought_token_id
    texts = [slow_text(model, row, 9) for row in rows(inputs)]
    # The fourth token of one text as the closing one: some texts end by themselves, at different places.
    end = texts[2][len(rows(inputs)[2]) + 3]
    try:
        expected = [slow_text(closing_after(model, end), row, 9) for row in rows(inputs)]
        written = write_text(model, inputs, 9, processor.tokenizer.pad_token_id)
    finally:
        model.config.end_thought_token_id = own_end
    assert rows(written) == expected
    lengths = {len(text) - len(prompt) for text, prompt in zip(expected, rows(inputs), strict=True)}
    assert len(lengths) > 1 and 10 in lengths  # cut and closed
    assert written["attention_mask"][:, -1].all() and written["input_ids"][:, -1].eq(end).all()  # padded on the left
    assert written["input_ids"].shape[1] == max(map(len, expected))
    assert torch.equal(written["seen_items"], inputs["seen_items"])


def test_the_language_model_shares_the_weights(tiny):
    model, _, _ = tiny
    language_model = as_causal_lm(model)
    assert type(language_model) is Qwen3ForCausalLM and not language_model.training
    assert {id(p) for p in language_model.parameters()} <= {id(p) for p in model.parameters()}


def test_bad_input_is_named(tiny):
    model, processor, examples = tiny
    inputs = processor(examples["history"][:1])
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        write_text(model, inputs, 0, 0)
    own_end, model.config.end_thought_token_id = model.config.end_thought_token_id, None
    try:
        with pytest.raises(ValueError, match="no end_thought_token_id"):
            write_text(model, inputs, 4, 0)
    finally:
        model.config.end_thought_token_id = own_end
