"""Settings that all reinforcement learning by group-relative policy optimization shares, whatever is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rec_config import RecConfig


@dataclass
class RolloutConfig(RecConfig):
    """
    Settings of [`RolloutTrainer`]. Names and meanings are TRL's.

    Args:
        num_generations (`int`, *optional*, defaults to 8):
            Answers or thoughts per prompt that are compared, the group. Any batch size will do, since a group belongs
            to one prompt of the batch.
        beta (`float`, *optional*, defaults to 0.0):
            Weight of the KL divergence to the frozen reference; 0 keeps no reference.
        epsilon (`float`, *optional*, defaults to 0.2): clipping of the probability ratio below.
        epsilon_high (`float`, *optional*): clipping above; `epsilon` if not given.
        num_iterations (`int`, *optional*, defaults to 1): optimizer steps on each rollout.
        disable_dropout (`bool`, *optional*, defaults to `True`):
            Trains without dropout. Rollouts, old and reference log-probabilities never have dropout.

    Raises:
        ValueError: for values out of range, or save steps (with `save_strategy="best"`, evaluation steps)
            between which the rollout of a step would be lost.
    """

    num_generations: int = field(
        default=8, metadata={"help": "Answers or thoughts per prompt that are compared with each other."}
    )
    beta: float = field(
        default=0.0, metadata={"help": "Weight of the KL divergence to the frozen reference; 0 keeps no reference."}
    )
    epsilon: float = field(default=0.2, metadata={"help": "Clipping of the probability ratio below."})
    epsilon_high: float | None = field(
        default=None, metadata={"help": "Clipping of the probability ratio above; epsilon if not given."}
    )
    num_iterations: int = field(default=1, metadata={"help": "Optimizer steps on each rollout."})
    disable_dropout: bool = field(default=True, metadata={"help": "Train without dropout."})

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if self.num_generations < 2:
            raise ValueError(
                f"{name}: num_generations is {self.num_generations}; advantages compare what a prompt leads to, pass "
                "at least 2"
            )
        if self.beta < 0:
            raise ValueError(f"{name}: beta is {self.beta}; pass 0 (no reference) or a positive number")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"{name}: epsilon is {self.epsilon}; pass a number between 0 and 1")
        if self.epsilon_high is not None and self.epsilon_high <= 0:
            raise ValueError(f"{name}: epsilon_high is {self.epsilon_high}; pass a positive number or None")
        if self.num_iterations < 1:
            raise ValueError(f"{name}: num_iterations is {self.num_iterations}; pass at least 1")
        # Rollouts are not saved, so a run that stops between two steps on one could not go on to the same losses.
        # The best model is saved when it is evaluated.
        saves_best = self.save_strategy == "best"
        strategy, interval = ("eval_strategy", "eval_steps") if saves_best else ("save_strategy", "save_steps")
        repeats = getattr(self, strategy) == "steps" and self.num_iterations > 1
        steps = getattr(self, interval)
        if repeats and steps % self.num_iterations != 0:
            raise ValueError(
                f"{name}: {interval} is {steps} and num_iterations {self.num_iterations}; save every multiple of "
                "num_iterations steps, so that a checkpoint never splits the steps on one rollout"
            )


__all__ = ["RolloutConfig"]
