"""Settings of LARES' reinforcement post-training."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rollout_config import RolloutConfig


REWARDS = ("recall", "ndcg")
POLICIES = ("target", "hybrid", "top")


@dataclass
class LaresGRPOConfig(RolloutConfig):
    """
    Settings of [`LaresGRPOTrainer`]: those of [`RolloutConfig`], with the paper's defaults (App. A.3).

    Args:
        num_generations (`int`, *optional*, defaults to 4): rollouts of a sample, G; each has an initial state T_0.
        beta (`float`, *optional*, defaults to 1.0): as in [`RolloutConfig`]; the paper chooses from 0.5 and 1.
        reward (`str`, *optional*, defaults to `"recall"`): what the last step's ranking is worth, `"recall"` or
            `"ndcg"`.
        reward_k (`int`, *optional*, defaults to 10): cutoff of the reward; the paper chooses from 5 and 10.
        policy (`str`, *optional*, defaults to `"target"`):
            Whose probability at every step is the policy (section 3.4.3): the `"target"`'s; `"hybrid"`, the target's
            in rollouts that did better than their group, and in those that did worse that of the item that the last
            step ranks highest but for the target; `"top"`, that of the item which each step ranks highest.
        num_steps (`int`, *optional*): reasoning steps of a rollout; by default those of the model at inference, so
            that the rewards are of the rankings that users see.
        disable_dropout (`bool`, *optional*, defaults to `False`):
            With dropout, rollouts of a sample differ in what is dropped, too. The masks of a rollout are the same
            wherever it is scored, so a ratio is 1 until the weights have changed; the reference has none.
        learning_rate (`float`, *optional*, defaults to 5e-4): the paper chooses from 1e-4, 3e-4 and 5e-4.
        lr_scheduler_type (`str`, *optional*, defaults to `"constant"`): how the learning rate falls.

    Raises:
        ValueError: as [`RolloutConfig`], or for an unknown choice or a count below 1.
    """

    num_generations: int = field(default=4, metadata={"help": "Rollouts of a sample, G."})
    beta: float = field(
        default=1.0, metadata={"help": "Weight of the KL divergence to the frozen reference; 0 keeps no reference."}
    )
    disable_dropout: bool = field(
        default=False, metadata={"help": "Train without dropout; rollouts then differ in their initial state alone."}
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of AdamW."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "How the learning rate falls."})
    reward: str = field(
        default="recall",
        metadata={"help": "What the last step's ranking is worth: 'recall' or 'ndcg'.", "choices": list(REWARDS)},
    )
    reward_k: int = field(default=10, metadata={"help": "Cutoff of the reward."})
    policy: str = field(
        default="target",
        metadata={
            "help": "Whose probability is the policy: the 'target's; 'hybrid', in rollouts worse than their group the "
            "best negative's; or 'top', what each step ranks highest.",
            "choices": list(POLICIES),
        },
    )
    num_steps: int | None = field(
        default=None, metadata={"help": "Reasoning steps of a rollout; those of the model at inference if not given."}
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        for setting, choices in (("reward", REWARDS), ("policy", POLICIES)):
            if getattr(self, setting) not in choices:
                raise ValueError(f"{name}: {setting} is {getattr(self, setting)!r}; choose one of {choices}")
        for setting in ("reward_k", "num_steps"):
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {setting} is {value}; pass at least 1")


__all__ = ["POLICIES", "REWARDS", "LaresGRPOConfig"]
