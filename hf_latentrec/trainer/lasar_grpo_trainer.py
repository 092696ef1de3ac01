"""LASAR's reinforcement learning: GRPO over the candidates of constrained beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from .advantages import group_advantage
from .grpo_trainer import RecGRPOTrainer
from .lasar_grpo_config import LASARGRPOConfig
from .rewards import IGNORE_INDEX, is_target, ndcg_reward, rule_reward


RewardFunc = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LASARGRPOTrainer(RecGRPOTrainer):
    """
    GRPO as in LASAR (section 2.4, App. E.5): G candidates per prompt from constrained beam search, rule + NDCG reward,
    group advantages, clipped objective and KL to a frozen reference. The policy head's terms are not part of it.

    A step rolls out with the unwrapped model (no gradient, no dropout), then scores all candidates of a prompt as
    branches of one encoded prompt with the wrapped model. The loss is a mean over the prompts of the global batch.
    Logged under TRL's names; `hit_rate` is the share of groups that hold the target.

    Args:
        model (`PreTrainedModel`): the policy. Its state at this moment is also the reference.
        args (`LASARGRPOConfig`): settings.
        reward_funcs (`list[Callable]`, *optional*): functions of candidates [B, G, T] and targets [B, T] that return
            rewards [B, G]; by default [`rule_reward`] and [`ndcg_reward`].
        kwargs: as for [`RecTrainer`]; `labels` of a batch are the targets' tokens [B, T].

    Raises:
        ValueError: where the number of reward weights is not that of rewards, or the model would be sharded.

    Example:
        >>> trainer = LASARGRPOTrainer(
        ...     model,
        ...     LASARGRPOConfig("out", num_generations=8),
        ...     data_collator=collator,
        ...     train_dataset=dataset,
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LASARGRPOConfig
    default_reward_funcs: Sequence[RewardFunc] = (rule_reward, ndcg_reward)

    def __init__(
        self, model: nn.Module, args: LASARGRPOConfig, *, reward_funcs: Sequence[RewardFunc] | None = None, **kwargs
    ):
        super().__init__(model, args, **kwargs)
        self.require_whole_model("beam search needs")
        self.reward_funcs = list(self.default_reward_funcs if reward_funcs is None else reward_funcs)
        weights = [1.0] * len(self.reward_funcs) if args.reward_weights is None else args.reward_weights
        if len(weights) != len(self.reward_funcs):
            raise ValueError(
                f"LASARGRPOTrainer: {len(weights)} reward_weights for {len(self.reward_funcs)} reward functions; pass "
                "one weight per function"
            )
        self.reward_weights = torch.tensor(weights, device=args.device)

    @property
    def needs_item_trie(self) -> bool:
        """Always: the candidates come from constrained beam search."""
        return True

    def roll_out(self, model, batches, generator):
        """Candidates [B, G, T] of every prompt, best first and padded with -100, with their advantages [B, G]."""
        policy = self.accelerator.unwrap_model(self.model)
        rollouts = []
        for batch in batches:
            prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
            candidates = self.generate_candidates(policy, prompt, batch["labels"])
            advantages = self.advantages(candidates, batch["labels"])
            rollouts.append(
                {**prompt, "labels": candidates, "advantages": advantages, "user_ids": batch.get("user_ids", ())}
            )
        return rollouts

    def generate_candidates(
        self, policy: nn.Module, prompt: dict[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """The answers [B, G, T] of constrained beam search, best first; -100 where the catalog has fewer than G."""
        output = policy.generate(
            **prompt,
            item_trie=self.item_trie,
            num_beams=self.args.num_generations,
            num_return_sequences=self.args.num_generations,
            normalize=self.args.normalize,
        )
        num_tokens = output.sequences.shape[-1]
        if target.dim() != 2 or target.shape[-1] != num_tokens:
            raise ValueError(
                f"LASARGRPOTrainer: labels have the shape {tuple(target.shape)}, but the catalog's answers have "
                f"{num_tokens} tokens; give one target of {num_tokens} tokens per prompt"
            )
        # Rows of a prompt follow each other, so a row's rank is its distance from the prompt's first row.
        user_R = output.user_indices
        rank_R = torch.arange(len(user_R), device=user_R.device) - torch.searchsorted(user_R, user_R)
        candidates = target.new_full((len(target), self.args.num_generations, num_tokens), IGNORE_INDEX)
        candidates[user_R, rank_R] = output.sequences
        return candidates

    def advantages(self, candidates: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Group advantages [B, G] of the weighted sum of rewards; records what the rewards say."""
        exists = (candidates != IGNORE_INDEX).any(-1)
        rewards_BGF = torch.stack([function(candidates, target).float() for function in self.reward_funcs], dim=-1)
        rewards = (rewards_BGF * self.reward_weights).sum(-1)
        group = group_advantage(rewards, exists, scale=self.args.scale_rewards == "group")
        num_prompts, num_candidates = exists.shape[0], exists.sum()
        for function, reward in zip(self.reward_funcs, rewards_BGF.unbind(-1), strict=True):
            name = getattr(function, "__name__", type(function).__name__)
            self.means.add(f"rewards/{name}/mean", (reward * exists).sum(), num_candidates)
        self.means.add("reward", (rewards * exists).sum(), num_candidates)
        self.means.add("reward_std", group.reward_std.sum(), num_prompts)
        self.means.add("frac_reward_zero_std", group.has_zero_std.sum(), num_prompts)
        self.means.add("hit_rate", is_target(candidates, target).any(-1).sum(), num_prompts)
        variance = group.advantages.square().sum(-1) / (exists.sum(-1) - 1).clamp(min=1)  # their mean is 0
        self.means.add("advantage_std", variance.sqrt().sum(), num_prompts)
        return group.advantages


__all__ = ["LASARGRPOTrainer", "RewardFunc"]
