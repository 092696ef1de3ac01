"""Supervised fine-tuning of recommenders, with or without thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from ..data.collators import NextItemCollator, PackedHistoryCollator
from ..data.packing import pack_examples
from ..data.schema import to_polars
from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor
from .latent_trainer import LatentTrainer
from .sft_config import LatentSFTConfig


EXAMPLE_COLUMNS = {"user_id", "history", "target"}
PACKED_COLUMNS = {"items", "targets"}


class LatentSFTTrainer(LatentTrainer):
    """
    Cross entropy of the answers: `L_CE` of LASAR section 2.3. The model computes it; stage 1 and stage 2 differ only
    in the model's `num_thoughts`.

    The loss is the mean over the answer tokens of the global batch. With labels [B, G, T], each of the G answers of a
    packed history counts.

    Args:
        model (`PreTrainedModel`): a recommender such as `Qwen3ForLatentReasoningRec`.
        args (`LatentSFTConfig`): settings; `pack_histories` decides what a row of a batch is.
        train_dataset, eval_dataset (`datasets.Dataset`, *optional*): examples `user_id, history, target`. They are
            packed and collated here, as are those for `evaluate` and `predict`, unless a `data_collator` is given,
            which then takes the data as they are.
        processing_class (`LatentRecProcessor`, *optional*): tokenizes histories and targets.
        kwargs: as for [`LatentTrainer`].

    Raises:
        ValueError: where histories cannot be packed as asked, or cannot be read without a `data_collator`.

    Example:
        >>> trainer = LatentSFTTrainer(
        ...     model,
        ...     LatentSFTConfig("out", learning_rate=5e-4),
        ...     train_dataset=splits["train"],
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LatentSFTConfig

    def __init__(
        self,
        model: nn.Module,
        args: LatentSFTConfig,
        *,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs,
    ):
        wants_packing = isinstance(args, LatentSFTConfig) and args.pack_histories  # the base refuses other settings
        name = type(self).__name__
        obstacle = _why_not_collated_here(data_collator, processing_class, train_dataset, eval_dataset)
        if wants_packing and obstacle:
            raise ValueError(f"{name}: pack_histories is True, but {obstacle}")
        if obstacle and data_collator is None and (_has_histories(train_dataset) or _has_histories(eval_dataset)):
            raise ValueError(f"{name}: histories are given without a data_collator, but {obstacle}")
        may_pack = not obstacle and args.pack_histories is not False
        self._packs = may_pack and (processing_class.packable or wants_packing)
        if self._packs:
            data_collator = PackedHistoryCollator(processing_class, keep_answers=model.config.num_thoughts == 0)
            train_dataset, eval_dataset = (
                _map_datasets(dataset, lambda examples: pack_examples(examples, processing_class.max_history))
                for dataset in (train_dataset, eval_dataset)
            )
        elif not obstacle:
            data_collator = NextItemCollator(processing_class)
        super().__init__(
            model,
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in transformers; examples are packed where those of the trainer are."""
        return super().get_eval_dataloader(self._packed(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As in transformers; examples are packed where those of the trainer are."""
        return super().get_test_dataloader(self._packed(test_dataset))

    def _packed(self, dataset: Any) -> Any:
        if self._packs and set(_column_names(dataset)) >= EXAMPLE_COLUMNS:
            return pack_examples(dataset, self.processing_class.max_history)
        return dataset

    def _lengths(self, dataset: Any) -> Sequence[int] | None:
        columns = set(_column_names(dataset))
        if self.args.train_sampling_strategy == "group_by_length" and self.args.length_column_name not in columns:
            if columns >= PACKED_COLUMNS:
                return self._packed_lengths(to_polars(dataset.select_columns(sorted(PACKED_COLUMNS))))
            if columns >= EXAMPLE_COLUMNS:
                return to_polars(dataset.select_columns(["history"]))["history"].list.len().to_list()
        return super()._lengths(dataset)

    def _packed_lengths(self, rows: pl.DataFrame) -> list[int]:
        """Equal prompts first, then equal numbers of branches, then equal longest answers: all three are padded."""
        items, targets = rows["items"].list.len().cast(int), rows["targets"].list.len().cast(int)
        longest = pl.Series([0]).new_from_index(0, len(rows))
        if isinstance(self.processing_class, LatentRecProcessor):
            catalog = self.processing_class.catalog
            tokens = pl.DataFrame({"target": catalog.item_ids, "tokens": catalog.offsets[1:] - catalog.offsets[:-1]})
            answers = rows.select(pl.col("items").list.gather("targets").alias("target")).with_row_index()
            known = answers.explode("target").join(tokens, on="target", how="left")  # the collator names unknown items
            longest = known.group_by("index").agg(pl.col("tokens").max().fill_null(0)).sort("index")["tokens"]
        return ((items * (int(targets.max()) + 1) + targets) * (int(longest.max()) + 1) + longest).to_list()


def has_answer(labels: torch.Tensor) -> torch.Tensor:
    """False for answers [...] of labels [..., T] that only fill up a batch."""
    return labels.ne(-100).any(-1)


def _why_not_collated_here(
    data_collator: Any, processing_class: Any, train_dataset: Any, eval_dataset: Any
) -> str | None:
    """What keeps the trainer from collating examples itself; None where nothing does."""
    if data_collator is not None:
        return "a data_collator is given, which takes the data as they are; leave it out, or pass pack_histories=None"
    if not isinstance(processing_class, LatentRecProcessor):
        return f"processing_class is {type(processing_class).__name__}; pass the LatentRecProcessor of the catalog"
    for name, data in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
        for dataset in data.values() if isinstance(data, dict) else [data]:
            if dataset is not None and not set(_column_names(dataset)) >= EXAMPLE_COLUMNS:
                columns = ", ".join(_column_names(dataset)) or f"none, it is a {type(dataset).__name__}"
                return f"{name} has not the columns user_id, history, target, as the splits give them, but {columns}"
    return None


def _column_names(dataset: Any) -> Sequence[str]:
    return getattr(dataset, "column_names", None) or ()


def _has_histories(data: Any) -> bool:
    """Whether rows of a data set, a list, or a dictionary of them hold users' histories."""
    if isinstance(data, dict):
        return any(map(_has_histories, data.values()))
    return "history" in (data[0] if isinstance(data, list) and data else _column_names(data))


def _map_datasets(data: Any, change) -> Any:
    """A data set, a dictionary of them, or None, changed."""
    if isinstance(data, dict):
        return {name: change(dataset) for name, dataset in data.items()}
    return None if data is None else change(data)


__all__ = ["PACKED_COLUMNS", "LatentSFTTrainer", "has_answer"]
