"""Settings of LatentR³'s reinforcement learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .grpo_config import RecGRPOConfig


NOISE_SCALES = ("absolute", "relative")
REWARDS = ("perplexity", "exact_match")
ADVANTAGES = ("batch", "group")


@dataclass
class LRGRPOConfig(RecGRPOConfig):
    """
    Settings of [`LRGRPOTrainer`]: those of [`RecGRPOConfig`], with LatentR³'s defaults. `num_generations` counts the
    thoughts of a prompt, K; the first is the unperturbed one. The paper's batch is 256 prompts a step.

    The ablations are values: `advantage="group"` ("w/o Batch Advantage", Table 2), `reward="exact_match"` with
    `advantage="group"` (the original GRPO, App. K).

    Args:
        noise_std (`float`, *optional*, defaults to 1.5):
            Standard deviation of the noise on a thought, sigma of Eq. 5. The paper gives none; this one is that of the
            public script, for Qwen2.5-1.5B. What it means depends on the length of a thought: see
            `noise_to_thought_norm` in the logs.
        noise_scale (`str`, *optional*, defaults to `"absolute"`):
            Unit of `noise_std`: `"absolute"`, or `"relative"` to the root mean square of the thought, so that 0.1 asks
            for noise of a tenth of the thought's norm.
        reward (`str`, *optional*, defaults to `"perplexity"`):
            `"perplexity"`: minus the perplexity of the target after each thought (Eq. 6). `"exact_match"`: generates
            the greedy answer after each thought, 1 where it is the target and else 0, and trains on these answers;
            several times as slow.
        advantage (`str`, *optional*, defaults to `"batch"`):
            Rewards relative to the unperturbed thoughts of the global `"batch"` (Eq. 7), or to the `"group"`.
        epsilon_high (`float`, *optional*, defaults to 0.28): as in [`RecGRPOConfig`], from the public script.
        train_only_reasoner (`bool`, *optional*, defaults to `True`):
            Freezes everything but `model.reasoner`. `False` trains whatever requires a gradient: the full model as it
            comes from `from_pretrained`, or LoRA's weights.
        learning_rate (`float`, *optional*, defaults to 1e-4): peak; the paper chooses from 1e-5 to 5e-4.
        num_train_epochs (`float`, *optional*, defaults to 1): passes over the examples.

    Raises:
        ValueError: as [`RecGRPOConfig`], for an unknown choice, or noise that is not positive and finite.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training examples."})
    epsilon_high: float | None = field(
        default=0.28, metadata={"help": "Clipping of the probability ratio above; epsilon if None."}
    )
    noise_std: float = field(
        default=1.5, metadata={"help": "Standard deviation of the noise on a thought, in units of noise_scale."}
    )
    noise_scale: str = field(
        default="absolute",
        metadata={
            "help": "Unit of noise_std: 'absolute', or 'relative' to the root mean square of the thought.",
            "choices": list(NOISE_SCALES),
        },
    )
    reward: str = field(
        default="perplexity",
        metadata={
            "help": "Minus the 'perplexity' of the target, or 'exact_match' of generated answers (original GRPO).",
            "choices": list(REWARDS),
        },
    )
    advantage: str = field(
        default="batch",
        metadata={
            "help": "Rewards relative to the unperturbed thoughts of the global 'batch', or to their 'group'.",
            "choices": list(ADVANTAGES),
        },
    )
    train_only_reasoner: bool = field(
        default=True, metadata={"help": "Freeze everything but the reasoner; False trains what requires a gradient."}
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if not (math.isfinite(self.noise_std) and self.noise_std > 0):
            raise ValueError(
                f"{name}: noise_std is {self.noise_std}; pass a positive number, without noise the thoughts of a "
                "prompt do not differ"
            )
        for setting, choices in (("noise_scale", NOISE_SCALES), ("reward", REWARDS), ("advantage", ADVANTAGES)):
            if getattr(self, setting) not in choices:
                raise ValueError(f"{name}: {setting} is {getattr(self, setting)!r}; choose one of {choices}")


__all__ = ["ADVANTAGES", "NOISE_SCALES", "REWARDS", "LRGRPOConfig"]
