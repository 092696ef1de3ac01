"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field

from .latent_config import LatentConfig


@dataclass
class LatentSFTConfig(LatentConfig):
    """
    Settings of [`LatentSFTTrainer`]; see [`LatentConfig`].

    Args:
        pack_histories (`bool`, *optional*):
            Learn all targets of a history in one row: the history is encoded once, and each target is a branch of it,
            with the loss and the gradients of one example per target at a fraction of the work. A batch of
            `per_device_train_batch_size` rows then holds that many histories. By default histories are packed where
            the prompt template ends with `{history}`; `True` refuses a template for which that is not possible,
            `False` trains with one example per row.

    LASAR (Table 7) trains stage 1 with `learning_rate=5e-4, num_train_epochs=10` and stage 2 with
    `learning_rate=5e-5, num_train_epochs=20`, both with `lr_scheduler_type="cosine", warmup_steps=0.08` and 512
    examples a step. LatentR³ (App. B) searches `learning_rate` in 3e-3, 3e-4 and 3e-5 and stops with
    `early_stopping_patience=1`. The number of thoughts belongs to the model's configuration.
    """

    pack_histories: bool | None = field(
        default=None,
        metadata={
            "help": "Learn all targets of a history in one row (a batch then counts histories). Default: where the "
            "prompt template ends with the history."
        },
    )


__all__ = ["LatentSFTConfig"]
