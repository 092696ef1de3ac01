"""Supervised fine-tuning of recommenders, with or without thoughts."""

from __future__ import annotations

from .rec_trainer import RecTrainer
from .sft_config import LatentSFTConfig


class LatentSFTTrainer(RecTrainer):
    """
    Cross entropy of the answers: `L_CE` of LASAR section 2.3. The model computes it; stage 1 and stage 2 differ only
    in the model's `num_thoughts`.

    The loss is the mean over the answer tokens of the global batch. With labels [B, G, T], each of the G answers of a
    packed history counts. See [`RecTrainer`] for the arguments.

    Example:
        >>> trainer = LatentSFTTrainer(
        ...     model,
        ...     LatentSFTConfig("out", learning_rate=5e-4),
        ...     data_collator=collator,
        ...     train_dataset=dataset,
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LatentSFTConfig


__all__ = ["LatentSFTTrainer"]
