"""Tiny recommenders with random weights, a random catalog of semantic IDs, and plain twins from transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hf_latentrec.models.latent_reasoning import configuration_latent_reasoning as configuration
from hf_latentrec.models.latent_reasoning import modeling_latent_reasoning as modeling
from hf_latentrec.models.latent_reasoning.branch_decoder import BranchDecoder
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie


VOCAB_SIZE, START, END, PAD = 64, 60, 61, 62
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # wide enough that no two answers tie
}
FAMILIES = {
    "qwen2": (configuration.Qwen2LatentRecConfig, modeling.Qwen2ForLatentReasoningRec, Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (configuration.Qwen3LatentRecConfig, modeling.Qwen3ForLatentReasoningRec, Qwen3Config, Qwen3ForCausalLM),
    "llama": (configuration.LlamaLatentRecConfig, modeling.LlamaForLatentReasoningRec, LlamaConfig, LlamaForCausalLM),
}


@pytest.fixture
def make_model():
    """`make_model(family, num_thoughts, attn, dtype, reasoner, ...)`: a recommender in eval mode."""

    def make(
        family="qwen3",
        num_thoughts=0,
        attn="sdpa",
        dtype=torch.float32,
        reasoner="feedback",
        thought_markers=None,
        num_factors=None,
        num_iterations=None,
        adaptive_depth=False,
        **settings,
    ):
        config_class, model_class, *_ = FAMILIES[family]
        config = config_class(
            **SIZES,
            reasoner_config={
                "reasoner": reasoner,
                "num_thoughts": num_thoughts,
                "adaptive_depth": adaptive_depth,
                "thought_markers": thought_markers,
                "num_factors": num_factors,
                "num_iterations": num_iterations,
            },
            start_thought_token_id=START,
            end_thought_token_id=END,
            attn_implementation=attn,
            **({"head_dim": 8} if family == "qwen3" else {}),
            **settings,
        )
        torch.manual_seed(0)
        return model_class(config).to(dtype).eval()

    return make


@pytest.fixture
def make_plain():
    """`make_plain(model, family)`: transformers' own causal LM with the same weights."""

    def make(model, family="qwen3"):
        *_, config_class, model_class = FAMILIES[family]
        config = config_class(
            **SIZES,
            attn_implementation=model.config._attn_implementation,
            **({"head_dim": 8} if family == "qwen3" else {}),
        )
        plain = model_class(config).to(model.dtype).eval()
        plain.load_state_dict(model.state_dict())
        return plain

    return make


@pytest.fixture
def prompts():
    """Left-padded prompts of 7, 3 and 5 tokens: `input_ids, attention_mask`."""
    rows = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [11, 3, 12, 1, 2]]
    input_ids = torch.tensor([[PAD] * (7 - len(row)) + row for row in rows])
    return input_ids, (input_ids != PAD).long()


@pytest.fixture
def catalog_trie():
    """About 60 items of 3 codes out of 3 x 8."""
    codes = np.unique(np.random.default_rng(0).integers(0, 8, (70, 3)), axis=0)
    return ItemTrie.from_sequences((codes + [16, 24, 32]).tolist())


@pytest.fixture
def feeds(monkeypatch):
    """Shapes of the passes after the prompt, and the sizes of the cache in these."""
    passes, sizes = [], []
    feed = BranchDecoder.feed

    def counting_feed(self, tokens_BQ, *args):
        passes.append(tuple(tokens_BQ.shape))
        sizes.append(self.cache.num_slots)
        return feed(self, tokens_BQ, *args)

    monkeypatch.setattr(BranchDecoder, "feed", counting_feed)
    return passes, sizes
