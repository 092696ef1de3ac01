"""Settings of LASAR's reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rec_config import RecConfig


SCALE_REWARDS = ("group", "none")


@dataclass
class LASARGRPOConfig(RecConfig):
    """
    Settings of [`LASARGRPOTrainer`]. Names and meanings are TRL's, defaults LASAR's (Table 7).

    Args:
        num_generations (`int`, *optional*, defaults to 8):
            Candidates per prompt, G: the beams of one constrained beam search. Any batch size will do, since a group
            belongs to one prompt of the batch.
        beta (`float`, *optional*, defaults to 1e-3):
            Weight of the KL divergence to the frozen reference; 0 keeps no reference.
        epsilon (`float`, *optional*, defaults to 0.2): clipping of the probability ratio below.
        epsilon_high (`float`, *optional*): clipping above; `epsilon` if not given.
        num_iterations (`int`, *optional*, defaults to 1): optimizer steps on each set of candidates.
        scale_rewards (`str`, *optional*, defaults to `"group"`):
            `"group"` divides a group's advantages by the standard deviation of its rewards, `"none"` does not.
        reward_weights (`list[float]`, *optional*): one per reward function; all 1 if not given.
        disable_dropout (`bool`, *optional*, defaults to `True`):
            Trains without dropout. Candidates, old and reference log-probabilities never have dropout.
        normalize (`str`, *optional*, defaults to `"catalog"`): as in [`RecConfig`], of candidates and ratios.
        learning_rate (`float`, *optional*, defaults to 1e-5): peak, reached after `warmup_steps`.
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`): how the learning rate falls.
        warmup_steps (`float`, *optional*, defaults to 0.08): below 1, a share of all training steps.

    Raises:
        ValueError: for values out of range, or save steps between which the candidates of a step would be lost.
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
    num_generations: int = field(
        default=8, metadata={"help": "Candidates per prompt: the beams of one constrained beam search."}
    )
    beta: float = field(
        default=1e-3, metadata={"help": "Weight of the KL divergence to the frozen reference; 0 keeps no reference."}
    )
    epsilon: float = field(default=0.2, metadata={"help": "Clipping of the probability ratio below."})
    epsilon_high: float | None = field(
        default=None, metadata={"help": "Clipping of the probability ratio above; epsilon if not given."}
    )
    num_iterations: int = field(default=1, metadata={"help": "Optimizer steps on each set of candidates."})
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
    disable_dropout: bool = field(default=True, metadata={"help": "Train without dropout."})

    def __post_init__(self):
        super().__post_init__()
        if self.num_generations < 2:
            raise ValueError(
                f"LASARGRPOConfig: num_generations is {self.num_generations}; advantages compare the candidates of a "
                "prompt, pass at least 2"
            )
        if self.beta < 0:
            raise ValueError(f"LASARGRPOConfig: beta is {self.beta}; pass 0 (no reference) or a positive number")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"LASARGRPOConfig: epsilon is {self.epsilon}; pass a number between 0 and 1")
        if self.epsilon_high is not None and self.epsilon_high <= 0:
            raise ValueError(f"LASARGRPOConfig: epsilon_high is {self.epsilon_high}; pass a positive number or None")
        if self.scale_rewards not in SCALE_REWARDS:
            raise ValueError(
                f"LASARGRPOConfig: scale_rewards is {self.scale_rewards!r}; choose one of {SCALE_REWARDS}"
            )
        if self.num_iterations < 1:
            raise ValueError(f"LASARGRPOConfig: num_iterations is {self.num_iterations}; pass at least 1")
        # Candidates are not saved, so a run that stops between two steps on one set could not go on to the same
        # losses.
        if self.save_strategy == "steps" and self.save_steps % self.num_iterations != 0:
            raise ValueError(
                f"LASARGRPOConfig: save_steps is {self.save_steps} and num_iterations {self.num_iterations}; save "
                "every multiple of num_iterations steps, so that a checkpoint never splits the steps on one rollout"
            )


__all__ = ["SCALE_REWARDS", "LASARGRPOConfig"]
