"""LatentR³'s reinforcement learning: LR-GRPO over perturbed thoughts.

Shapes: B prompts, K thoughts of a prompt, T answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .advantages import batch_advantage, group_advantage
from .lr_grpo_config import LRGRPOConfig
from .rewards import IGNORE_INDEX, pad_answers, perplexity_reward, rule_reward
from .thought_grpo_trainer import ThoughtGRPOTrainer


class LRGRPOTrainer(ThoughtGRPOTrainer):
    """
    LR-GRPO (LatentR³, section 3.3): K samples of the last thought, `r^1 = r` and `r^k = r + noise` (Eq. 5), their
    rewards (Eq. 6), batch-relative advantages (Eq. 7) and the objective of Eq. 8, clipped as in the public code. See
    [`ThoughtGRPOTrainer`] for the thoughts, their noise and what is logged; `frac_perplexity_clamped` comes to it.

    Batch-relative advantages need the rewards of all micro-batches of a step: only a step of one micro-batch takes
    them from its training forward.

    Eq. 8 scores the target after every thought, so a negative advantage makes the target itself less likely. Relative
    to the batch, users whose targets are harder to predict than the batch's have those: they are given up for the
    others, and the mean `reward` may fall. Watch a ranking metric of validation users, and keep the best checkpoint.

    Args:
        model (`PreTrainedModel`): the policy, with at least one thought, of any reasoner. Its state at this moment is
            also the reference.
        args (`LRGRPOConfig`): settings. Everything but `model.reasoner` is frozen with `train_only_reasoner`.
        kwargs: as for [`LatentTrainer`]; `labels` of a batch are the targets' tokens [B, T].

    Raises:
        ValueError: as [`ThoughtGRPOTrainer`], or for a sharded model where answers are generated.

    Example:
        >>> trainer = LRGRPOTrainer(
        ...     model,
        ...     LRGRPOConfig("out", num_generations=8, noise_std=0.5, noise_scale="relative"),
        ...     data_collator=collator,
        ...     train_dataset=dataset,
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LRGRPOConfig

    def __init__(self, model: nn.Module, args: LRGRPOConfig, **kwargs):
        super().__init__(model, args, **kwargs)
        if args.reward == "exact_match":
            self.require_whole_model("generated answers need")

    def prepare_policy(self, model):
        """As in [`ThoughtGRPOTrainer`]; the weights of FLR's losses, which are no part of this one, rest."""
        if model.config.reasoner_config.num_factors is not None:
            model.reasoner.loss_log_variances.requires_grad_(False)
        super().prepare_policy(model)

    @property
    def needs_item_trie(self) -> bool:
        """Where probabilities are normalized over the catalog, or answers are generated."""
        return super().needs_item_trie or self.args.reward == "exact_match"

    @property
    def advantages_span_groups(self) -> bool:
        """Where they are relative to the global batch."""
        return self.args.advantage == "batch"

    def training_forward_gives_rewards(self, num_batches):
        """As in [`ThoughtGRPOTrainer`], but never for answers that are generated first."""
        return self.args.reward == "perplexity" and super().training_forward_gives_rewards(num_batches)

    def reward_rollout(self, model, rollout):
        """As in [`ThoughtGRPOTrainer`], or the rewards of generated answers."""
        if self.args.reward == "exact_match":
            return self.answer_freely(rollout)
        return super().reward_rollout(model, rollout)

    def compute_rewards(self, rollout, output):
        """Rewards [B, K] of Eq. 6."""
        rewards, clamped = perplexity_reward(output.logps, rollout["labels"] != IGNORE_INDEX)
        self.means.add("frac_perplexity_clamped", clamped.sum(), clamped.numel())
        return rewards

    def answer_freely(self, rollout: dict[str, Any]) -> torch.Tensor:
        """Puts the greedy answers [B, K, T] in the place of the targets; their rewards [B, K] are 1 or 0 (App. K)."""
        answers = self.accelerator.unwrap_model(self.model).greedy_answers(
            rollout["input_ids"],
            rollout["attention_mask"],
            item_trie=self.item_trie,
            thought_noise=rollout["thought_noise"],
            relative_noise=self.args.noise_scale == "relative",
        )
        num_tokens = max(answers.shape[-1], rollout["labels"].shape[-1])
        rewards = rule_reward(pad_answers(answers, num_tokens), pad_answers(rollout["labels"], num_tokens))
        rollout["labels"] = answers
        return rewards

    def compute_advantages(self, rewards):
        """Relative to the unperturbed thoughts of the global batch (Eq. 7), or to the group."""
        if self.args.advantage == "batch":
            return batch_advantage(rewards, self._sum_over_processes)
        return group_advantage(rewards)


__all__ = ["LRGRPOTrainer"]
