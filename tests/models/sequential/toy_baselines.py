"""Every item-ID baseline in small."""

from __future__ import annotations

import numpy as np
import torch

import hf_latentrec as lib
from hf_latentrec import ItemTable


NUM_ITEMS = 12
TINY = {
    "num_items": NUM_ITEMS, "max_history": 6, "hidden_size": 16, "intermediate_size": 32, "dropout": 0.1,
    "attention_dropout": 0.1, "initializer_range": 0.2,
}  # fmt: skip
TRAINED = {
    "bert4rec": (lib.BERT4RecConfig, lib.BERT4RecForSequentialRecommendation, {}),
    "bsarec": (lib.BSARecConfig, lib.BSARecForSequentialRecommendation, {}),
    "caser": (lib.CaserConfig, lib.CaserForSequentialRecommendation, {}),
    "fmlp": (lib.FMLPRecConfig, lib.FMLPRecForSequentialRecommendation, {}),
    "gru4rec": (lib.GRU4RecConfig, lib.GRU4RecForSequentialRecommendation, {"gru_size": 16}),
    "rearec-erl": (lib.ReaRecConfig, lib.ReaRecForSequentialRecommendation, {"variant": "erl"}),
    "rearec-prl": (lib.ReaRecConfig, lib.ReaRecForSequentialRecommendation, {"variant": "prl"}),
    "sasrec": (lib.SASRecConfig, lib.SASRecForSequentialRecommendation, {}),
    "tedrec": (lib.TedRecConfig, lib.TedRecForSequentialRecommendation, {"text_size": 5, "num_text_experts": 2}),
}


def make_items(num_items: int = NUM_ITEMS) -> ItemTable:
    return ItemTable([f"i{row}" for row in range(num_items)], popularity=np.arange(num_items, 0, -1))


def make_model(name: str, **settings) -> lib.models.lares.sequential_recommender.SequentialRecommender:
    """`make_model("sasrec", **settings)`: that model with the tiny catalog, in evaluation mode; always the same."""
    config_class, model_class, own = TRAINED[name]
    torch.manual_seed(0)
    model = model_class(config_class(**{**TINY, **own, **settings}), items=make_items())
    if name == "tedrec":
        model.fusion.set_texts(torch.randn(NUM_ITEMS, 5), model.items.is_cold)
    return model.eval()
