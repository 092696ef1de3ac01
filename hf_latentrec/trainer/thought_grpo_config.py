"""Settings that all reinforcement learning over perturbed thoughts shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .grpo_config import RecGRPOConfig


NOISE_SCALES = ("absolute", "relative")


@dataclass
class ThoughtGRPOConfig(RecGRPOConfig):
    """
    Settings of [`ThoughtGRPOTrainer`]: those of [`RecGRPOConfig`], and the noise. `num_generations` counts the
    thoughts of a prompt, K; the first is the unperturbed one.

    Args:
        noise_std (`float`, *optional*, defaults to 1.5):
            Standard deviation of the noise on a thought. The papers give none; this one is that of LatentR³'s public
            script, for Qwen2.5-1.5B. What it means depends on the length of a thought: see `noise_to_thought_norm` in
            the logs.
        noise_scale (`str`, *optional*, defaults to `"absolute"`):
            Unit of `noise_std`: `"absolute"`, or `"relative"` to the root mean square of the thought, so that 0.1 asks
            for noise of a tenth of the thought's norm.
        epsilon_high (`float`, *optional*, defaults to 0.28):
            As in [`RecGRPOConfig`]; the value of FLR's paper and of LatentR³'s public script.
        train_only_reasoner (`bool`, *optional*, defaults to `True`):
            Freezes everything but `model.reasoner`. `False` trains whatever requires a gradient: the full model as it
            comes from `from_pretrained`, or LoRA's weights.
        learning_rate (`float`, *optional*, defaults to 1e-4): peak; the papers choose from 1e-5 to 5e-4.
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
        if self.noise_scale not in NOISE_SCALES:
            raise ValueError(f"{name}: noise_scale is {self.noise_scale!r}; choose one of {NOISE_SCALES}")


__all__ = ["NOISE_SCALES", "ThoughtGRPOConfig"]
