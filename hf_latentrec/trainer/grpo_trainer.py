"""The base of all reinforcement learning of LLM recommenders: the clipped objective over tokens, and the KL divergence
to a reference.

Shapes: B prompts, G of a group, T answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..models.latent_reasoning.modeling_outputs import LatentRecOutput
from .grpo_config import RecGRPOConfig
from .latent_trainer import LatentTrainer
from .losses import clipped_policy_loss, group_mean, kl_k3
from .rewards import IGNORE_INDEX
from .rollout_trainer import RolloutTrainer


class RecGRPOTrainer(RolloutTrainer, LatentTrainer):
    """
    [`RolloutTrainer`] for LLM recommenders, whose answers are tokens. An algorithm overrides [`roll_out`], which says
    what is compared and what it is worth, and where needed [`prepare_policy`], [`score`] and [`compute_terms`].

    The loss is a mean over the prompts of the global batch. Logged under TRL's names.

    Args:
        model (`PreTrainedModel`): the policy. Its state at this moment is also the reference, which shares the
            parameters that are frozen.
        args (`RecGRPOConfig`): settings.
        kwargs: as for [`LatentTrainer`].

    Raises:
        ValueError: as [`RolloutTrainer`] and [`LatentTrainer`].
    """

    config_class = RecGRPOConfig

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss is a mean over prompts."""
        return torch.tensor(len(batch["labels"]), device=batch["labels"].device)

    # Rollout

    def score(self, model: nn.Module, inputs: dict[str, Any], **kwargs) -> LatentRecOutput:
        """The model's output for a rollout; `logps` [B, G, T] are those of the tokens that it is judged by."""
        names = ("input_ids", "attention_mask", "labels")
        return model(**{name: inputs[name] for name in names}, item_trie=self.loss_item_trie, **kwargs)

    def check_targets(self, labels: torch.Tensor, user_ids: Sequence[str]) -> None:
        """Raises a `ValueError` for a target without tokens, or one that the item trie does not hold."""
        name = type(self).__name__
        if labels.dim() != 2:
            raise ValueError(
                f"{name}: labels have the shape {tuple(labels.shape)}; give one target per prompt [B, T], as "
                "NextItemCollator does"
            )
        num_tokens = (labels != IGNORE_INDEX).sum(-1)
        known = num_tokens > 0
        if self.item_trie is not None:
            known &= self.item_trie.is_leaf(self.item_trie.walk(labels).gather(1, num_tokens[:, None])[:, 0])
        if not known.all():
            row = int(known.logical_not().nonzero()[0])
            who = f"user {user_ids[row]!r}" if user_ids else f"row {row} of the batch"
            tokens = [token for token in labels[row].tolist() if token != IGNORE_INDEX]
            raise ValueError(
                f"{name}: the target of {who} has the tokens {tokens}, which are no answer of the item trie; leave "
                "the example out, or build trie and targets from one catalog"
            )

    # Loss

    def policy_terms(
        self, logps: torch.Tensor, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        The clipped objective and `beta` times the KL divergence, as means over the prompts of the global batch.

        Args:
            logps (`torch.Tensor` [B, G, T]): log-probabilities under the policy, with gradient.
            inputs (`dict`): the rollout. `labels` are [B, G, T], or [B, T] where all of a group share one answer.
            num_items_in_batch (`torch.Tensor`): prompts of the global batch.

        Returns:
            `dict`: named terms.
        """
        args = self.args
        mask = answer_mask(inputs["labels"], logps)
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
        return terms


def answer_mask(labels: torch.Tensor, logps: torch.Tensor) -> torch.Tensor:
    """True for the tokens [B, G, T] of log-probabilities that exist; labels [B, T] are those of the whole group."""
    mask = labels != IGNORE_INDEX
    return (mask if mask.dim() == 3 else mask[:, None]).expand(logps.shape)


__all__ = ["RecGRPOTrainer", "answer_mask"]
