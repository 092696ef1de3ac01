"""LARES' reinforcement post-training: GRPO over trajectories of reasoning.

Shapes: B rows, L positions, D hidden, N samples (labels of the batch, row by row), G rollouts of a sample, K steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..data.sequence_collator import NumberedCollator
from ..data.sequences import SequenceDataset
from ..models.lares.rollouts import RolloutOutput
from ..models.modes import eval_mode, in_mode
from .advantages import group_advantage
from .data_selection import SelectedSamples
from .initial_states import initial_states
from .lares_grpo_config import LaresGRPOConfig
from .losses import clipped_policy_loss, kl_k3
from .rewards import IGNORE_INDEX, rank_ndcg_reward, recall_reward
from .rollout_trainer import RolloutTrainer
from .sequence_checks import check_sequences


REWARD_FUNCS = {"recall": recall_reward, "ndcg": rank_ndcg_reward}


class LaresGRPOTrainer(RolloutTrainer):
    r"""
    RPT (LARES, section 2.4): every sample, a history and its next item, is reasoned about G times, from initial states
    T_0 of its own. A rollout's reward is a metric of the last step's ranking, its advantage the z-score within the
    sample's group, and its policy the joint probability of an item over all steps (Eq. 11, 12):

    $$\log \pi(y_i | x) = \sum_{j=1}^k \log \mathrm{softmax}(t_{i,j} E^\top)_v$$

    All prefixes of a history that a row holds are samples, and the pre-block runs once for all rollouts of a row. The
    loss is a mean over the samples of the global batch and their rollouts. The ratio is that of the joint
    probabilities; the divergence is that of the joint distribution, so its k3 terms are summed over the steps, too.
    The reference reasons from initial states of its own. An initial state belongs to a step, a sequence and a place in
    it: neither the number of processes nor the layout of a batch changes it, nor a restart. Since the judged item is
    not drawn from the policy, the k3 term is a penalty for moving away from the reference, not an estimate of a
    divergence. With the policy `"target"` and one iteration, the training forward ranks the rollouts, too; else a
    forward without gradient does so before.

    A group whose rewards are all equal has no advantages, so it adds nothing but its divergence. With Recall@k these
    are most groups: see `frac_reward_zero_std`.

    Logged under TRL's names: `reward`, `reward_std` (within a group), `frac_reward_zero_std`, `kl` (without `beta`),
    `clip_ratio/low_mean`, `clip_ratio/high_mean`.

    Args:
        model ([`LaresForSequentialRecommendation`]): the policy. Its state at this moment is also the reference.
        args ([`LaresGRPOConfig`]): settings.
        train_dataset (`SequenceDataset` or [`SelectedSamples`], *optional*): packed for a causal model.
        kwargs: as for [`RecTrainer`]; batches are those of a [`NumberedCollator`].

    Raises:
        ValueError: as [`RolloutTrainer`]; for a data set that does not fit the model, or a model without random
            initial states that has no dropout either, whose rollouts would all be the same.

    Example:
        >>> trainer = LaresGRPOTrainer(
        ...     model,
        ...     LaresGRPOConfig("out", reward="ndcg"),
        ...     train_dataset=SelectedSamples(dataset, select_samples(model, dataset)),
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LaresGRPOConfig

    def __init__(self, model: nn.Module, args: LaresGRPOConfig, *, train_dataset: Any = None, **kwargs: Any):
        if train_dataset is not None:
            self.check_dataset(model, train_dataset)
            kwargs.setdefault("data_collator", NumberedCollator(train_dataset))
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        self._explores_by_dropout = False

    def check_dataset(self, model: nn.Module, dataset: Any) -> None:
        """Raises a `ValueError` where a data set does not fit the model."""
        name = f"{type(self).__name__}: train_dataset"
        if not isinstance(dataset, SequenceDataset | SelectedSamples):
            raise ValueError(
                f"{name} is a {type(dataset).__name__}; pass SequenceDataset(examples, items) or SelectedSamples of it"
            )
        check_sequences(dataset, model, name)

    def prepare_policy(self, model: nn.Module) -> None:
        """Raises where all rollouts of a sample would be the same; freezes what evaluation mode leaves out."""
        config = model.config
        has_dropout = not self.args.disable_dropout and max(config.dropout, config.attention_dropout) > 0
        if config.initial_std * config.initial_scale == 0 and not has_dropout:
            raise ValueError(
                f"LaresGRPOTrainer: initial_std is {config.initial_std:g}, initial_scale {config.initial_scale:g} and "
                "there is no dropout, so all rollouts of a sample are alike; train a model with both above 0"
            )
        if self.args.disable_dropout and config.backbone == "tedrec":  # DDP would wait for a gradient of the noise
            model.model.fusion.adaptor.gate_noise.requires_grad_(False)

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss is a mean over samples."""
        return batch["labels"].ne(IGNORE_INDEX).sum()

    # Rollout

    def _roll_out(self, model, batches, stream, index):
        self._explores_by_dropout = stream == "train" and not self.args.disable_dropout
        return super()._roll_out(model, batches, stream, index)

    def roll_out(self, model, batches, generator):
        """
        Initial states [B, G, L, D] of every rollout and of the reference, and the items [N, G, K] that the policy is
        judged by; the rollouts' advantages [N, G] where the training forward does not give them.
        """
        policy = self.accelerator.unwrap_model(self.model)
        key, dropout_seed = torch.randint(2**62, (2,), generator=generator).tolist()
        rollouts = []
        for number, batch in enumerate(batches):
            rollout = {name: batch.get(name) for name in ("input_ids", "position_ids", "labels")}
            for stream, name in enumerate(("initial_states", "reference_states")):
                states = initial_states(batch["token_ids"], self.args.num_generations, policy, key, stream)
                rollout[name] = states.to(self.args.device)
            # Neither micro-batches nor processes must drop the same.
            place = number * self.args.world_size + self.args.process_index
            rollout["dropout_seed"] = dropout_seed + place if self._explores_by_dropout else None
            rollout["user_ids"] = batch.get("user_ids", ())
            targets_N = batch["labels"][batch["labels"] != IGNORE_INDEX] - 1
            targets_NGK = targets_N[:, None, None].expand(-1, self.args.num_generations, self.num_steps)
            rollout["judged_items"] = targets_NGK
            if not self.training_forward_ranks:
                output = self.run(model, rollout, policy=self.args.policy)
                self.add_advantages(rollout, output.ranks)
                rollout["judged_items"] = judged_items(
                    self.args.policy, targets_NGK, output.top_items, rollout["advantages"]
                )
            rollouts.append(rollout)
        return rollouts

    @property
    def training_forward_ranks(self) -> bool:
        """Whether the training forward passes the states of the rollout, and is judged by items known before it."""
        return self.args.policy == "target" and self.args.num_iterations == 1

    def add_advantages(self, rollout: dict[str, Any], ranks_NG: torch.Tensor) -> None:
        """Puts the advantages of ranked rollouts into the rollout; records what they are worth."""
        rewards_NG = REWARD_FUNCS[self.args.reward](ranks_NG, self.args.reward_k)
        advantage = group_advantage(rewards_NG)
        rollout["advantages"] = advantage.advantages
        num_samples = len(rewards_NG)
        self.means.add("reward", rewards_NG.mean(-1).sum(), num_samples)
        self.means.add("reward_std", advantage.reward_std.sum(), num_samples)
        self.means.add("frac_reward_zero_std", advantage.has_zero_std.sum(), num_samples)

    @property
    def num_steps(self) -> int:
        """K."""
        return self.model.config.mean_steps if self.args.num_steps is None else self.args.num_steps

    # Loss

    def run(self, model: nn.Module, rollout: dict[str, Any], **kwargs: Any) -> RolloutOutput:
        """The model's output for a rollout: of the reference from its own initial states and without dropout, of the
        policy with the rollout's dropout."""
        is_reference = model is self.ref_model
        names = ("input_ids", "position_ids", "labels")
        with same_dropout(model, None if is_reference else rollout["dropout_seed"]):
            return model(
                **{name: rollout[name] for name in names},
                rollout_states=rollout["reference_states" if is_reference else "initial_states"],
                num_steps=self.num_steps,
                **kwargs,
            )

    def score(self, model, inputs, **kwargs):
        """The output for a rollout with the log-probabilities [N, G, K] of the items that it is judged by."""
        return self.run(model, inputs, judged_items=inputs["judged_items"], **kwargs)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """As in [`RolloutTrainer`]; advantages first, where the rollout left them."""
        gives_ranks = "advantages" not in inputs
        output = self.score(model, inputs, with_ranks=gives_ranks)
        if gives_ranks:
            self.add_advantages(inputs, output.ranks)
        return self.policy_terms(output.logps, inputs, num_items_in_batch), output

    def policy_terms(self, logps, inputs, num_items_in_batch):
        """
        The clipped objective of the joint probabilities and `beta` times the divergence, as means over the samples of
        the global batch and their rollouts; `logps` are [N, G, K].
        """
        args, num_samples = self.args, len(logps)
        joint_NG1 = logps.sum(-1, keepdim=True)
        old_NG1 = inputs["old_logps"].sum(-1, keepdim=True) if "old_logps" in inputs else joint_NG1.detach()
        policy = clipped_policy_loss(
            joint_NG1,
            old_NG1,
            inputs["advantages"],
            torch.ones_like(joint_NG1, dtype=torch.bool),
            args.epsilon,
            args.epsilon_high,
        )
        self.means.add("clip_ratio/low_mean", policy.clip_low.sum(), num_samples)
        self.means.add("clip_ratio/high_mean", policy.clip_high.sum(), num_samples)
        terms = {"policy": policy.loss.sum() / num_items_in_batch}
        if self.ref_model is not None:
            kl = kl_k3(logps, inputs["ref_logps"]).sum(-1).mean(-1).sum()
            self.means.add("kl", kl, num_samples)
            terms["kl"] = args.beta * kl / num_items_in_batch
        return terms


def judged_items(
    policy: str, targets: torch.Tensor, top_items: torch.Tensor | None, advantages: torch.Tensor
) -> torch.Tensor:
    """
    Whose probability the policy is, section 3.4.3.

    Args:
        policy (`str`): `"target"`, `"hybrid"` or `"top"`.
        targets (`torch.LongTensor` [N, G, K]): item rows, of a sample always the same.
        top_items (`torch.LongTensor` [N, G, K], *optional*): item rows that the policies other than `"target"` need.
        advantages (`torch.Tensor` [N, G]): of the rollouts.

    Returns:
        `torch.LongTensor` [N, G, K]: item rows.

    Example:
        >>> top = torch.tensor([[[7, 8], [7, 9]]])  # one sample, two rollouts, two steps
        >>> judged_items("hybrid", torch.full((1, 2, 2), 3), top, torch.tensor([[0.7, -0.7]])).tolist()
        [[[3, 3], [7, 9]]]
    """
    if policy == "target":
        return targets
    return top_items if policy == "top" else torch.where(advantages[..., None] < 0, top_items, targets)


@contextmanager
def same_dropout(model: nn.Module, seed: int | None) -> Iterator[None]:
    """What the block drops is drawn from a seed, and nothing else draws from it; without one nothing is dropped."""
    if seed is None:
        with eval_mode(model):
            yield
        return
    device = next(model.parameters()).device
    on_cpu = device.type == "cpu"
    forked = torch.random.fork_rng([] if on_cpu else [device], device_type="cuda" if on_cpu else device.type)
    with in_mode(model, training=True), forked:
        torch.manual_seed(seed)
        yield


__all__ = ["LaresGRPOTrainer", "judged_items", "same_dropout"]
