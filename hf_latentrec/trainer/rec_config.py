"""Settings that every trainer shares."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments


@dataclass
class RecConfig(TrainingArguments):
    """
    Settings of [`RecTrainer`]: those of [`~transformers.TrainingArguments`], with defaults for recommenders.

    Args:
        early_stopping_patience (`int`, *optional*):
            Stop after this many evaluations in a row that do not beat the best one in `metric_for_best_model`. Needs
            `load_best_model_at_end` and an `eval_strategy`.

    These defaults differ from [`~transformers.TrainingArguments`]: `logging_steps` 10, `report_to` `"none"`,
    `remove_unused_columns` False (the collator reads the data set's own columns), `label_names` `["labels"]` (the
    models have other arguments with "label" in their name), `logging_nan_inf_filter` False (a loss that is not finite
    stops training), `dataloader_pin_memory` only where there is an accelerator, `ddp_find_unused_parameters` False
    (every parameter has a gradient in every step), `restore_callback_states_from_checkpoint` True (a resumed run goes
    on counting the evaluations without a better one).

    Raises:
        ValueError: for settings that a recommender's trainer would ignore or cannot follow.
    """

    logging_steps: float = field(
        default=10, metadata={"help": "Log every X update steps; below 1, a ratio of all training steps."}
    )
    report_to: None | str | list[str] = field(
        default="none", metadata={"help": "Integrations that get the logs: 'none', 'all', or names such as 'wandb'."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep False: the collator reads the columns of the data set."}
    )
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Batch keys that hold labels."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Keep False: a loss that is not finite stops training."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.accelerator.is_available,
        metadata={"help": "Pin batches in memory; by default where there is an accelerator to copy them to."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Whether DDP looks for parameters without a gradient in every step."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Whether a resumed run takes up the states of callbacks, as early stopping's."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this many evaluations in a row without a better metric_for_best_model. Needs "
            "load_best_model_at_end and an eval_strategy."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        self._check_early_stopping()
        if self.label_smoothing_factor != 0:
            raise ValueError(
                f"{name}: label_smoothing_factor is {self.label_smoothing_factor}, but the model computes the loss "
                "without smoothing; leave it 0"
            )
        if self.remove_unused_columns:
            raise ValueError(
                f"{name}: remove_unused_columns would drop the columns that the collator reads; leave it False"
            )
        if self.train_sampling_strategy == "batch_rebalance":
            raise ValueError(
                f"{name}: train_sampling_strategy 'batch_rebalance' is not supported; choose 'random', 'sequential' "
                "or 'group_by_length'"
            )

    def _check_early_stopping(self) -> None:
        patience, name = self.early_stopping_patience, type(self).__name__
        if patience is None:
            return
        if patience < 1:
            raise ValueError(
                f"{name}: early_stopping_patience is {patience}; pass a positive number of evaluations, or None"
            )
        if self.eval_strategy == "no" or not self.load_best_model_at_end:
            raise ValueError(
                f"{name}: early_stopping_patience is {patience}, eval_strategy {self.eval_strategy.value!r} and "
                f"load_best_model_at_end {self.load_best_model_at_end}; set load_best_model_at_end=True, and both "
                "eval_strategy and save_strategy to 'epoch' or 'steps'"
            )


__all__ = ["RecConfig"]
