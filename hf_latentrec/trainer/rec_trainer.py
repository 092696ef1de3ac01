"""The base of all trainers: what a recommender needs beyond `transformers.Trainer`, and nothing of an algorithm."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed

from .publishing_trainer import PublishingTrainer
from .rec_config import RecConfig
from .running_means import RunningMeans
from .sampling import EpochSampler, SharedBatchSampler
from .validation import ValidatingTrainer


NUM_USERS_IN_ERRORS = 5


class SetEpochCallback(TrainerCallback):
    """
    Tells the epoch to the sampler, and to a collator that draws something. On several processes accelerate's loader
    does not reach a sampler through the batches that it skips after a restart, and would give the first epoch's order
    again.
    """

    def __init__(self, trainer: RecTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = int(state.epoch or 0)
        self.trainer.train_sampler.set_epoch(epoch)
        if hasattr(self.trainer.data_collator, "set_epoch"):
            self.trainer.data_collator.set_epoch(epoch)


class OwnRandomNumbersCallback(TrainerCallback):
    """Dropout, initial states and noise of every process its own; all start with the model's seed. A resumed run then
    loads those of its checkpoint."""

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1:
            set_seed(args.seed + args.process_index)


class RecTrainer(PublishingTrainer, ValidatingTrainer):
    """
    [`~transformers.Trainer`] for recommenders. A subclass names its collaborators as class attributes and overrides
    [`compute_terms`]; there is one training loop, the Trainer's.

    What it adds: a loss of named terms, each checked in every step; metrics averaged between two logs over steps and
    processes; an order of examples that a resumed run continues; losses divided by the items of the *global* batch, so
    that neither the number of processes nor gradient accumulation changes a gradient; ranking metrics of validation
    users in every evaluation; and, with `load_best_model_at_end` and `eval_on_start`, the model that training starts
    from as the first one to beat: it is saved as `checkpoint-0`, and a run that only hurts gives it back.

    Several processes share the end of an epoch ([`SharedBatchSampler`]), so that each example counts once. Of an
    evaluation accelerate fills the last batch with the first examples, as with [`~transformers.Trainer`]; they count
    in the means of that evaluation, while ranking metrics count every user once.

    Args:
        model (`PreTrainedModel`): a recommender such as `Qwen3ForLatentReasoningRec`.
        args (`RecConfig`): of the class that `config_class` names.
        evaluator (`RecEvaluator`, *optional*): of the validation users. `evaluate()` then also returns and logs their
            `eval_HR@K` and `eval_NDCG@K`, with or without an `eval_dataset`, so that
            `metric_for_best_model="NDCG@10"` chooses the best checkpoint.
        kwargs: for [`~transformers.Trainer`]: `data_collator`, `train_dataset`, `eval_dataset`, `processing_class`,
            ... Batches may hold `user_ids` (`list[str]`), which errors name and the model never sees.

    Raises:
        ValueError: for another class of `args`, processes that do not know of each other, or an evaluator of a sharded
            model; while training, for a loss that is not finite.
    """

    config_class: type[RecConfig] = RecConfig
    sampler_class: type[EpochSampler] = EpochSampler

    def __init__(self, model: nn.Module, args: RecConfig, *, evaluator: Any = None, **kwargs):
        name = type(self).__name__
        if not isinstance(args, self.config_class):
            raise ValueError(f"{name}: args is a {type(args).__name__}; pass a {self.config_class.__name__}")
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != args.world_size:
            raise ValueError(
                f"{name}: {launched} processes were launched, but this one trains in a world of {args.world_size} and "
                "would exchange no gradients; on a CPU set ACCELERATE_USE_CPU=true or pass use_cpu"
            )
        if args.n_gpu > 1:
            raise ValueError(f"{name}: one process sees {args.n_gpu} GPUs; start one per GPU with `accelerate launch`")
        super().__init__(model=model, args=args, evaluator=evaluator, **kwargs)
        # `compute_loss` returns a loss that is divided by the items of the whole accumulated batch.
        self.model_accepts_loss_kwargs = True
        self.train_sampler: EpochSampler | None = None
        self.means = RunningMeans()
        self.global_counts: dict[str, torch.Tensor] = {}  # of the global batch, by name
        self._evaluates = False
        self.add_callback(SetEpochCallback(self))
        self.add_callback(OwnRandomNumbersCallback())
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    # Loss

    def compute_terms(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """
        The loss as named terms that are summed; the only method that an algorithm must write.

        Args:
            model (`nn.Module`): the wrapped model; call it, never its parts (DDP hooks into the call).
            inputs (`dict`): the batch, without `user_ids`.
            num_items_in_batch (`torch.Tensor`): items of the global batch (see [`count_items`]); divide sums by it.

        Returns:
            `tuple`: terms (weighted, scalar) and the model's output.
        """
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        return {"cross_entropy": outputs.loss}, outputs

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """Items of a batch, over which the loss is a mean: here the labels."""
        return batch["labels"].ne(-100).sum()

    def count_others(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Other counts of a batch that a term is divided by; see `global_counts` for those of the global batch."""
        return {}

    def _count(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"items": self.count_items(batch), **self.count_others(batch)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Sums the terms, checks that each is finite, and records them where there are several."""
        inputs = dict(inputs)
        user_ids = inputs.pop("user_ids", ())
        num_items = self.count_items(inputs)
        if num_items_in_batch is None:  # called by hand: this batch is all there is
            num_items_in_batch, self.global_counts = num_items, self._count(inputs)
        terms, outputs = self.compute_terms(model, inputs, num_items_in_batch)
        self.check_finite(terms, user_ids)
        if len(terms) > 1:
            for name, term in terms.items():
                self.means.add(f"loss/{name}", term * num_items_in_batch, num_items)
        loss = torch.stack(list(terms.values())).sum()
        if self._evaluates:
            self.means.add("loss", loss * num_items_in_batch, num_items)
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the gradients of the processes are averaged
        return (loss, outputs) if return_outputs else loss

    def check_finite(self, terms: dict[str, torch.Tensor], user_ids: Sequence[str]) -> None:
        """Raises a `ValueError` that names step, term, value and users where a term is NaN or infinite."""
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        for name, value in zip(terms, values, strict=True):
            if not math.isfinite(value):
                users = ", ".join(map(repr, user_ids[:NUM_USERS_IN_ERRORS])) or "unknown"
                raise ValueError(
                    f"{type(self).__name__}: loss term {name!r} is {value} in step {self.state.global_step + 1}, "
                    f"process {self.args.process_index}, for {len(user_ids)} users, the first: {users}; lower "
                    "learning_rate or max_grad_norm or look at these examples, and resume from the last checkpoint"
                )

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor | None:
        # The Trainer's own count leaves out the first label of each answer for causal models, which shift their
        # labels.
        if not batch_samples:
            return None
        counts = [self._count(batch) for batch in batch_samples]
        totals = {name: torch.stack([count[name].to(device) for count in counts]).sum() for name in counts[0]}
        if self.args.average_tokens_across_devices:
            everywhere = self.accelerator.gather(torch.stack(list(totals.values()))[None]).sum(0)
            totals = dict(zip(totals, everywhere, strict=True))
        self.global_counts = totals
        return totals["items"]

    # Data

    def get_train_dataloader(self) -> DataLoader:
        """As in transformers; several processes share the end of an epoch, see [`SharedBatchSampler`]."""
        loader = super().get_train_dataloader()
        shard = loader.batch_sampler  # accelerate's, which deals batches to processes
        if isinstance(shard, BatchSamplerShard) and not shard.split_batches:
            batches = (self.train_sampler, self._train_batch_size, self.args.world_size, shard.drop_last)
            shard.batch_sampler = SharedBatchSampler(*batches)
            shard.batch_size = None  # they differ, so that none is to be filled up
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.train_sampler = self.sampler_class(
            len(train_dataset),
            self._train_batch_size * self.args.world_size,
            lengths=self._lengths(train_dataset),
            shuffle=self.args.train_sampling_strategy != "sequential",
            seed=seed,
            **self.sampler_kwargs(),
        )
        return self.train_sampler

    def sampler_kwargs(self) -> dict[str, Any]:
        """What an algorithm wants of the sampler beyond the order of examples."""
        return {}

    def _lengths(self, dataset: Any) -> Sequence[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return None
        column = self.args.length_column_name
        if column not in getattr(dataset, "column_names", ()):
            raise ValueError(
                f"{type(self).__name__}: train_sampling_strategy is 'group_by_length', but the training data has no "
                f"column {column!r}; add one with the length of each example, or name it in length_column_name"
            )
        return dataset[column][:]

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)

    # Logs and checkpoints

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last log to the logs of training steps."""
        if "loss" in logs:
            logs = {**logs, **self.means.pop(self._sum_over_processes)}
        super().log(logs, start_time)

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """
        Keeps the means of evaluation apart from those of training and returns them with its metrics. `eval_loss` is
        one of them: the Trainer's own weighs batches by their rows, which are packed with unequal numbers of items.
        Training's random numbers go on as if nothing had been evaluated.
        """
        device = self.args.device
        training_means, self.means, self._evaluates = self.means, RunningMeans(), True
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
            means = self.means.pop(self._sum_over_processes)
            output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        finally:
            self.means, self._evaluates = training_means, False
        return output

    def _sum_over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(sums, reduction="sum")


__all__ = ["RecTrainer", "SetEpochCallback"]
