"""Supervised fine-tuning of factorized reasoning."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .factor_losses import FactorLossMixin
from .flr_sft_config import FLRSFTConfig
from .sft_trainer import LatentSFTTrainer


class FLRSFTTrainer(FactorLossMixin, LatentSFTTrainer):
    """
    [`LatentSFTTrainer`] with the regularizers of FLR (Eq. 8):
    `L = L_rec + lambda_1 L_orth + lambda_2 L_div + lambda_3 L_sparse`.

    The recommendation loss is a mean over answer tokens, the regularizers are means over answers, each of which has a
    thought of its own, also where histories are packed. `eval_loss` is the sum; `eval_loss/cross_entropy` is the
    recommendation loss alone.

    The loss of sparsity is as small as can be where one factor has all of every thought, the same for all users.
    `dominant` of [`~hf_latentrec.evaluation.measure_factors`] tells whether that is what came out; low correlation of
    the factors does not.

    Args:
        model (`PreTrainedModel`): a recommender with `reasoner="factorized_attention"` and `num_thoughts=1`.
        args (`FLRSFTConfig`): settings.
        kwargs: as for [`LatentSFTTrainer`].

    Raises:
        ValueError: as [`LatentSFTTrainer`], and for a model without factors.

    Example:
        >>> trainer = FLRSFTTrainer(
        ...     model,
        ...     FLRSFTConfig("out", factor_losses=["orthogonality", "diversity"]),
        ...     train_dataset=splits["train"],
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = FLRSFTConfig

    def __init__(self, model: nn.Module, args: FLRSFTConfig, **kwargs):
        super().__init__(model, args, **kwargs)
        self.prepare_factor_losses(self.accelerator.unwrap_model(self.model))
        self._num_answers_in_batch: torch.Tensor | None = None  # of the global batch

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor | None:
        if batch_samples:
            answers = torch.stack([_has_answer(batch["labels"]).sum() for batch in batch_samples]).sum().to(device)
            is_global = self.args.average_tokens_across_devices
            self._num_answers_in_batch = self.accelerator.gather(answers).sum() if is_global else answers
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The recommendation loss and the regularizers."""
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        counts = _has_answer(inputs["labels"])
        num_answers = counts.sum() if self._num_answers_in_batch is None else self._num_answers_in_batch
        return {**terms, **self.factor_terms(output, inputs, counts, num_answers)}, output


def _has_answer(labels: torch.Tensor) -> torch.Tensor:
    """False for answers [..., T] that only fill up a batch."""
    return labels.ne(-100).any(-1)


__all__ = ["FLRSFTTrainer"]
