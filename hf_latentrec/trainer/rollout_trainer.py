"""The base of training on rollouts: what stays fixed while a policy is trained on it, and the frozen reference.

Shapes: B prompts, G of a group, J micro-batches of a step, W processes.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.modes import eval_mode
from .rec_trainer import RecTrainer
from .rollout_config import RolloutConfig


class RolloutTrainer(RecTrainer):
    """
    [`RecTrainer`] for group-relative policy optimization. An algorithm writes [`roll_out`], which says what is
    compared and what it is worth, [`score`] and [`policy_terms`], and where needed [`prepare_policy`].

    An optimizer step rolls out all of its micro-batches before it trains on the first, so that an algorithm may use
    statistics of the global batch. The rollout serves `num_iterations` steps.

    Args:
        model (`PreTrainedModel`): the policy. Its state at this moment is also the reference, which shares the
            parameters that are frozen.
        args (`RolloutConfig`): settings.
        kwargs: as for [`RecTrainer`].

    Raises:
        ValueError: where a reference is wanted of a model that is sharded; while training, where a run is resumed
            between two steps on one rollout.
    """

    config_class = RolloutConfig

    def __init__(self, model: nn.Module, args: RolloutConfig, **kwargs):
        super().__init__(model, args, **kwargs)
        self.prepare_policy(self.accelerator.unwrap_model(self.model))
        self.ref_model = None
        if args.beta > 0:
            self.require_whole_model("beta > 0 keeps a reference, which is")
            self.ref_model = copy_as_reference(self.accelerator.unwrap_model(self.model))
        self._rollouts: list[dict[str, Any]] = []  # of the optimizer step; later iterations come back to them
        self._num_evaluated = 0  # batches of this evaluation

    def prepare_policy(self, model: nn.Module) -> None:
        """Checks the policy and freezes what the algorithm does not train, before the reference is copied."""

    def require_whole_model(self, why: str) -> None:
        """Raises a `ValueError` where no process holds the whole model."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(f"{type(self).__name__}: {why} the whole model on each process; use DDP")

    def sampler_kwargs(self) -> dict[str, Any]:
        """The batches of an optimizer step come `num_iterations` times in a row."""
        return {
            "repeat_count": self.args.num_iterations,
            "steps_per_block": self.args.gradient_accumulation_steps,
        }

    # Rollout

    @abstractmethod
    def roll_out(
        self, model: nn.Module, batches: Sequence[dict[str, Any]], generator: torch.Generator
    ) -> list[dict[str, Any]]:
        """
        What stays fixed while training on prompts; runs without gradient and dropout.

        Args:
            model (`nn.Module`): the wrapped model.
            batches (`Sequence[dict]`): this process' micro-batches of an optimizer step, on the device; `labels` are
                the targets' tokens [B, T].
            generator (`torch.Generator`): of this rollout, on the CPU; the same on every process, and in a resumed
                run.

        Returns:
            `list[dict]`: per batch, what [`score`] reads (`labels` among it), `advantages` [B, G], and `user_ids`.
            `old_logps` [B, G, T] may be there; the base adds what is missing, and `ref_logps`.
        """

    @abstractmethod
    def score(self, model: nn.Module, inputs: dict[str, Any], **kwargs: Any) -> Any:
        """The model's output for a rollout; its `logps` are those that the policy is judged by."""

    @abstractmethod
    def policy_terms(
        self, logps: torch.Tensor, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The terms of the loss, given log-probabilities under the policy, with gradient, and the rollout."""

    def train(self, *args, **kwargs):
        """See [`~transformers.Trainer.train`]."""
        self._rollouts = []
        return super().train(*args, **kwargs)

    def get_batch_samples(self, *args, **kwargs):
        """Collects the micro-batches of an optimizer step and rolls them out, or comes back to their rollout."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if not batches:
            return batches, num_items
        step, iteration = self.state.global_step, self.state.global_step % self.args.num_iterations
        if iteration == 0:
            self._rollouts = self._roll_out(self.model_wrapped, batches, stream="train", index=step)
        elif not self._rollouts:
            raise ValueError(
                f"{type(self).__name__}: step {step} is iteration {iteration} of {self.args.num_iterations} on a "
                "rollout that was not saved; resume from a checkpoint whose step is a multiple of num_iterations"
            )
        rollouts = self._rollouts
        if iteration == self.args.num_iterations - 1:
            self._rollouts = []
        return rollouts, num_items

    def evaluation_loop(self, *args, **kwargs):
        """As in [`RecTrainer`]; rollouts are the same each time."""
        self._num_evaluated = 0
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Rolls out and computes the loss; what tells more is in the logged rewards."""
        (rollout,) = self._roll_out(model, [inputs], stream="eval", index=self._num_evaluated)
        self._num_evaluated += 1
        return super().prediction_step(model, rollout, True, ignore_keys)

    @torch.no_grad()
    def _roll_out(
        self, model: nn.Module, batches: Sequence[dict[str, Any]], stream: str, index: int
    ) -> list[dict[str, Any]]:
        batches = [self._prepare_inputs(batch) for batch in batches]
        generator = seeded_generator(self.args.seed, stream, index)
        with eval_mode(model), self.accelerator.autocast():
            rollouts = self.roll_out(model, batches, generator)
            for rollout in rollouts:
                if self.args.num_iterations > 1 and "old_logps" not in rollout:
                    rollout["old_logps"] = self.score(model, rollout).logps
                if self.ref_model is not None:
                    rollout["ref_logps"] = self.score(self.ref_model, rollout).logps
        return rollouts

    def draw_for_global_batch(
        self, batches: Sequence[dict[str, Any]], draw: Callable[[int], torch.Tensor]
    ) -> list[torch.Tensor]:
        """Random numbers per micro-batch: its rows of what `draw` gives for the number of prompts of the global batch,
        so that neither the number of processes nor that of micro-batches changes them."""
        sizes_J = torch.tensor([len(batch["labels"]) for batch in batches], device=self.args.device)
        sizes_WJ = self.accelerator.gather(sizes_J).view(-1, len(batches)).cpu()
        drawn = draw(int(sizes_WJ.sum()))
        return [drawn[rows] for rows in rows_in_global_batch(sizes_WJ, self.args.process_index)]

    # Loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        """As in [`RecTrainer`], without dropout where it is disabled."""
        if self.args.disable_dropout:
            model.eval()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def compute_terms(self, model, inputs, num_items_in_batch):
        """What the policy's log-probabilities of the rollout lead to."""
        output = self.score(model, inputs)
        return self.policy_terms(output.logps, inputs, num_items_in_batch), output


def copy_as_reference(model: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode. Parameters that are frozen already are shared, not copied."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, memo=shared).eval().requires_grad_(False)


def seeded_generator(seed: int, stream: str, index: int) -> torch.Generator:
    """A generator on the CPU for each step (or batch) of a stream of random numbers."""
    key = np.random.SeedSequence([seed, *stream.encode(), index]).generate_state(1)
    return torch.Generator().manual_seed(int(key[0]))


def rows_in_global_batch(sizes_WJ: torch.Tensor, process: int) -> list[slice]:
    """
    Where the micro-batches of a process lie in the global batch, in the sampler's order: accelerate deals batches to
    the processes in turn, so that is micro-batch by micro-batch, and in each, process by process.

    Args:
        sizes_WJ (`torch.LongTensor`): prompts of each micro-batch of each process.
        process (`int`): index of the process.

    Returns:
        `list[slice]`: one per micro-batch.

    Example:
        >>> rows_in_global_batch(torch.tensor([[4, 4], [4, 3]]), process=1)
        [slice(4, 8, None), slice(12, 15, None)]
    """
    ends_JW = sizes_WJ.T.flatten().cumsum(0).view(sizes_WJ.T.shape)
    ends, sizes = ends_JW[:, process].tolist(), sizes_WJ[process].tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


__all__ = ["RolloutTrainer", "copy_as_reference", "rows_in_global_batch", "seeded_generator"]
