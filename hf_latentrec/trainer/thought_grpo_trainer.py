"""Reinforcement learning over perturbed thoughts: the base of LR-GRPO and FLR-GRPO.

Shapes: B prompts, K thoughts of a prompt, T answer, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from ..models.latent_reasoning.modeling_outputs import LatentRecOutput
from .advantages import BaselineAdvantage, BatchAdvantage, GroupAdvantage
from .grpo_trainer import RecGRPOTrainer, answer_mask
from .losses import group_mean
from .thought_grpo_config import ThoughtGRPOConfig


class ThoughtGRPOTrainer(RecGRPOTrainer):
    """
    [`RecGRPOTrainer`] whose groups are K samples of a prompt's last thought: `r^1 = r` and `r^k = r + noise`
    (LatentR³ Eq. 5, FLR Eq. 9). An algorithm says what a thought is worth in [`compute_rewards`] and
    [`compute_advantages`].

    All thoughts of a prompt are branches of it, so a prompt is encoded once. Where a step's rollout is trained on
    once, and no advantage depends on another micro-batch, the training forward also gives the rewards; else a forward
    without gradient does, for all micro-batches before the first is trained on. Both give the same gradient.

    The noise of a step is one draw for the global batch, from a generator of its own that is seeded by `args.seed` and
    the step: neither the number of processes nor that of micro-batches changes it, and a resumed run draws what the
    uninterrupted one does. With `beta > 0`, the reference thinks for itself and gets the same noise. Given the
    policy's thought instead, a reference that shares its backbone would be the policy, and the divergence 0.

    Logged besides TRL's names: `reward` and `reward_perturbed` (means over unperturbed and perturbed thoughts),
    `reward_std` (within a group), `frac_reward_zero_std`, `noise_to_thought_norm` (of the perturbed thoughts),
    `entropy` (in nats, of what is predicted after the unperturbed thought). Evaluation returns the same with the
    prefix `eval_`, under noise that is the same in every evaluation; its loss takes each of its batches as a global
    batch.

    Args:
        model (`PreTrainedModel`): the policy, with at least one thought. Its state at this moment is also the
            reference.
        args (`ThoughtGRPOConfig`): settings. Everything but `model.reasoner` is frozen with `train_only_reasoner`.
        kwargs: as for [`LatentTrainer`]; `labels` of a batch are the targets' tokens [B, T].

    Raises:
        ValueError: for a model that does not think, or a reasoner that has nothing to train; while training, for
            targets that the item trie does not hold.
    """

    config_class = ThoughtGRPOConfig

    def prepare_policy(self, model: nn.Module) -> None:
        """Freezes everything but the reasoner, where that is asked for. What is frozen in the reasoner stays so."""
        name, reasoner = type(self).__name__, type(model.reasoner).__name__
        if model.config.num_thoughts == 0:
            raise ValueError(
                f"{name}: the model's num_thoughts is 0, so there is no thought to perturb; train one with "
                "num_thoughts=1"
            )
        if not self.args.train_only_reasoner:
            return
        if isinstance(model, PeftModel):
            raise ValueError(
                f"{name}: train_only_reasoner would freeze the adapter of this PEFT model; pass "
                "train_only_reasoner=False, or merge the adapter with model.merge_and_unload()"
            )
        if not any(parameter.requires_grad for parameter in model.reasoner.parameters()):
            raise ValueError(
                f"{name}: {reasoner} has no parameters to train; pass train_only_reasoner=False, or a model whose "
                'reasoner has some that require a gradient, such as reasoner="latent_attention"'
            )
        for path, parameter in model.named_parameters():
            if not path.startswith("reasoner."):
                parameter.requires_grad_(False)

    # What an algorithm says

    def compute_rewards(self, rollout: dict[str, Any], output: LatentRecOutput) -> torch.Tensor:
        """
        What each thought is worth; records what makes it up.

        Args:
            rollout (`dict`): of a micro-batch; `labels` [B, T] are the targets.
            output (`LatentRecOutput`): the model's for the rollout, `logps` [B, K, T] among it, and what
                [`reward_arguments`] ask for.

        Returns:
            `torch.Tensor` [B, K]: rewards, the unperturbed thought's first.
        """
        raise NotImplementedError

    def compute_advantages(self, rewards: torch.Tensor) -> BaselineAdvantage | BatchAdvantage | GroupAdvantage:
        """Advantages [B, K] of rewards [B, K], and which groups have equal rewards [B]."""
        raise NotImplementedError

    @property
    def advantages_span_groups(self) -> bool:
        """Whether the advantages of a group depend on the rewards of others."""
        return False

    @property
    def reward_arguments(self) -> dict[str, Any]:
        """What the model's forward is given besides, where it gives rewards."""
        return {}

    # Rollout

    def roll_out(self, model, batches, generator):
        """Noise [B, K, D] of every prompt; advantages [B, K] where the training forward does not give them."""
        for batch in batches:
            self.check_targets(batch["labels"], batch.get("user_ids", ()))
        rollouts = [
            {
                **{name: batch[name] for name in ("input_ids", "attention_mask", "labels")},
                "thought_noise": noise_BKD,
                "user_ids": batch.get("user_ids", ()),
            }
            for batch, noise_BKD in zip(batches, self.draw_noise(batches, generator), strict=True)
        ]
        if not self.training_forward_gives_rewards(len(batches)):
            self.add_advantages(rollouts, [self.reward_rollout(model, rollout) for rollout in rollouts])
        return rollouts

    def training_forward_gives_rewards(self, num_batches: int) -> bool:
        """Whether log-probabilities of the training forward are the rollout's, and enough for the advantages."""
        is_first_look = self.args.num_iterations == 1 and self.args.disable_dropout
        return is_first_look and (num_batches == 1 or not self.advantages_span_groups)

    def reward_rollout(self, model: nn.Module, rollout: dict[str, Any]) -> torch.Tensor:
        """Rewards [B, K] by a forward of their own; its log-probabilities stay in the rollout if they are needed."""
        output = self.score(model, rollout, **self.reward_arguments)
        if self.args.num_iterations > 1:
            rollout["old_logps"] = output.logps
        return self.compute_rewards(rollout, output)

    def draw_noise(self, batches: Sequence[dict[str, Any]], generator: torch.Generator) -> list[torch.Tensor]:
        """The noise [B, K, D] per micro-batch, 0 for the first thought: its rows of one draw for the global batch."""

        def draw(num_prompts: int) -> torch.Tensor:
            shape = (num_prompts, self.args.num_generations - 1, self.model.config.hidden_size)
            return torch.randn(shape, generator=generator) * self.args.noise_std

        parts = self.draw_for_global_batch(batches, draw)
        return [nn.functional.pad(noise, (0, 0, 1, 0)).to(self.args.device) for noise in parts]

    def add_advantages(self, rollouts: Sequence[dict[str, Any]], rewards: Sequence[torch.Tensor]) -> None:
        """Puts the advantages [B, K] of rewards [B, K] into the rollouts of a step; records what the rewards say."""
        rewards_BK = torch.cat(list(rewards))
        advantage = self.compute_advantages(rewards_BK)
        parts = advantage.advantages.split([len(rollout["labels"]) for rollout in rollouts])
        for rollout, advantages in zip(rollouts, parts, strict=True):
            rollout["advantages"] = advantages
        num_prompts, perturbed = len(rewards_BK), rewards_BK[:, 1:]
        self.means.add("reward", rewards_BK[:, 0].sum(), num_prompts)
        self.means.add("reward_perturbed", perturbed.sum(), perturbed.numel())
        self.means.add("reward_std", rewards_BK.std(-1).sum(), num_prompts)
        self.means.add("frac_reward_zero_std", advantage.has_zero_std.sum(), num_prompts)

    # Loss

    def score(self, model, inputs, **kwargs):
        """The model's output under the rollout's noise."""
        relative = self.args.noise_scale == "relative"
        return super().score(model, inputs, thought_noise=inputs["thought_noise"], relative_noise=relative, **kwargs)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The clipped objective and `beta` times the KL divergence; rewards first, where the rollout left them."""
        gives_rewards = "advantages" not in inputs
        arguments = self.reward_arguments if gives_rewards else {}
        output = self.score(model, inputs, output_entropy=True, **arguments)
        with torch.no_grad():
            if gives_rewards:
                self.add_advantages([inputs], [self.compute_rewards(inputs, output)])
            self.record_thoughts(output, inputs)
        return self.policy_terms(output.logps, inputs, num_items_in_batch), output

    def record_thoughts(self, output: LatentRecOutput, inputs: dict[str, Any]) -> None:
        """Records the entropy after the unperturbed thought, and how long the noise is against the thought."""
        mask_B1T = answer_mask(inputs["labels"], output.logps)[:, :1]
        self.means.add("entropy", group_mean(output.entropy[:, None], mask_B1T).sum(), len(mask_B1T))
        noise_BK = inputs["thought_noise"][:, 1:].float().norm(dim=-1)
        thought_BD = output.thought_embeds[:, -1].float()
        # Relative noise is multiplied with the root mean square, |thought| / sqrt(D).
        is_relative = self.args.noise_scale == "relative"
        length_B = thought_BD.shape[-1] ** 0.5 if is_relative else thought_BD.norm(dim=-1, keepdim=True)
        self.means.add("noise_to_thought_norm", (noise_BK / length_B).sum(), noise_BK.numel())


__all__ = ["ThoughtGRPOTrainer"]
