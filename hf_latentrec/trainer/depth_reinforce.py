"""REINFORCE on the number of thoughts (LASAR Eq. 6), for a trainer with rewards.

Shapes: B prompts, G candidate answers of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..models.latent_reasoning.modeling_outputs import LatentRecGenerateOutput
from .grpo_trainer import RecGRPOTrainer
from .lasar_grpo_config import LASARGRPOConfig
from .reward_baseline import RewardBaseline
from .thought_losses import depth_entropy, reinforce_loss


REINFORCE_COEF = 0.01  # Table 7; where there is a depth policy and the configuration leaves it open


class DepthReinforceMixin(RecGRPOTrainer):
    """
    Draws the depths of a model that chooses them, keeps them for every score of a rollout, and adds REINFORCE to the
    terms; does nothing for other models. See [`LASARGRPOTrainer`].
    """

    args: LASARGRPOConfig

    def prepare_reinforce(self) -> None:
        """Settles the weight of REINFORCE; refuses one without a depth policy."""
        coef = self.args.reinforce_coef
        self.is_adaptive = self.accelerator.unwrap_model(self.model).depth_policy is not None
        if coef and not self.is_adaptive:
            raise ValueError(
                f"{type(self).__name__}: reinforce_coef is {coef}, but the model has no depth policy; pass "
                "reinforce_coef=0, or a model with adaptive depth"
            )
        self.reinforce_coef = (REINFORCE_COEF if self.is_adaptive else 0.0) if coef is None else coef
        if self.reinforce_coef > 0:
            self.add_callback(RewardBaseline())

    @property
    def trains_depth_policy(self) -> bool:
        """Unless REINFORCE is switched off."""
        return self.args.reinforce_coef != 0

    @property
    def reward_baseline(self) -> RewardBaseline:
        """The callback that holds it; a resumed run puts another one in its place."""
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, RewardBaseline))

    def train(self, *args, **kwargs):
        """See [`~transformers.Trainer.train`]."""
        if self.reinforce_coef > 0:
            self.reward_baseline.value = None  # a checkpoint brings its own
        return super().train(*args, **kwargs)

    # Rollout

    def draw_depth_noise(
        self, batches: Sequence[dict[str, Any]], generator: torch.Generator
    ) -> list[torch.Tensor | None]:
        """Per micro-batch, the numbers [B] in [0, 1) that draw depths; None for a model that does not choose them."""
        if not self.is_adaptive:
            return [None] * len(batches)
        parts = self.draw_for_global_batch(batches, lambda count: torch.rand(count, generator=generator))
        return [noise.to(self.args.device) for noise in parts]

    def depths_of_rollout(
        self, output: LatentRecGenerateOutput, rewards: torch.Tensor, exists: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        What a rollout keeps of its depths; records them.

        Args:
            output (`LatentRecGenerateOutput`): with the drawn depths.
            rewards (`torch.Tensor` [B, G]): of the candidates that followed.
            exists (`torch.BoolTensor` [B, G]): which of them there are.

        Returns:
            `dict`: `num_thoughts` [B] and `depth_rewards` [B], the mean over a prompt's candidates.
        """
        if not self.is_adaptive:
            return {}
        depths, num_prompts = output.num_thoughts, len(output.num_thoughts)
        self.means.add("depth/mean", depths.sum(), num_prompts)
        self.means.add("depth/entropy", depth_entropy(output.depth_logits).sum(), num_prompts)
        for depth in range(1, output.depth_logits.shape[-1] + 1):
            self.means.add(f"depth/share_{depth}", (depths == depth).sum(), num_prompts)
        depth_rewards = (rewards * exists).sum(-1) / exists.sum(-1).clamp(min=1)
        return {"num_thoughts": depths, "depth_rewards": depth_rewards}

    def _roll_out(self, model, batches, stream, index):
        """As in [`RecGRPOTrainer`]; the rollouts of a step also get the baseline that earlier steps left."""
        rollouts = super()._roll_out(model, batches, stream, index)
        if self.reinforce_coef > 0:
            rewards = torch.cat([rollout["depth_rewards"] for rollout in rollouts])
            total, count = self._sum_over_processes(
                torch.stack([rewards.sum(), rewards.new_tensor(len(rewards))])
            ).tolist()
            baseline = self.reward_baseline.current(total / count)
            rollouts = [{**rollout, "reward_baseline": baseline} for rollout in rollouts]
            self.means.add("reward_baseline", rewards.new_tensor(baseline), 1)
            if stream == "train":
                self.reward_baseline.update(total / count, self.args.reinforce_baseline_decay)
        return rollouts

    # Loss

    def score(self, model, inputs, **kwargs):
        """The model's output for a rollout, with the depths that were drawn."""
        depths = {"num_thoughts": inputs["num_thoughts"]} if self.is_adaptive else {}
        return super().score(model, inputs, **depths, **kwargs)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The clipped objective, the KL divergence, and REINFORCE."""
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        if self.reinforce_coef > 0:
            loss = reinforce_loss(
                output.depth_logits,
                inputs["num_thoughts"],
                inputs["depth_rewards"],
                inputs["reward_baseline"],
                self.args.reinforce_n_penalty,
                self.args.reinforce_entropy,
            )
            terms["reinforce"] = self.reinforce_coef * loss.sum() / num_items_in_batch
        return terms, output


__all__ = ["DepthReinforceMixin"]
