"""Settings of LASAR's reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from .grpo_config import RecGRPOConfig


SCALE_REWARDS = ("group", "none")


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
        normalize (`str`, *optional*, defaults to `"catalog"`): as in [`RecConfig`], of candidates and ratios.
        learning_rate (`float`, *optional*, defaults to 1e-5): peak, reached after `warmup_steps`.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): how the learning rate falls.
        warmup_steps (`float`, *optional*, defaults to 0.08): below 1, a share of all training steps.

    Raises:
        ValueError: as [`RecGRPOConfig`], or for an unknown `scale_rewards`.
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

    def __post_init__(self):
        super().__post_init__()
        if self.scale_rewards not in SCALE_REWARDS:
            raise ValueError(
                f"LASARGRPOConfig: scale_rewards is {self.scale_rewards!r}; choose one of {SCALE_REWARDS}"
            )


__all__ = ["SCALE_REWARDS", "LASARGRPOConfig"]
