"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from .rec_config import RecConfig


@dataclass
class LatentSFTConfig(RecConfig):
    """
    Settings of [`LatentSFTTrainer`]; see [`RecConfig`].

    LASAR (Table 7) trains stage 1 with `learning_rate=5e-4, num_train_epochs=10` and stage 2 with
    `learning_rate=5e-5, num_train_epochs=20`, both with `lr_scheduler_type="cosine", warmup_steps=0.08` and 512
    examples a step. The number of thoughts belongs to the model's configuration.
    """


__all__ = ["LatentSFTConfig"]
