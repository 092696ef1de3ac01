"""Settings that all reinforcement learning of LLM recommenders shares."""

from __future__ import annotations

from dataclasses import dataclass

from .latent_config import LatentConfig
from .rollout_config import RolloutConfig


@dataclass
class RecGRPOConfig(LatentConfig, RolloutConfig):  # in this order: a dataclass takes a default from the first base
    """Settings of [`RecGRPOTrainer`]: those of [`RolloutConfig`] and of [`LatentConfig`]."""


__all__ = ["RecGRPOConfig"]
