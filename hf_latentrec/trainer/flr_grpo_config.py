"""Settings of FLR's reinforcement learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .factor_losses import FactorLossConfig
from .thought_grpo_config import ThoughtGRPOConfig


@dataclass
class FLRGRPOConfig(ThoughtGRPOConfig, FactorLossConfig):
    """
    Settings of [`FLRGRPOTrainer`]: those of [`ThoughtGRPOConfig`] (`noise_std` is sigma of Eq. 9; `epsilon` and
    `epsilon_high` are the paper's 0.2 and 0.28) and of [`FactorLossConfig`], whose losses stay on (Eq. 13).

    Args:
        beta (`float`, *optional*, defaults to 0.04):
            As in [`RecGRPOConfig`], of Eq. 12. The paper gives no value; this one is that of the original GRPO
            (DeepSeekMath).
        reward_confidence_weight (`float`, *optional*, defaults to 0.1):
            Alpha of Eq. 10: weight of the target's mean log-probability.
        reward_match_weight (`float`, *optional*, defaults to 1.0):
            Beta_r of Eq. 10: reward of a thought after which the greedy answer is the target.

    Raises:
        ValueError: as [`ThoughtGRPOConfig`] and [`FactorLossConfig`], or for weights that are negative, not finite, or
            both 0.
    """

    beta: float = field(
        default=0.04, metadata={"help": "Weight of the KL divergence to the frozen reference; 0 keeps no reference."}
    )
    reward_confidence_weight: float = field(
        default=0.1, metadata={"help": "Weight of the target's mean log-probability in the reward (alpha)."}
    )
    reward_match_weight: float = field(
        default=1.0, metadata={"help": "Reward where the greedy answer is the target (beta_r)."}
    )

    def __post_init__(self):
        super().__post_init__()
        weights = {name: getattr(self, name) for name in ("reward_confidence_weight", "reward_match_weight")}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{type(self).__name__}: {name} is {weight}; pass a finite number, 0 or more")
        if not any(weights.values()):
            raise ValueError(f"{type(self).__name__}: {' and '.join(weights)} are both 0; no thought would differ")


__all__ = ["FLRGRPOConfig"]
