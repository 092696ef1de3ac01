"""Settings of LASAR's second stage of supervised fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .sft_config import LatentSFTConfig
from .thought_losses import ALIGNMENTS


@dataclass
class LASARSFTConfig(LatentSFTConfig):
    """
    Settings of [`LASARSFTTrainer`]: those of [`LatentSFTConfig`], with the defaults of LASAR's stage 2 (Table 7).

    Args:
        alignment (`str`, *optional*, defaults to `"kl"`):
            How thoughts are compared with the anchors of the reasoning text, see [`thought_alignment`]: `"kl"`,
            `"cosine"`, `"mse"`, or `"none"`.
        align_weight (`float`, *optional*, defaults to 0.1): of the alignment; 0 is no alignment.
        policy_weight (`float`, *optional*, defaults to 0.1):
            Of the depth policy's cross entropy; with 0 the policy is frozen.
        max_missing_cot (`float`, *optional*, defaults to 0.1):
            The largest share of training examples that may lack a reasoning text.
        learning_rate (`float`, *optional*, defaults to 5e-5): peak, reached after `warmup_steps`.
        num_train_epochs (`float`, *optional*, defaults to 20): passes over the examples.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): how the learning rate falls.
        warmup_steps (`float`, *optional*, defaults to 0.08): below 1, a share of all training steps.

    Raises:
        ValueError: as [`LatentSFTConfig`], for an unknown `alignment`, a weight that is negative or not finite, or a
            share that is none.
    """

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Passes over the training examples."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "How the learning rate falls."})
    warmup_steps: float = field(
        default=0.08, metadata={"help": "Steps of linear warmup; below 1, a ratio of all training steps."}
    )
    alignment: str = field(
        default="kl",
        metadata={
            "help": "How thoughts are compared with the anchors of reasoning texts: 'kl', 'cosine', 'mse' or 'none'.",
            "choices": [*ALIGNMENTS, "none"],
        },
    )
    align_weight: float = field(default=0.1, metadata={"help": "Weight of the alignment; 0 is no alignment."})
    policy_weight: float = field(
        default=0.1, metadata={"help": "Weight of the depth policy's cross entropy; with 0 the policy is frozen."}
    )
    max_missing_cot: float = field(
        default=0.1, metadata={"help": "Largest share of training examples without a reasoning text."}
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if self.alignment not in (*ALIGNMENTS, "none"):
            raise ValueError(f"{name}: alignment is {self.alignment!r}; choose one of {(*ALIGNMENTS, 'none')}")
        for setting in ("align_weight", "policy_weight"):
            weight = getattr(self, setting)
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}: {setting} is {weight}; pass 0 (off) or a positive number")
        if not 0 <= self.max_missing_cot <= 1:
            raise ValueError(f"{name}: max_missing_cot is {self.max_missing_cot}; pass a share between 0 and 1")


__all__ = ["LASARSFTConfig"]
