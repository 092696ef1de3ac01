"""What train_sequential.py can train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training_stages import Stage


@dataclass(frozen=True)
class SequentialStage(Stage):
    """
    One model of the recipe.

    Args:
        model_class (`str`): the name of its class.
        settings (`dict`, *optional*): of its configuration.
        contrastive (`str`, *optional*): the contrastive loss that it is trained with.
        is_trained (`bool`, *optional*, defaults to `True`): False for a model that only counts.
        reads_text (`bool`, *optional*, defaults to `False`): True for one that knows items by their text, too.
    """

    model_class: str = ""
    settings: dict = field(default_factory=dict)
    contrastive: str | None = None
    is_trained: bool = True
    reads_text: bool = False


def plan() -> dict[str, SequentialStage]:
    """All models by name, in the order of tables."""

    def network(name: str, label: str, family: str, contrastive: str | None = None, **own: Any) -> SequentialStage:
        model_class = f"{family}ForSequentialRecommendation"
        return SequentialStage(name, None, 0, label, model_class, contrastive=contrastive, **own)

    models = [
        SequentialStage("popularity", None, 0, "popularity", "PopularityRecommender", is_trained=False),
        SequentialStage("item_knn", None, 0, "item-KNN", "ItemKNNRecommender", is_trained=False),
        network("gru4rec", "GRU4Rec", "GRU4Rec"),
        network("caser", "Caser", "Caser"),
        network("bert4rec", "BERT4Rec", "BERT4Rec"),
        network("sasrec", "SASRec", "SASRec"),
        network("fmlp", "FMLP-Rec", "FMLPRec"),
        network("bsarec", "BSARec", "BSARec"),
        network("cl4srec", "CL4SRec", "SASRec", "cl4srec"),
        network("duorec", "DuoRec", "SASRec", "duorec"),
        network("tedrec", "TedRec", "TedRec", reads_text=True),
        network("rearec_erl", "ReaRec, ERL", "ReaRec", settings={"variant": "erl"}),
        network("rearec_prl", "ReaRec, PRL", "ReaRec", settings={"variant": "prl"}),
        network("rearec_prl++", "ReaRec, PRL++", "ReaRec", "duorec", settings={"variant": "prl"}),
    ]
    return {model.name: model for model in models}


__all__ = ["SequentialStage", "plan"]
