"""How segments are tokenized and encoded."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer

from hf_latentrec.cot.segment_encoding import encode_with_codes, last_token_states
from hf_latentrec.models.latent_reasoning.tokenization import (
    THOUGHT_TOKENS,
    add_item_tokens,
    build_bpe_tokenizer,
    encode_plain_text,
)


def test_codes_are_tokens_and_all_else_is_plain(tiny):
    tokenizer = tiny.processor.tokenizer
    a, b = tokenizer.convert_tokens_to_ids(["<a_0>", "<b_3>"])
    steering = f"{''.join(THOUGHT_TOKENS)}{tokenizer.eos_token}{tokenizer.pad_token}"
    text = f"so <a_0><b_3>, {steering}<a_0> <a_9999>"
    plain = [encode_plain_text(tokenizer, [part])[0] for part in ("so ", f", {steering}", " <a_9999>")]
    assert encode_with_codes(tokenizer, [text]) == [[*plain[0], a, b, *plain[1], a, *plain[2]]]
    assert max(encode_with_codes(tokenizer, [steering])[0]) < 256
    assert encode_with_codes(tokenizer, ["<a_0> and <b_3>"])[0] == tokenizer("<a_0> and <b_3>").input_ids


def test_a_learned_vocabulary():
    tokenizer = build_bpe_tokenizer(["desk lamp", "desk fan", "<a_1> desk"], 280)
    (code,) = add_item_tokens(tokenizer, [["<a_1>"]])
    (ids,) = encode_with_codes(tokenizer, ["desk lamp<a_1>desk"])
    parts = encode_plain_text(tokenizer, ["desk lamp", "desk"])
    assert ids == [*parts[0], code, *parts[1]]


def test_the_real_tokenizer_reads_think_as_text(qwen3_tokenizer_dir):
    tokenizer = AutoTokenizer.from_pretrained(qwen3_tokenizer_dir)
    (code,) = add_item_tokens(tokenizer, [["<a_1>"]])
    text = "<think>so</think> lamp <a_1><|im_end|>"
    (ids,) = encode_with_codes(tokenizer, [text])
    assert tokenizer.decode(ids) == text and code in ids
    added = set(tokenizer.added_tokens_decoder) - {code}
    assert not added & set(ids)
    assert encode_with_codes(tokenizer, ["A desk lamp."])[0] == tokenizer("A desk lamp.").input_ids


def test_each_sequence_is_encoded_as_if_alone(tiny):
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 1, 12, 5, 3, 12, 7]
    token_ids = [torch.randint(0, 260, (length,), generator=generator).tolist() for length in lengths]
    states = torch.zeros(len(lengths), tiny.model.config.hidden_size)
    sizes = []
    for rows, part in last_token_states(tiny.model, token_ids, batch_size=3):
        states[torch.from_numpy(rows)] = part
        sizes.append(len(rows))
    assert sizes == [3, 3, 1]
    for ids, state in zip(token_ids, states, strict=True):
        with torch.no_grad():
            alone = tiny.model.model(torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(state, alone.last_hidden_state[0, -1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.last_hidden_state, alone.hidden_states[-1])
