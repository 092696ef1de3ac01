"""FLR's reinforcement learning: FLR-GRPO over perturbed thoughts.

Shapes: B prompts, K thoughts of a prompt, T answer.
"""

from __future__ import annotations

import torch

from .advantages import baseline_advantage
from .factor_losses import FactorLossMixin
from .flr_grpo_config import FLRGRPOConfig
from .rewards import IGNORE_INDEX, hybrid_reward, mean_logps
from .thought_grpo_trainer import ThoughtGRPOTrainer


class FLRGRPOTrainer(FactorLossMixin, ThoughtGRPOTrainer):
    """
    FLR-GRPO (FLR, section 4.2): K samples of the refined thought (Eq. 9), hybrid rewards (Eq. 10), advantages relative
    to the unperturbed sample of the group (Eq. 11), the clipped objective with the KL divergence to the reference
    (Eq. 12), and the factor losses of the unperturbed thought (Eq. 13). See [`ThoughtGRPOTrainer`] for the thoughts
    and their noise.

    An exact match needs no generation: greedy search over the catalog answers with the target if and only if every
    token of it is the most probable child of those before it. So one forward gives the log-probabilities and the
    rewards.

    As LR-GRPO's objective, Eq. 12 scores the *target* after every thought: perturbed thoughts that do worse than the
    unperturbed one make it less likely, those that do better more so. The unperturbed thought itself has the
    advantage 0 and is moved by what it shares with its samples.

    Logged besides what [`ThoughtGRPOTrainer`] logs: `exact_match` and `exact_match_perturbed`, `confidence` (the mean
    log-probability of a target's tokens after the unperturbed thought), and what [`FactorLossMixin`] logs.

    Args:
        model (`PreTrainedModel`): the policy, with reasoner "factorized_attention". Its state at this moment is also
            the reference, which shares everything but the reasoner.
        args (`FLRGRPOConfig`): settings. Everything but `model.reasoner` is frozen with `train_only_reasoner`.
        kwargs: as for [`LatentTrainer`]; `labels` of a batch are the targets' tokens [B, T]. An item trie is needed.

    Raises:
        ValueError: as [`ThoughtGRPOTrainer`], or for a model without factors.

    Example:
        >>> trainer = FLRGRPOTrainer(
        ...     model,
        ...     FLRGRPOConfig("out", num_generations=8, noise_std=0.5, noise_scale="relative"),
        ...     data_collator=collator,
        ...     train_dataset=dataset,
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = FLRGRPOConfig

    def prepare_policy(self, model):
        """Also says which weights of losses are learned, before everything but the reasoner is frozen."""
        self.prepare_factor_losses(model)
        super().prepare_policy(model)

    @property
    def needs_item_trie(self) -> bool:
        """Always: an exact match is one among the answers of the catalog."""
        return True

    @property
    def reward_arguments(self):
        """The catalog, under which greedy search would answer."""
        return {"greedy_trie": self.item_trie}

    def compute_rewards(self, rollout, output):
        """Rewards [B, K] of Eq. 10."""
        mask_BT = rollout["labels"] != IGNORE_INDEX
        matches_BK = output.greedy_matches
        self.means.add("exact_match", matches_BK[:, 0].sum(), len(matches_BK))
        self.means.add("exact_match_perturbed", matches_BK[:, 1:].sum(), matches_BK[:, 1:].numel())
        self.means.add("confidence", mean_logps(output.logps[:, :1], mask_BT).sum(), len(matches_BK))
        return hybrid_reward(
            output.logps, mask_BT, matches_BK, self.args.reward_confidence_weight, self.args.reward_match_weight
        )

    def compute_advantages(self, rewards):
        """Relative to the unperturbed thought of the group (Eq. 11)."""
        return baseline_advantage(rewards)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """Those of [`ThoughtGRPOTrainer`], and the factor losses."""
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        every_thought_B = torch.ones(len(inputs["labels"]), dtype=torch.bool, device=inputs["labels"].device)
        return {**terms, **self.factor_terms(output, inputs, every_thought_B, num_items_in_batch)}, output


__all__ = ["FLRGRPOTrainer"]
