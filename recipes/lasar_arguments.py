"""What train_lasar.py is told: model, teacher's text, stages and tests; with the defaults of a small CPU run."""

from __future__ import annotations

from dataclasses import dataclass, field

from lasar_stages import ANCHORS, DEFAULT_STAGES, plan
from protocol_arguments import TestArguments
from training_setup import ScratchArguments
from training_stages import stage_names
from trl import ModelConfig

from hf_latentrec.trainer import LASARGRPOConfig


@dataclass
class LasarModelArguments(ScratchArguments, ModelConfig):
    """The language model: a pretrained one (with TRL's options, LoRA among them), or a small one from scratch."""

    num_thoughts: int = field(
        default=8, metadata={"help": "Thoughts at most, N_max; each user's own depth is 1 to N_max."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.num_thoughts < 1:
            raise ValueError(
                f"num_thoughts (N_max) is {self.num_thoughts}; pass at least 1 (the stages stage1, stage2_control and "
                "grpo_control have no thoughts)"
            )
        if self.load_in_8bit or self.load_in_4bit:
            raise ValueError("a quantized model cannot be tuned here; leave load_in_8bit and load_in_4bit off")


@dataclass
class CoTArguments:
    """The teacher's text, and what is made of it: segments, and the anchors that thoughts are aligned with."""

    cot_file: str | None = field(
        default=None,
        metadata={
            "help": "JSON lines with user_id, target (an item id, or null: for all examples of the user) and cot. "
            "Default: text that is written from the items by templates."
        },
    )
    segmenter: str = field(
        default="sentences",
        metadata={
            "help": "Where the text is cut into segments: 'sentences' needs no model; else a model of sentence "
            "embeddings, such as BAAI/bge-small-en-v1.5, by its hub id or folder."
        },
    )
    rebuild_anchors: bool = field(
        default=False,
        metadata={"help": "Make anchors anew; without it those of another stage 1 or text are an error."},
    )
    max_missing_cot: float = field(
        default=0.1, metadata={"help": "Stop where more than this share of the training examples has no text."}
    )
    max_cot_tokens: int = field(
        default=256, metadata={"help": "Tokens of a text at most that the stage explicit_cot learns and writes."}
    )

    def __post_init__(self):
        if not 0 <= self.max_missing_cot <= 1:
            raise ValueError(f"max_missing_cot is {self.max_missing_cot}; pass a share between 0 and 1")
        if self.max_cot_tokens < 1:
            raise ValueError(f"max_cot_tokens is {self.max_cot_tokens}; pass a positive number")


@dataclass
class LasarStageArguments(TestArguments):
    """Stages and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

    stages: list[str] = field(
        default_factory=lambda: list(DEFAULT_STAGES),
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir. Anchors are "
            "made before the first stage that needs them.",
            "choices": [ANCHORS, *plan()],
        },
    )
    stage1_num_train_epochs: float = field(default=12.0, metadata={"help": "Epochs of stage 1."})
    stage1_learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of stage 1."})
    stage1_batch_size: int = field(default=64, metadata={"help": "Rows per process and step of stage 1."})
    stage2_num_train_epochs: float = field(default=8.0, metadata={"help": "Epochs of stage 2."})
    stage2_learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of stage 2."})
    stage2_batch_size: int = field(default=64, metadata={"help": "Rows per process and step of stage 2."})
    align_weight: float = field(default=0.1, metadata={"help": "Weight of the alignment in stage 2."})
    policy_weight: float = field(default=0.1, metadata={"help": "Weight of the depth's cross entropy in stage 2."})
    sft_early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop stages 1 and 2 after this many epochs in a row without a lower cross entropy of the "
            "validation users, and keep the best epoch; default: train all epochs."
        },
    )
    validation_users: int = field(default=1000, metadata={"help": "Users of validation, always the same."})
    pack_histories: bool | None = field(
        default=None,
        metadata={
            "help": "Stages 1 and 2 learn all targets of a history in one row; default: where the template allows it."
        },
    )
    eval_num_beams: int = field(default=50, metadata={"help": "Beams per user in evaluation."})
    eval_batch_size: int = field(default=64, metadata={"help": "Users per process and batch in evaluation."})
    eval_users: int | None = field(
        default=None, metadata={"help": "Test this many users, drawn at random, always the same; default: all."}
    )
    force_thoughts: list[int] = field(
        default_factory=list,
        metadata={"help": "Also test stages that think with each of these depths for all users (Force-N); 0: none."},
    )

    def __post_init__(self):
        super().__post_init__()
        self.stages = stage_names(self.stages)
        if negative := [depth for depth in self.force_thoughts if depth < 0]:
            raise ValueError(f"force_thoughts holds {negative[0]}; pass depths from 0 (no thoughts) to num_thoughts")
        for name in ("eval_users", "validation_users"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; pass a positive number")


@dataclass
class LasarConfig(LASARGRPOConfig):
    """Settings of reinforcement learning with the defaults of the small CPU run."""

    output_dir: str | None = field(default="outputs/lasar", metadata={"help": "Folder for checkpoints and results."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Prompts per process and step in GRPO."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of GRPO."})
    max_steps: int = field(default=100, metadata={"help": "Steps of GRPO; -1 for num_train_epochs."})
    logging_steps: float = field(default=20, metadata={"help": "Log every X steps."})
    save_steps: float = field(default=100, metadata={"help": "Save a checkpoint every X steps."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept per stage."})
