"""The ordinary way to decode under a catalog: everything repeated per beam, then `generate` of transformers."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from hf_latentrec.models.latent_reasoning.logits_process import ItemTrieLogitsProcessor

from .conftest import END, START


def plain_beam_search(
    plain, prompts, trie, num_thoughts, normalize, num_beams=10, eos_token_id=None, sub_catalog=None, **settings
):
    """
    Prompt and thoughts in one cache, repeated for every beam, then `generate` from the last token before the answer.

    Returns `sequences` [B * num_beams, T] and `sequences_scores` [B * num_beams].
    """
    input_ids, mask = prompts
    B = len(input_ids)
    ones = mask.new_ones(B, 1)
    if num_thoughts:
        input_ids = torch.cat([input_ids, input_ids.new_full((B, 1), START)], 1)
        mask = torch.cat([mask, ones], 1)
        anchor = input_ids.new_full((B, 1), END)
    else:
        input_ids, anchor = input_ids[:, :-1], input_ids[:, -1:]
    cache = DynamicCache(config=plain.config)
    prefix_mask = mask[:, : input_ids.shape[1]]
    positions = (prefix_mask.cumsum(1) - 1).clamp(min=0)
    hidden = plain.model(
        input_ids, attention_mask=prefix_mask, position_ids=positions, past_key_values=cache
    ).last_hidden_state[:, -1:]
    for _ in range(num_thoughts):
        mask = torch.cat([mask, ones], 1)
        positions = mask.sum(1, keepdim=True) - 1
        hidden = plain.model(
            inputs_embeds=hidden, attention_mask=mask, position_ids=positions, past_key_values=cache
        ).last_hidden_state
    if num_thoughts:
        mask = torch.cat([mask, ones], 1)
    cache.batch_repeat_interleave(num_beams)
    processor = ItemTrieLogitsProcessor(trie, 1, num_beams, eos_token_id=eos_token_id, **(sub_catalog or {}))
    output = plain.generate(
        anchor,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=trie.max_depth,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=eos_token_id,
        logits_processor=[processor],
        renormalize_logits=normalize == "catalog",
        return_dict_in_generate=True,
        output_scores=True,
        **{"length_penalty": 0.0, **settings},
    )
    return output.sequences[:, 1:], output.sequences_scores
