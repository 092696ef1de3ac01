"""Settings of FLR's supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from .factor_losses import FactorLossConfig
from .sft_config import LatentSFTConfig


@dataclass
class FLRSFTConfig(LatentSFTConfig, FactorLossConfig):
    """
    Settings of [`FLRSFTTrainer`]: those of [`LatentSFTConfig`] and of [`FactorLossConfig`].

    FLR (section 5.2) searches `learning_rate` in 3e-4, 5e-5 and 1e-5 with AdamW and learns the weights of all three
    losses. The number of factors and of iterations belongs to the model's configuration.
    """


__all__ = ["FLRSFTConfig"]
