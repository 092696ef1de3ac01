"""What train_sequential.py can train, and how a model and its trainer are made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_stages import Stage, stage_settings


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_latentrec import ItemTable
    from hf_latentrec.evaluation import SequentialEvaluator


@dataclass(frozen=True)
class SequentialStage(Stage):
    """
    One model of the recipe.

    Args:
        family (`str`): the first part of the names of its classes, such as `"SASRec"`.
        settings (`dict`, *optional*): of its configuration.
        training (`dict`, *optional*): of its trainer.
        is_trained (`bool`, *optional*): False for a model that only counts.
    """

    family: str
    settings: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    is_trained: bool = True


def plan() -> dict[str, SequentialStage]:
    """All models by name."""
    models = {
        "popularity": SequentialStage("Popularity", "Popularity", is_trained=False),
        "item_knn": SequentialStage("item-KNN", "ItemKNN", is_trained=False),
        "gru4rec": SequentialStage("GRU4Rec", "GRU4Rec"),
    }
    return models
