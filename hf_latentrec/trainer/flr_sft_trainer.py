"""Supervised fine-tuning of factorized reasoning."""

from __future__ import annotations

from torch import nn

from .factor_losses import FactorLossMixin
from .flr_sft_config import FLRSFTConfig
from .sft_trainer import LatentSFTTrainer, has_answer


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

    def count_others(self, batch):
        """Also the answers, over which the regularizers are means."""
        return {"answers": has_answer(batch["labels"]).sum()}

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The recommendation loss and the regularizers."""
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        counts = has_answer(inputs["labels"])
        return {**terms, **self.factor_terms(output, inputs, counts, self.global_counts["answers"])}, output


__all__ = ["FLRSFTTrainer"]
