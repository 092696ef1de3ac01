"""What the recipes of item-ID recommenders make of their arguments: data, catalog, evaluators, models and trainers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sequential_stages import SequentialStage
from sequential_text import embed_item_text
from training_setup import load_splits, some_users
from training_stages import describe_counts, stage_settings
from transformers import PreTrainedConfig

import hf_latentrec
from hf_latentrec import ItemTable
from hf_latentrec.data import SequenceDataset, split_fingerprint, training_popularity
from hf_latentrec.evaluation import SequentialEvaluator, check_cutoffs
from hf_latentrec.trainer import SequentialTrainer, SequentialTrainingConfig


if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_latentrec.data import RecData


@dataclass(frozen=True)
class SequentialSetup:
    """
    The data of a run, and the models and trainers made for them.

    Args:
        data (`RecData`): interactions and items.
        splits (`datasets.DatasetDict`): examples `train`, `validation`, `test`.
        items (`ItemTable`): the catalog.
        validation, test (`SequentialEvaluator`): of the users of each.
        text_encoder (`str`): see [`embed_item_text`].
    """

    data: RecData
    splits: DatasetDict
    items: ItemTable
    validation: SequentialEvaluator
    test: SequentialEvaluator
    text_encoder: str

    @classmethod
    def load(cls, data_args: Any, test_args: Any) -> SequentialSetup:
        """Reads the data that the arguments name."""
        data, splits = load_splits(data_args)
        check_cutoffs(test_args.cutoffs, data.num_items)
        shared = {
            "ks": tuple(test_args.cutoffs),
            "batch_size": test_args.eval_batch_size,
            "split_fingerprint": split_fingerprint(splits),
        }
        validation = some_users(splits["validation"], test_args.validation_users)
        test = some_users(splits["test"], test_args.eval_users)
        return cls(
            data,
            splits,
            make_items(data, splits),
            SequentialEvaluator(validation, **shared),
            SequentialEvaluator(test, **shared),
            data_args.text_encoder,
        )

    def describe(self) -> str:
        """How much data there is, and how much of the catalog is cold."""
        cold, num_cold = self.num_cold_targets, int(self.items.is_cold.sum())
        return (
            f"{describe_counts(self.data, len(self.splits['train']))}\n"
            f"{num_cold:,} items never occur in training, and {cold:,} of {len(self.test.examples):,} test targets are"
            " among them; who knows items by their ids alone does not recommend them"
        )

    @cached_property
    def num_cold_targets(self) -> int:
        """Test targets that never occur in training."""
        return int(self.items.is_cold[self.items.rows(self.test.examples["target"][:])].sum())

    @cached_property
    def item_text(self) -> torch.Tensor:
        """Text embeddings of the items [I, E]."""
        return embed_item_text(self.data.items, self.text_encoder)

    def config(self, stage: SequentialStage, settings: Mapping[str, Any]) -> PreTrainedConfig:
        """
        The configuration of a model.

        Args:
            stage (`SequentialStage`): which.
            settings (`Mapping`): beyond the stage's own.

        Raises:
            ValueError: for a setting that the model does not have, or a value that it refuses.
        """
        config_class = getattr(hf_latentrec, stage.model_class).config_class
        known = {f.name for f in fields(config_class)} - {f.name for f in fields(PreTrainedConfig)}
        if unknown := sorted(set(settings) - known):
            raise ValueError(f"{stage.name} has no setting {unknown[0]!r}; it has {sorted(known)}")
        own = {"num_items": len(self.items), "split_fingerprint": self.test.split_fingerprint}
        if stage.reads_text:
            own["text_size"] = self.item_text.shape[1]
        return config_class(**{**settings, **stage.settings, **own})

    def model(self, stage: SequentialStage, settings: Mapping[str, Any]):
        """A recommender before training; one that only counts is ready. Arguments as in [`config`]."""
        model_class, config = getattr(hf_latentrec, stage.model_class), self.config(stage, settings)
        model = model_class(config, items=self.items)
        if stage.reads_text:
            model.fusion.set_texts(self.item_text, self.items.is_cold)
        return model.fit(self.splits["train"]) if stage.name == "item_knn" else model

    def trainer(self, stage: SequentialStage, model: Any, args: Any) -> SequentialTrainer:
        """
        The trainer of a model, with all targets of a history in one row where the model is causal.

        Args:
            stage (`SequentialStage`): which.
            model (`SequentialRecommender`): before training.
            args (`SequentialRunConfig`): as parsed.
        """
        settings = stage_settings(
            args,
            SequentialTrainingConfig,
            output_dir=str(Path(args.output_dir, stage.name)),
            contrastive=args.contrastive if stage.contrastive is None else stage.contrastive,
            per_device_train_batch_size=(
                args.per_device_train_batch_size if model.causal else args.unpacked_batch_size
            ),
        )
        rows = SequenceDataset(self.splits["train"], self.items, model.config.max_history, packed=model.causal)
        return SequentialTrainer(model, settings, train_dataset=rows, evaluator=self.validation)


def make_items(data: RecData, splits: DatasetDict) -> ItemTable:
    """The catalog, with how often each item occurs in the training sequences."""
    ids = data.items["item_id"][:]
    titles = data.items["title"][:] if "title" in data.items.column_names else None
    return ItemTable(ids, titles, popularity=training_popularity(splits["train"], ids))


__all__ = ["SequentialSetup", "make_items"]
