"""LASAR's reinforcement learning: GRPO over the candidates of constrained beam search."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .advantages import group_advantage
from .grpo_config import LASARGRPOConfig
from .losses import clipped_policy_loss, group_mean, kl_k3
from .rec_trainer import RecTrainer
from .rewards import IGNORE_INDEX, is_target, ndcg_reward, rule_reward


RewardFunc = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LASARGRPOTrainer(RecTrainer):
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
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError("LASARGRPOTrainer: beam search needs the whole model on each process; use DDP")
        self.reward_funcs = list(self.default_reward_funcs if reward_funcs is None else reward_funcs)
        weights = [1.0] * len(self.reward_funcs) if args.reward_weights is None else args.reward_weights
        if len(weights) != len(self.reward_funcs):
            raise ValueError(
                f"LASARGRPOTrainer: {len(weights)} reward_weights for {len(self.reward_funcs)} reward functions; pass "
                "one weight per function"
            )
        self.reward_weights = torch.tensor(weights, device=args.device)
        self.ref_model = None
        if args.beta > 0:
            self.ref_model = copy.deepcopy(self.accelerator.unwrap_model(self.model)).eval().requires_grad_(False)
        # Rollouts that a later iteration comes back to, in the order of their batches.
        self._rollouts: deque[dict[str, Any]] = deque()

    @property
    def needs_item_trie(self) -> bool:
        """Always: the candidates come from constrained beam search."""
        return True

    def sampler_kwargs(self) -> dict[str, Any]:
        """The batches of an optimizer step come `num_iterations` times in a row."""
        return {
            "repeat_count": self.args.num_iterations,
            "steps_per_block": self.args.gradient_accumulation_steps,
        }

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss is a mean over prompts."""
        return torch.tensor(len(batch["labels"]), device=batch["labels"].device)

    # Rollout

    def train(self, *args, **kwargs):
        """See [`~transformers.Trainer.train`]."""
        self._rollouts.clear()
        return super().train(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch=None) -> torch.Tensor:
        """Rolls out in the first of `num_iterations` steps on a batch, then trains on the candidates."""
        iteration = self.state.global_step % self.args.num_iterations
        if iteration == 0:
            rollout = self.roll_out(inputs)
        elif self._rollouts:
            rollout = self._rollouts.popleft()
        else:
            raise ValueError(
                f"LASARGRPOTrainer: step {self.state.global_step} is iteration {iteration} of "
                f"{self.args.num_iterations} on candidates that were not saved; resume from a checkpoint whose step "
                "is a multiple of num_iterations"
            )
        if iteration < self.args.num_iterations - 1:
            self._rollouts.append(rollout)
        return super().training_step(model, rollout, num_items_in_batch)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Rolls out and computes the loss; what tells more is in the logged rewards."""
        return super().prediction_step(model, self.roll_out(inputs), True, ignore_keys)

    @torch.no_grad()
    def roll_out(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """
        Candidates of a batch's prompts with all that stays fixed while training on them.

        Args:
            inputs (`dict`): a batch; `labels` are the targets' tokens [B, T].

        Returns:
            `dict`: prompts, `labels` (candidates [B, G, T], best first, -100 = padding), `advantages` [B, G], and
            where needed `old_logps` and `ref_logps` [B, G, T].
        """
        inputs = self._prepare_inputs(inputs)
        prompt = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        policy = self.accelerator.unwrap_model(self.model)
        with eval_mode(policy), self.accelerator.autocast():
            candidates = self.generate_candidates(policy, prompt, inputs["labels"])
            rollout = {**prompt, "labels": candidates, "advantages": self.advantages(candidates, inputs["labels"])}
            if self.args.num_iterations > 1:
                rollout["old_logps"] = self.candidate_logps(policy, rollout)
            if self.ref_model is not None:
                rollout["ref_logps"] = self.candidate_logps(self.ref_model, rollout)
        return {**rollout, "user_ids": inputs.get("user_ids", ())}

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

    # Loss

    def candidate_logps(self, model: nn.Module, rollout: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities [B, G, T] of the candidates' tokens."""
        names = ("input_ids", "attention_mask", "labels")
        return model(**{name: rollout[name] for name in names}, item_trie=self.loss_item_trie).logps

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The clipped objective and `beta` times the KL divergence, as means over the prompts of the global batch."""
        args = self.args
        if args.disable_dropout:
            model.eval()
        logps = self.candidate_logps(model, inputs)
        mask = inputs["labels"] != IGNORE_INDEX
        policy = clipped_policy_loss(
            logps,
            inputs.get("old_logps", logps.detach()),
            inputs["advantages"],
            mask,
            args.epsilon,
            args.epsilon_high,
        )
        num_prompts = len(mask)
        self.means.add("clip_ratio/low_mean", policy.clip_low.sum(), num_prompts)
        self.means.add("clip_ratio/high_mean", policy.clip_high.sum(), num_prompts)
        terms = {"policy": policy.loss.sum() / num_items_in_batch}
        if self.ref_model is not None:
            kl = group_mean(kl_k3(logps, inputs["ref_logps"]), mask).sum()
            self.means.add("kl", kl, num_prompts)
            terms["kl"] = args.beta * kl / num_items_in_batch
        return terms, {"logps": logps}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout off and restores the mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


__all__ = ["LASARGRPOTrainer", "RewardFunc"]
