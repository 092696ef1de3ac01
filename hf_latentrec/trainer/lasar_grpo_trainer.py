"""LASAR's reinforcement learning: GRPO over the candidates of constrained beam search, REINFORCE on the number of
thoughts, and the alignment of the last one.

Shapes: B prompts, G candidate answers of a prompt, T answer, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..cot.collator import AnchoredCollator
from ..models.latent_reasoning.modeling_outputs import LatentRecGenerateOutput, LatentRecOutput
from .advantages import group_advantage
from .candidate_groups import candidate_diversity, repair_groups
from .cot_coverage import check_anchors, check_coverage
from .depth_reinforce import DepthReinforceMixin
from .lasar_grpo_config import LASARGRPOConfig
from .rewards import IGNORE_INDEX, is_target, ndcg_reward, pad_answers, rule_reward
from .thought_losses import thought_alignment


if TYPE_CHECKING:
    from ..cot.anchors import AnchorStore

RewardFunc = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

TERMINAL_KL_WEIGHT = 1e-5  # Table 7; where there are anchors and the configuration leaves it open


class LASARGRPOTrainer(DepthReinforceMixin):
    """
    LASAR's third stage (section 2.4, App. E.4 and E.5), `L = L_GRPO + gamma_KL L_terminal + gamma_RF L_REINFORCE`:
    G candidates per prompt from constrained beam search, rule + NDCG reward, group advantages, clipped objective and
    KL to a frozen reference; with anchors, the alignment of the last thought with the last anchor; with adaptive
    depth, REINFORCE (Eq. 6). Without the latter two it is the GRPO of MiniOneRec.

    A step rolls out with the unwrapped model (no gradient, no dropout), then scores all candidates of a prompt as
    branches of one encoded prompt with the wrapped model. With adaptive depth a rollout draws one depth per prompt,
    which all its candidates share and which policy, old policy and reference are then scored with; the draws of a step
    are the same for any number of processes. Terms are means over the prompts of the global batch, the alignment over
    those with a reasoning text.

    The reward of a depth is the mean reward of the candidates that followed it, before any repair; its baseline is a
    moving average over global batches, the first one's own mean at first, which checkpoints keep. Depths of later
    iterations on one rollout are not weighted by a ratio.

    Logged under TRL's names, and `hit_rate` and `frac_no_hit` (the shares of groups with and without the target),
    `candidate_diversity`, `frac_repaired`; with adaptive depth `depth/mean`, `depth/share_1` ..., `depth/entropy` and
    `reward_baseline`; with anchors `terminal_kl` (without its weight) and `cot/missing`. `reward` and `hit_rate` are
    those of beam search's candidates, what tells of advantages is that of repaired groups.

    Args:
        model (`PreTrainedModel`): the policy. Its state at this moment is also the reference.
        args (`LASARGRPOConfig`): settings.
        reward_funcs (`list[Callable]`, *optional*): functions of candidates [B, G, T] and targets [B, T] that return
            rewards [B, G]; by default [`rule_reward`] and [`ndcg_reward`].
        anchors (`AnchorStore`, *optional*): of the training examples' reasoning texts.
        kwargs: as for [`LatentTrainer`]; `labels` of a batch are the targets' tokens [B, T].

    Raises:
        ValueError: where the number of reward weights is not that of rewards, a part lacks what it needs, anchors do
            not fit the model, or the model would be sharded.

    Example:
        >>> trainer = LASARGRPOTrainer(
        ...     model,
        ...     LASARGRPOConfig("out", num_generations=8),
        ...     anchors=AnchorStore.open("anchors"),
        ...     data_collator=collator,
        ...     train_dataset=dataset,
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LASARGRPOConfig
    default_reward_funcs: Sequence[RewardFunc] = (rule_reward, ndcg_reward)

    def __init__(
        self,
        model: nn.Module,
        args: LASARGRPOConfig,
        *,
        reward_funcs: Sequence[RewardFunc] | None = None,
        anchors: AnchorStore | None = None,
        **kwargs,
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
        self.prepare_reinforce()
        self.prepare_terminal_kl(anchors)

    def prepare_terminal_kl(self, anchors: AnchorStore | None) -> None:
        """Settles the weight of the alignment; with it, batches get their anchors."""
        name, weight = type(self).__name__, self.args.terminal_kl_weight
        if weight and anchors is None:
            raise ValueError(
                f"{name}: terminal_kl_weight is {weight}, which needs anchors; pass anchors=AnchorStore.open(...), or "
                "terminal_kl_weight=0"
            )
        self.terminal_kl_weight = (0.0 if anchors is None else TERMINAL_KL_WEIGHT) if weight is None else weight
        if self.terminal_kl_weight > 0:
            check_anchors(name, anchors, self.accelerator.unwrap_model(self.model))
            if self.train_dataset is not None:
                check_coverage(name, anchors, self.train_dataset)
            self.data_collator = AnchoredCollator(self.data_collator, anchors)

    @property
    def needs_item_trie(self) -> bool:
        """Always: the candidates come from constrained beam search."""
        return True

    def count_others(self, batch):
        """Also the prompts with a reasoning text, over which the alignment is a mean."""
        return {"with_cot": (batch["num_segments"] > 0).sum()} if "num_segments" in batch else {}

    # Rollout

    def roll_out(self, model, batches, generator):
        """
        Candidates [B, G, T] of every prompt, best first and padded with -100, with their advantages [B, G]; with
        adaptive depth also the depth [B] that was drawn and its reward [B], with anchors the last of them [B, D].
        """
        policy = self.accelerator.unwrap_model(self.model)
        noise = self.draw_depth_noise(batches, generator)
        return [self.roll_out_batch(policy, *of_batch) for of_batch in zip(batches, noise, strict=True)]

    def roll_out_batch(
        self, policy: nn.Module, batch: dict[str, Any], depth_noise: torch.Tensor | None
    ) -> dict[str, Any]:
        """The rollout of one micro-batch."""
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
        target, user_ids = batch["labels"], batch.get("user_ids", ())
        candidates, output = self.generate_candidates(policy, prompt, target, depth_noise)
        target = pad_answers(target, candidates.shape[-1])
        rewards = self.record_rewards(candidates, target)
        depths = self.depths_of_rollout(output, rewards, exists(candidates))
        if self.args.group_repair == "target":
            self.check_targets(target, user_ids)
            candidates, repaired = repair_groups(candidates, target)
            self.means.add("frac_repaired", repaired.sum(), len(repaired))
            rewards = self.weighted_rewards(candidates, target)[0]
        return {
            **prompt,
            "labels": candidates,
            "advantages": self.compute_advantages(rewards, exists(candidates)),
            "user_ids": user_ids,
            **depths,
            **self.last_anchors(batch),
        }

    def generate_candidates(
        self,
        policy: nn.Module,
        prompt: dict[str, torch.Tensor],
        target: torch.Tensor,
        depth_noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, LatentRecGenerateOutput]:
        """
        The answers [B, G, T] of constrained beam search, best first; -100 where the catalog has fewer than G. T is at
        least the length of the targets. Also what `generate` gave.
        """
        longest = self.item_trie.max_depth
        if target.dim() != 2 or target.shape[-1] > longest:
            raise ValueError(
                f"LASARGRPOTrainer: labels have the shape {tuple(target.shape)}, but the catalog's longest answer has "
                f"{longest} tokens; give one target of at most {longest} tokens per prompt"
            )
        output = policy.generate(
            **prompt,
            item_trie=self.item_trie,
            num_beams=self.args.num_generations,
            num_return_sequences=self.args.num_generations,
            normalize=self.args.normalize,
            depth_noise=depth_noise,
        )
        # Both are as wide as their longest, which differs where answers differ in length.
        num_tokens = max(output.sequences.shape[-1], target.shape[-1])
        # Rows of a prompt follow each other, so a row's rank is its distance from the prompt's first row.
        user_R = output.user_indices
        rank_R = torch.arange(len(user_R), device=user_R.device) - torch.searchsorted(user_R, user_R)
        candidates = target.new_full((len(target), self.args.num_generations, num_tokens), IGNORE_INDEX)
        candidates[user_R, rank_R] = pad_answers(output.sequences, num_tokens)
        return candidates, output

    def weighted_rewards(self, candidates: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted sum of rewards [B, G], and what each function gave without its weight [B, G, F]."""
        rewards_BGF = torch.stack([function(candidates, target).float() for function in self.reward_funcs], dim=-1)
        return (rewards_BGF * self.reward_weights).sum(-1), rewards_BGF

    def record_rewards(self, candidates: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The rewards [B, G] of what beam search found; records what they are made of."""
        rewards, rewards_BGF = self.weighted_rewards(candidates, target)
        exists_BG, num_prompts = exists(candidates), len(candidates)
        num_candidates = exists_BG.sum()
        for function, reward in zip(self.reward_funcs, rewards_BGF.unbind(-1), strict=True):
            name = getattr(function, "__name__", type(function).__name__)
            self.means.add(f"rewards/{name}/mean", (reward * exists_BG).sum(), num_candidates)
        self.means.add("reward", (rewards * exists_BG).sum(), num_candidates)
        has_hit = is_target(candidates, target).any(-1)
        self.means.add("hit_rate", has_hit.sum(), num_prompts)
        self.means.add("frac_no_hit", (~has_hit).sum(), num_prompts)
        self.means.add("candidate_diversity", candidate_diversity(candidates).sum(), num_prompts)
        return rewards

    def compute_advantages(self, rewards: torch.Tensor, exists_BG: torch.Tensor) -> torch.Tensor:
        """Group advantages [B, G] of rewards [B, G]; records what the rewards say."""
        group = group_advantage(rewards, exists_BG, scale=self.args.scale_rewards == "group")
        num_prompts = len(rewards)
        self.means.add("reward_std", group.reward_std.sum(), num_prompts)
        self.means.add("frac_reward_zero_std", group.has_zero_std.sum(), num_prompts)
        variance = group.advantages.square().sum(-1) / (exists_BG.sum(-1) - 1).clamp(min=1)  # their mean is 0
        self.means.add("advantage_std", variance.sqrt().sum(), num_prompts)
        return group.advantages

    def last_anchors(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Of a batch with anchors, the last of each prompt's [B, D], and the numbers of segments [B]."""
        if self.terminal_kl_weight == 0:
            return {}
        num_segments = batch["num_segments"]
        self.means.add("cot/missing", (num_segments == 0).sum(), len(num_segments))
        return {"last_anchors": pick(batch["anchors"], num_segments), "num_segments": num_segments}

    # Loss

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The clipped objective, the KL divergence, the alignment of the last thought, and REINFORCE."""
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        if self.terminal_kl_weight > 0:
            terms["terminal_kl"] = self.terminal_kl_weight * self.terminal_kl(output, inputs)
        return terms, output

    def terminal_kl(self, output: LatentRecOutput, inputs: dict[str, Any]) -> torch.Tensor:
        """Distance of the last thought from the last anchor: a batch's part of the mean over prompts with a text."""
        has_cot = inputs["num_segments"] > 0
        distance = thought_alignment(pick(output.thoughts, output.num_thoughts), inputs["last_anchors"])
        total = distance.masked_fill(~has_cot, 0.0).sum()
        self.means.add("terminal_kl", total, has_cot.sum())
        return total / self.global_counts["with_cot"].clamp(min=1)


def exists(candidates: torch.Tensor) -> torch.Tensor:
    """True for the candidates [B, G] that hold a token."""
    return (candidates != IGNORE_INDEX).any(-1)


def pick(vectors_BND: torch.Tensor, number_B: torch.Tensor) -> torch.Tensor:
    """The vector [B, D] of each row's 1-based number; the first where that is 0."""
    index = (number_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, vectors_BND.shape[-1])
    return vectors_BND.gather(1, index)[:, 0]


__all__ = ["LASARGRPOTrainer", "RewardFunc"]
