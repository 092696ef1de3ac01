"""The trainer of all item-ID recommenders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..data.sequence_augmentations import AugmentedView
from ..data.sequence_collator import SequenceCollator, View, same_target_view
from ..data.sequences import SequenceDataset
from .contrastive_losses import GlobalSamples, contrast, info_nce
from .rec_trainer import RecTrainer
from .sequence_checks import check_sequences
from .sequential_config import SequentialTrainingConfig


class SequentialTrainer(RecTrainer):
    """
    Next-item training of an item-ID recommender, with a contrastive loss where one is asked for.

    Args:
        model (`SequentialRecommender`): what is trained.
        args (`SequentialTrainingConfig`): settings.
        train_dataset (`SequenceDataset`, *optional*): packed for a causal model, unpacked for one that looks at the
            whole window.
        eval_dataset (`SequenceDataset`, *optional*): likewise; its loss is without the contrastive one, whose views
            are drawn from the training data.
        kwargs: as for [`RecTrainer`].

    Raises:
        ValueError: as [`RecTrainer`]; for another kind of data set, packed rows for a model that is not causal,
            histories of another length than the model reads, or other items than the model's.
    """

    config_class = SequentialTrainingConfig

    def __init__(self, model: nn.Module, args: SequentialTrainingConfig, *, train_dataset: Any = None, **kwargs: Any):
        if train_dataset is not None:
            self.check_dataset(model, train_dataset, "train_dataset")
            seed = args.seed if args.data_seed is None else args.data_seed
            kwargs.setdefault("data_collator", SequenceCollator(train_dataset, self.views(args), seed))
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)

    def check_dataset(self, model: nn.Module, dataset: Any, argument: str) -> None:
        """Raises a `ValueError` where a data set does not fit the model."""
        name = f"{type(self).__name__}: {argument}"
        if not isinstance(dataset, SequenceDataset):
            raise ValueError(f"{name} is a {type(dataset).__name__}; pass SequenceDataset(examples, items)")
        check_sequences(dataset, model, name)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As in transformers; the collator is that of the data set, without views."""
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        dataset = self.eval_dataset[chosen] if isinstance(chosen, str) else chosen
        self.check_dataset(self.accelerator.unwrap_model(self.model), dataset, "eval_dataset")
        training_collator, self.data_collator = self.data_collator, SequenceCollator(dataset)
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def views(self, args: SequentialTrainingConfig) -> Sequence[View | None]:
        """What the contrastive loss compares; see [`SequenceCollator`]."""
        if args.contrastive == "cl4srec":
            return AugmentedView(0), AugmentedView(1)
        if args.contrastive == "duorec":
            return None, same_target_view
        return ()

    def compute_terms(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """The model's own losses and the contrastive ones."""
        samples = self.take_samples(inputs)
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        terms = {"recommendation": outputs.loss, **(outputs.auxiliary_losses or {})}
        if outputs.contrasts is not None:  # ReaRec's PRL
            losses = torch.stack([contrast(*pair, samples).sum() for pair in outputs.contrasts])
            weight = self.accelerator.unwrap_model(model).config.contrastive_weight
            terms["thought_contrastive"] = weight * losses.mean() / num_items_in_batch
        if outputs.view_states is not None:
            similarities = self.compare(*outputs.view_states.chunk(2), samples).sum() / num_items_in_batch
            terms["contrastive"] = self.args.contrastive_weight * similarities
        return terms, outputs

    def take_samples(self, inputs: dict[str, Any]) -> GlobalSamples:
        """Removes the users of the samples [G] from a batch; without a contrastive loss there need not be any."""
        return GlobalSamples(inputs.pop("sample_users", None), self.args.same_user_negatives)

    def compare(self, first: torch.Tensor, second: torch.Tensor, samples: GlobalSamples) -> torch.Tensor:
        """Contrastive loss of each sample between states [G, D] of two views; the others of both are its negatives."""
        return info_nce(first, second, self.args.temperature, self.args.similarity, samples, within_views=True)


__all__ = ["SequentialTrainer"]
