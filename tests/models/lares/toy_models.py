"""Tiny SASRec and LARES models with weights so large that every part of them matters."""

from __future__ import annotations

import torch

from hf_latentrec import (
    ItemTable,
    LaresConfig,
    LaresForSequentialRecommendation,
    SASRecConfig,
    SASRecForSequentialRecommendation,
)
from hf_latentrec.models.lares.sequential_recommender import SequentialRecommender


NUM_ITEMS, MAX_HISTORY = 12, 4
KINDS = ("sasrec", "lares")


def make_items(num_items: int = NUM_ITEMS, cold: tuple[int, ...] = ()) -> ItemTable:
    """Items i0, i1, ...; those of the given rows never occur in training."""
    popularity = [0 if row in cold else 1 + row for row in range(num_items)]
    return ItemTable([f"i{row}" for row in range(num_items)], [f"Item {row}" for row in range(num_items)], popularity)


def make_model(kind: str = "sasrec", items: ItemTable | None = None, **settings) -> SequentialRecommender:
    """Always the same weights; without dropout unless it is asked for, and in training mode."""
    settings = {
        "hidden_size": 8, "intermediate_size": 12, "max_history": MAX_HISTORY, "num_hidden_layers": 2,
        "dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.5, **settings,
    }  # fmt: skip
    items = make_items() if items is None else items
    torch.manual_seed(0)
    if kind == "sasrec":
        model = SASRecForSequentialRecommendation(SASRecConfig(num_items=len(items), **settings), items)
    else:
        settings = {"mean_steps": 3, "num_pre_layers": 1, "num_core_layers": 2, **settings}
        model = LaresForSequentialRecommendation(LaresConfig(num_items=len(items), **settings), items)
    with torch.no_grad():  # biases and norms start at 0 and 1, which would hide a forgotten one
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.train()
