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
from hf_latentrec.trainer import FLRGRPOTrainer, ThoughtGRPOTrainer
from tests.trainer.memory_anchors import SEGMENTS, MemoryAnchors
from tests.trainer.thought_runs import TITLES, collate_titles


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


@pytest.fixture
def rows(toy) -> list[dict[str, Any]]:
    """The toy users with an item id as target, by which anchors are found."""
    return [dict(row, target=f"i{index}") for index, row in enumerate(toy.rows)]


@pytest.fixture
def anchors(rows) -> MemoryAnchors:
    """Anchors of the toy users' texts."""
    return MemoryAnchors.draw([(row["user_id"], row["target"]) for row in rows], SEGMENTS, hidden_size=16)


@pytest.fixture
def titles(toy) -> SimpleNamespace:
    """The users of the toy data set with titles as targets, and their trie."""
    rows = [dict(row, labels=list(TITLES[index])) for index, row in enumerate(toy.rows)]
    return SimpleNamespace(rows=rows, trie=ItemTrie.from_sequences(TITLES))


@pytest.fixture
def make_policy(make_model) -> Callable[..., Qwen3ForLatentReasoningRec]:
    """A model that thinks, with weights large enough that a thought matters."""

    def make(num_thoughts: int = 1, reasoner: str = "latent_attention", **settings) -> Qwen3ForLatentReasoningRec:
        of_reasoner = {name: settings.pop(name) for name in ("num_factors", "num_iterations") if name in settings}
        settings = {"initializer_range": 0.4, **settings}
        return make_model(num_thoughts, reasoner_config={"reasoner": reasoner, **of_reasoner}, **settings)

    return make


@pytest.fixture
def make_thought_trainer(tmp_path, titles, make_policy) -> Callable[..., ThoughtGRPOTrainer]:
    """A trainer of the given class for titles, by default with a model that has the reasoner of its paper."""

    def make(
        trainer_class: type[ThoughtGRPOTrainer], model=None, item_trie=titles.trie, rows=titles.rows, **settings
    ) -> ThoughtGRPOTrainer:
        if model is None:
            is_flr = issubclass(trainer_class, FLRGRPOTrainer)
            model = make_policy(reasoner="factorized_attention" if is_flr else "latent_attention")
        settings = {
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "logging_steps": 1,
            "max_steps": 3,
            "save_strategy": "no",
            "max_grad_norm": 1e9,
            **settings,
        }
        return trainer_class(
            model,
            trainer_class.config_class(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=collate_titles,
            train_dataset=rows,
            eval_dataset=rows,
            item_trie=item_trie,
        )

    return make
