"""Settings of LASAR's reinforcement learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .grpo_config import RecGRPOConfig


SCALE_REWARDS = ("group", "none")
GROUP_REPAIRS = ("none", "target")
WEIGHTS = ("terminal_kl_weight", "reinforce_coef", "reinforce_n_penalty", "reinforce_entropy")


@dataclass
class LASARGRPOConfig(RecGRPOConfig):
    """
    Settings of [`LASARGRPOTrainer`]: those of [`RecGRPOConfig`], with LASAR's defaults (Table 7). `num_generations`
    counts the candidates of a prompt, G: the beams of one constrained beam search.

    Args:
        beta (`float`, *optional*, defaults to 1e-3): as in [`RecGRPOConfig`].
        scale_rewards (`str`, *optional*, defaults to `"group"`):
            `"group"` divides a group's advantages by the standard deviation of its rewards, `"none"` does not.
        reward_weights (`list[float]`, *optional*): one per reward function; all 1 if not given.
        group_repair (`str`, *optional*, defaults to `"none"`):
            What becomes of a group without the target, whose rewards are all the same and which so has no gradient:
            `"target"` puts the target in the place of its worst candidate.
        terminal_kl_weight (`float`, *optional*):
            gamma_KL of the alignment of the last thought with the last anchor; 0 is off. By default 1e-5 where the
            trainer has anchors, else off.
        reinforce_coef (`float`, *optional*):
            gamma_RF of REINFORCE on the depth; 0 freezes the depth policy. By default 0.01 where the model has one,
            else off.
        reinforce_n_penalty (`float`, *optional*, defaults to 5e-4): lambda of Eq. 6, what a thought costs.
        reinforce_entropy (`float`, *optional*, defaults to 0.01): eta of Eq. 6, weight of the policy's entropy.
        reinforce_baseline_decay (`float`, *optional*, defaults to 0.9): of the moving average of rewards in Eq. 6.
        normalize (`str`, *optional*, defaults to `"catalog"`): as in [`LatentConfig`], of candidates and ratios.
        learning_rate (`float`, *optional*, defaults to 1e-5): peak, reached after `warmup_steps`.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): how the learning rate falls.
        warmup_steps (`float`, *optional*, defaults to 0.08): below 1, a share of all training steps.

    Raises:
        ValueError: as [`RecGRPOConfig`], or for an unknown choice, or a weight that is out of range.
    """

    normalize: str = field(
        default="catalog",
        metadata={
            "help": "Over what probabilities are normalized: the 'catalog', as in beam search, or the 'vocabulary'."
        },
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "How the learning rate falls."})
    warmup_steps: float = field(
        default=0.08, metadata={"help": "Steps of linear warmup; below 1, a ratio of all training steps."}
    )
    beta: float = field(
        default=1e-3, metadata={"help": "Weight of the KL divergence to the frozen reference; 0 keeps no reference."}
    )
    scale_rewards: str = field(
        default="group",
        metadata={
            "help": "'group' divides advantages by the standard deviation of the group's rewards, 'none' does not.",
            "choices": list(SCALE_REWARDS),
        },
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward function; all 1 if not given."}
    )
    group_repair: str = field(
        default="none",
        metadata={
            "help": "'target' puts the target in the place of the worst candidate of a group without a hit.",
            "choices": list(GROUP_REPAIRS),
        },
    )
    terminal_kl_weight: float | None = field(
        default=None,
        metadata={"help": "Weight of the last thought's alignment; 0 is off. Default: 1e-5 with anchors, else off."},
    )
    reinforce_coef: float | None = field(
        default=None,
        metadata={"help": "Weight of REINFORCE on the depth; 0 is off. Default: 0.01 with a depth policy, else off."},
    )
    reinforce_n_penalty: float = field(default=5e-4, metadata={"help": "What a thought costs in REINFORCE."})
    reinforce_entropy: float = field(default=0.01, metadata={"help": "Weight of the depth policy's entropy."})
    reinforce_baseline_decay: float = field(
        default=0.9, metadata={"help": "Decay of the moving average of rewards that REINFORCE is relative to."}
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        for setting, choices in (("scale_rewards", SCALE_REWARDS), ("group_repair", GROUP_REPAIRS)):
            if getattr(self, setting) not in choices:
                raise ValueError(f"{name}: {setting} is {getattr(self, setting)!r}; choose one of {choices}")
        for setting in WEIGHTS:
            weight = getattr(self, setting)
            if weight is not None and not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}: {setting} is {weight}; pass 0 (off) or a positive number")
        if not 0 <= self.reinforce_baseline_decay < 1:
            raise ValueError(
                f"{name}: reinforce_baseline_decay is {self.reinforce_baseline_decay}; pass a number from 0 (the last "
                "batch's mean) to below 1"
            )


__all__ = ["GROUP_REPAIRS", "SCALE_REWARDS", "LASARGRPOConfig"]
