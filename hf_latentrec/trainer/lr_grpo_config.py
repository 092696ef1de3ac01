"""Settings of LatentR³'s reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from .thought_grpo_config import ThoughtGRPOConfig


REWARDS = ("perplexity", "exact_match")
ADVANTAGES = ("batch", "group")


@dataclass
class LRGRPOConfig(ThoughtGRPOConfig):
    """
    Settings of [`LRGRPOTrainer`]: those of [`ThoughtGRPOConfig`], where `noise_std` is sigma of Eq. 5. The paper's
    batch is 256 prompts a step.

    The ablations are values: `advantage="group"` ("w/o Batch Advantage", Table 2), `reward="exact_match"` with
    `advantage="group"` (the original GRPO, App. K).

    Args:
        reward (`str`, *optional*, defaults to `"perplexity"`):
            `"perplexity"`: minus the perplexity of the target after each thought (Eq. 6). `"exact_match"`: generates
            the greedy answer after each thought, 1 where it is the target and else 0, and trains on these answers;
            several times as slow.
        advantage (`str`, *optional*, defaults to `"batch"`):
            Rewards relative to the unperturbed thoughts of the global `"batch"` (Eq. 7), or to the `"group"`.

    Raises:
        ValueError: as [`ThoughtGRPOConfig`], or for an unknown choice.
    """

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

    def __post_init__(self):
        super().__post_init__()
        for setting, choices in (("reward", REWARDS), ("advantage", ADVANTAGES)):
            if getattr(self, setting) not in choices:
                raise ValueError(
                    f"{type(self).__name__}: {setting} is {getattr(self, setting)!r}; choose one of {choices}"
                )


__all__ = ["ADVANTAGES", "REWARDS", "LRGRPOConfig"]
