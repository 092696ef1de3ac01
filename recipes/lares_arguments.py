"""What train_lares.py is told: model, stages and tests; with the defaults of a small CPU run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lares_stages import DEFAULT_STAGES, DEPTHS, SELECTION, plan
from sequential_arguments import SequentialTestArguments
from training_stages import stage_names

from hf_latentrec.models.lares.configuration_lares import AGGREGATIONS, BACKBONES
from hf_latentrec.trainer import LaresTrainingConfig
from hf_latentrec.trainer.contrastive_losses import SIMILARITIES
from hf_latentrec.trainer.lares_grpo_config import POLICIES, REWARDS


@dataclass
class LaresModelArguments:
    """The model."""

    backbone: str = field(default="sasrec", metadata={"help": "What the layers are.", "choices": list(BACKBONES)})
    hidden_size: int = field(default=64, metadata={"help": "Width of item embeddings and states."})
    intermediate_size: int = field(default=256, metadata={"help": "Width of the feed-forward blocks."})
    num_attention_heads: int = field(default=2, metadata={"help": "Attention heads."})
    num_pre_layers: int = field(default=1, metadata={"help": "Layers of the pre-block."})
    num_core_layers: int = field(default=1, metadata={"help": "Layers of the recurrent core-block."})
    mean_steps: int = field(default=4, metadata={"help": "Reasoning steps at inference, and about their mean in SPT."})
    aggregation: str = field(
        default="add", metadata={"help": "How a state and the input are joined.", "choices": list(AGGREGATIONS)}
    )
    initial_std: float = field(default=1.0, metadata={"help": "Standard deviation of the initial state T_0."})
    initial_scale: float = field(default=3.0, metadata={"help": "T_0 is multiplied by it."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout on embeddings and block outputs in SPT."})
    attention_dropout: float = field(default=0.2, metadata={"help": "Dropout on attention weights in SPT."})

    def given(self) -> dict[str, Any]:
        """Settings of the model's configuration; a stage's own come on top."""
        return dict(vars(self))


@dataclass
class LaresStageArguments(SequentialTestArguments):
    """Stages, post-training (rpt_...) and tests. Pre-training takes the plain names (learning_rate, ...)."""

    stages: list[str] = field(
        default_factory=lambda: list(DEFAULT_STAGES),
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir. 'selection' "
            "chooses the samples of post-training, which is done before it in any case; 'depths' tests spt and rpt "
            "after every number of steps.",
            "choices": [SELECTION, DEPTHS, *plan()],
        },
    )
    rpt_num_train_epochs: float = field(default=5.0, metadata={"help": "Epochs of RPT at most."})
    rpt_learning_rate: float = field(default=5e-4, metadata={"help": "Learning rate of RPT."})
    rpt_batch_size: int = field(
        default=64, metadata={"help": "Rows per process and step of RPT, each with all its selected targets."}
    )
    rpt_unpacked_batch_size: int = field(
        default=400, metadata={"help": "The same of backbones that look at the whole window: one target a row."}
    )
    rpt_dropout: float = field(default=0.1, metadata={"help": "Both kinds of dropout in RPT."})
    rpt_num_generations: int = field(default=4, metadata={"help": "Rollouts of a sample, G."})
    rpt_num_iterations: int = field(default=1, metadata={"help": "Optimizer steps on each rollout."})
    rpt_beta: float = field(default=1.0, metadata={"help": "Weight of the divergence from the pre-trained model."})
    rpt_reward: str = field(default="recall", metadata={"help": "Reward of a ranking.", "choices": list(REWARDS)})
    rpt_reward_k: int = field(default=10, metadata={"help": "Cutoff of the reward."})
    rpt_policy: str = field(
        default="target",
        metadata={"help": "Whose probability is the policy; see LaresGRPOConfig.", "choices": list(POLICIES)},
    )
    rpt_early_stopping_patience: int | None = field(
        default=3, metadata={"help": "Stop RPT after this many epochs without a better metric of validation."}
    )
    selection_trials: int = field(default=3, metadata={"help": "Inferences of every training sample."})
    selection_top: int = field(default=100, metadata={"help": "How good the best of them must be."})
    selection_batch_size: int = field(default=256, metadata={"help": "Rows at once in the selection."})
    eval_seeds: int = field(
        default=3, metadata={"help": "Initial states to test with, which are random: tables show mean and spread."}
    )
    depth_steps: list[int] = field(
        default_factory=lambda: list(range(1, 13)), metadata={"help": "Numbers of steps that 'depths' tests."}
    )

    def __post_init__(self):
        super().__post_init__()
        self.stages = stage_names(self.stages)
        known = [SELECTION, DEPTHS, *plan()]
        if unknown := [name for name in self.stages if name not in known]:  # argparse sees no config file
            raise ValueError(f"stages holds {unknown[0]!r}; choose from {known}")
        for name in ("eval_seeds", "selection_trials", "selection_top", "selection_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; pass a positive number")
        if low := [steps for steps in self.depth_steps if steps < 1]:
            raise ValueError(f"depth_steps holds {low[0]}; pass numbers from 1")
        if not 0 <= self.rpt_dropout < 1:
            raise ValueError(f"rpt_dropout is {self.rpt_dropout}; pass a value in [0, 1)")

    def of_rpt(self, packed: bool) -> dict[str, Any]:
        """What post-training has in the place of the plain settings; the model that it starts from may be the best."""
        names = (
            "num_train_epochs", "learning_rate", "num_generations", "num_iterations", "beta", "reward", "reward_k",
            "policy", "early_stopping_patience",
        )  # fmt: skip
        batch_size = self.rpt_batch_size if packed else self.rpt_unpacked_batch_size
        return {
            **{name: getattr(self, f"rpt_{name}") for name in names},
            "per_device_train_batch_size": batch_size,
            "max_steps": -1,
            "eval_on_start": True,
        }


@dataclass
class LaresRunConfig(LaresTrainingConfig):
    """Settings of pre-training with the defaults of the small CPU run."""

    output_dir: str | None = field(
        default="outputs/lares", metadata={"help": "Folder for models and results, one folder for each stage."}
    )
    learning_rate: float = field(default=3e-3, metadata={"help": "Learning rate of AdamW in SPT."})
    similarity: str = field(
        default="cosine",
        metadata={
            "help": "What the alignments compare by; the paper's 'dot' outweighs the recommendation loss on the "
            "synthetic data.",
            "choices": list(SIMILARITIES),
        },
    )
    num_train_epochs: float = field(default=12.0, metadata={"help": "Epochs of SPT at most."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Rows per process and step of SPT, each a history with all its targets."}
    )
    unpacked_batch_size: int = field(
        default=512, metadata={"help": "The same of backbones that look at the whole window: one target a row."}
    )
    early_stopping_patience: int | None = field(
        default=3, metadata={"help": "Stop SPT after this many epochs in a row without a better metric of validation."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate.", "choices": ["epoch", "steps"]})
    save_strategy: str = field(default="epoch", metadata={"help": "As eval_strategy.", "choices": ["epoch", "steps"]})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept beside the best."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="NDCG@10", metadata={"help": "What validation compares."})
    logging_steps: float = field(default=100, metadata={"help": "Log every X steps."})


__all__ = ["LaresModelArguments", "LaresRunConfig", "LaresStageArguments"]
