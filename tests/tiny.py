"""A tiny recommender with everything around it, for tests that need the whole chain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from datasets import DatasetDict

from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.data import make_synthetic, split_fingerprint, split_leave_one_out
from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer, thought_token_ids


class TinyRecommender(NamedTuple):
    model: Qwen3ForLatentReasoningRec
    processor: LatentRecProcessor
    splits: DatasetDict


def make_tiny_recommender(num_thoughts: int = 0, num_users: int = 24, **config) -> TinyRecommender:
    """Synthetic data, a byte tokenizer with the items' codes, and a model of two small layers; always the same."""
    data = make_synthetic(num_users=num_users, num_items=60, max_length=10)
    splits = split_leave_one_out(data, max_history=8)
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, data.items["semantic_id"])
    catalog = ItemCatalog.from_items(data.items, tokenizer, item_tokenization="semantic_id")
    processor = LatentRecProcessor(tokenizer, catalog, max_history=8, split_fingerprint=split_fingerprint(splits))
    markers = thought_token_ids(tokenizer)
    torch.manual_seed(0)
    model = Qwen3ForLatentReasoningRec(
        Qwen3LatentRecConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            pad_token_id=tokenizer.pad_token_id,
            start_thought_token_id=markers["start_thought_token_id"],
            end_thought_token_id=markers["end_thought_token_id"],
            num_thoughts=num_thoughts,
            **config,
        )
    )
    return TinyRecommender(model, processor, splits)
