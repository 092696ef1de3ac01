"""A catalog of ten items, a tiny model for it, and six users: what the trainers' tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch

from hf_latentrec.models.latent_reasoning.configuration_latent_reasoning import Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.latent_reasoning.modeling_latent_reasoning import Qwen3ForLatentReasoningRec


# Two levels of codes: tokens 4..7, then 8..11.
ITEMS = [(4, 8), (4, 9), (4, 10), (5, 8), (5, 9), (6, 8), (6, 11), (7, 9), (7, 10), (7, 11)]
HISTORIES = [[0, 3], [1, 4, 5], [2], [3, 6, 7], [8, 9], [4, 0], [5, 7, 1, 2], [6]]
TARGETS = [5, 2, 9, 0, 3, 7, 4, 8]


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Left-padded prompts and targets of one length."""
    length = max(len(example["input_ids"]) for example in examples)
    pads = [length - len(example["input_ids"]) for example in examples]
    return {
        "input_ids": torch.tensor([[0] * pad + x["input_ids"] for pad, x in zip(pads, examples, strict=True)]),
        "attention_mask": torch.tensor([[0] * pad + [1] * (length - pad) for pad in pads]),
        "labels": torch.tensor([example["labels"] for example in examples]),
        "user_ids": [example["user_id"] for example in examples],
    }


@pytest.fixture
def toy() -> SimpleNamespace:
    """The collator, data set and trie of the toy catalog."""
    rows = [
        {
            "user_id": f"u{row}",
            "input_ids": [1, *(token for item in history for token in ITEMS[item])],
            "labels": list(ITEMS[target]),
            "length": 1 + 2 * len(history),
        }
        for row, (history, target) in enumerate(zip(HISTORIES, TARGETS, strict=True))
    ]
    dataset = datasets.Dataset.from_list(rows)
    return SimpleNamespace(
        collate=collate, dataset=dataset, rows=rows, items=ITEMS, trie=ItemTrie.from_sequences(ITEMS)
    )


@pytest.fixture
def make_model() -> Callable[..., Qwen3ForLatentReasoningRec]:
    """A model of the toy catalog; two calls give the same weights."""

    def make(num_thoughts: int = 2, **kwargs) -> Qwen3ForLatentReasoningRec:
        torch.manual_seed(0)
        config = Qwen3LatentRecConfig(
            vocab_size=16,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
            num_thoughts=num_thoughts,
            start_thought_token_id=14,
            end_thought_token_id=15,
            **kwargs,
        )
        return Qwen3ForLatentReasoningRec(config)

    return make
