"""A tiny LARES with its data, for the tests of reinforcement post-training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from datasets import DatasetDict

from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.data import SequenceDataset, make_synthetic, split_leave_one_out


class Toy(NamedTuple):
    model: LaresForSequentialRecommendation
    dataset: SequenceDataset
    splits: DatasetDict


def make_toy(num_users: int = 12, packed: bool = True, **config) -> Toy:
    """Weights so large that an initial state matters; no dropout unless it is asked for; always the same."""
    data = make_synthetic(num_users=num_users, num_items=60, max_length=10)
    splits = split_leave_one_out(data, max_history=6)
    items = ItemTable(data.items["item_id"])
    settings = {
        "hidden_size": 16, "intermediate_size": 32, "num_pre_layers": 1, "num_core_layers": 1, "mean_steps": 3,
        "dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.4, "max_history": 6, **config,
    }  # fmt: skip
    torch.manual_seed(0)
    model = LaresForSequentialRecommendation(LaresConfig(num_items=len(items), **settings), items=items)
    if model.config.backbone == "tedrec":
        model.model.fusion.set_texts(torch.randn(len(items), model.config.text_size), items.is_cold)
    return Toy(model, SequenceDataset(splits["train"], items, max_history=6, packed=packed), splits)
