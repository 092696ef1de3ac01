"""What the recipes of item-ID recommenders are told: data, model, tests; with the defaults of a small CPU run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mapping_arguments import read_mapping
from protocol_arguments import TestArguments
from sequential_stages import plan
from training_setup import TrainingDataArguments

from hf_latentrec.trainer import SequentialTrainingConfig


@dataclass
class SequentialDataArguments(TrainingDataArguments):
    """Where the interactions come from and how they become examples."""

    text_encoder: str = field(
        default="words",
        metadata={
            "help": "What makes embeddings of the items' text for tedrec: 'words' (hashed, weighted by rarity) needs "
            "no model; else a model of sentence embeddings, by its hub id or folder."
        },
    )


@dataclass
class SequentialModelArguments:
    """The recommender. What is null is the model's own default."""

    model: list[str] = field(
        default_factory=lambda: ["sasrec"],
        metadata={
            "help": "What to train and test, one after the other. Tables show all that output_dir holds.",
            "choices": list(plan()),
        },
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Width of item embeddings and states."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Width of the feed-forward blocks."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Attention heads."})
    dropout: float | None = field(default=0.2, metadata={"help": "Dropout on embeddings and block outputs."})
    attention_dropout: float | None = field(default=0.2, metadata={"help": "Dropout on attention weights."})
    objective: str | None = field(
        default=None,
        metadata={
            "help": "What the next item is learned by.",
            "choices": ["cross_entropy", "sampled_softmax", "bce"],
        },
    )
    num_negatives: int | None = field(default=None, metadata={"help": "Random items of the sampled objectives."})
    model_settings: dict | str | None = field(
        default=None,
        metadata={
            "help": "Other settings of the model's configuration as JSON, such as '{\"frequency_weight\": 0.9}' for "
            "bsarec; in a config file, a mapping."
        },
    )

    def __post_init__(self):
        if isinstance(self.model, str):  # one name in a config file
            self.model = [self.model]
        if unknown := [name for name in self.model if name not in plan()]:  # argparse sees no config file
            raise ValueError(f"model holds {unknown[0]!r}; choose from {tuple(plan())}")
        if not self.model:
            raise ValueError(f"model is empty; choose from {tuple(plan())}")
        self.model_settings = read_mapping("model_settings", self.model_settings)

    def given(self) -> dict[str, Any]:
        """Settings of the model's configuration that are given."""
        names = [name for name in self.__dataclass_fields__ if name not in ("model", "model_settings")]
        named = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if twice := sorted(set(named) & set(self.model_settings or {})):
            raise ValueError(f"{twice[0]} is given by itself and in model_settings; leave out one of them")
        return {**named, **(self.model_settings or {})}


@dataclass
class SequentialTestArguments(TestArguments):
    """Validation and tests."""

    cutoffs: list[int] = field(default_factory=lambda: [5, 10, 20], metadata={"help": "K of HR@K and NDCG@K."})
    eval_batch_size: int = field(default=1024, metadata={"help": "Users per process and batch in evaluation."})
    validation_users: int | None = field(
        default=None, metadata={"help": "Users of validation, drawn at random, always the same; default: all."}
    )
    eval_users: int | None = field(
        default=None, metadata={"help": "Test this many users, drawn at random, always the same; default: all."}
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("validation_users", "eval_users"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; pass a positive number")
        if not isinstance(self.cutoffs, list):  # one number in a config file
            raise ValueError(f"cutoffs is {self.cutoffs!r}; pass a list, such as [{self.cutoffs}]")
        if low := [k for k in self.cutoffs if k < 1]:
            raise ValueError(f"cutoffs holds {low[0]}; pass numbers from 1")
        if not self.cutoffs:
            raise ValueError("cutoffs is empty; pass at least one, such as 10")


@dataclass
class SequentialRunConfig(SequentialTrainingConfig):
    """Settings of training with the defaults of the small CPU run."""

    output_dir: str | None = field(
        default="outputs/sequential", metadata={"help": "Folder for models and results, one folder for each model."}
    )
    learning_rate: float = field(default=3e-3, metadata={"help": "Learning rate of AdamW."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Epochs at most."})
    per_device_train_batch_size: int = field(
        default=64,
        metadata={"help": "Rows of a batch of causal models, where a row is a history with all its targets."},
    )
    unpacked_batch_size: int = field(
        default=512,
        metadata={
            "help": "Rows of a batch of models that look at the whole window, where a row is one history and its next "
            "item."
        },
    )
    early_stopping_patience: int | None = field(
        default=3, metadata={"help": "Stop after this many epochs in a row without a better NDCG@10 of validation."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate.", "choices": ["epoch", "steps"]})
    save_strategy: str = field(default="epoch", metadata={"help": "As eval_strategy.", "choices": ["epoch", "steps"]})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept beside the best."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="NDCG@10", metadata={"help": "What validation compares."})
    logging_steps: float = field(default=100, metadata={"help": "Log every X steps."})


def check_metric(metric: str, cutoffs: list[int]) -> None:
    """Validation computes what chooses the best epoch."""
    known = [f"{name}@{k}" for k in cutoffs for name in ("HR", "NDCG")]
    if metric.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model is {metric!r}, but cutoffs {cutoffs} give {known}; choose one of them"
        )


__all__ = [
    "SequentialDataArguments",
    "SequentialModelArguments",
    "SequentialRunConfig",
    "SequentialTestArguments",
    "check_metric",
]
