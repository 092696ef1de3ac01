"""What recipes over titles are told alike: data, model, fine-tuning and tests; the defaults of a small CPU run."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol_arguments import TestArguments
from training_setup import DataArguments, ScratchArguments
from trl import ModelConfig


TEST_DECODERS = ("constrained", "grounding")


@dataclass
class TitleDataArguments(DataArguments):
    """Where the interactions and titles come from and how they become examples."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder or file with interactions and titles; the synthetic data set if not given."},
    )
    max_history: int = field(default=10, metadata={"help": "Newest items of a history that enter a prompt."})
    on_collision: str = field(
        default="share",
        metadata={
            "help": "Items with the same title: 'share' one answer and rank by popularity, or 'error'.",
            "choices": ["share", "error"],
        },
    )


@dataclass
class TitleModelArguments(ScratchArguments, ModelConfig):
    """The language model: a pretrained one (with TRL's options, LoRA among them), or a small one from scratch."""

    prompt_template: str = field(
        default="{history}\n",
        metadata={
            "help": "Prompt with {history} once. Fine-tuning packs histories where it ends with {history} or the line "
            "break behind it, which tells where the answer starts."
        },
    )
    bpe_vocab_size: int = field(
        default=4096, metadata={"help": "Tokens of a model from scratch, learned from the titles."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.load_in_8bit or self.load_in_4bit:
            raise ValueError("a quantized model cannot be tuned here; leave load_in_8bit and load_in_4bit off")


@dataclass
class TitleStageArguments(TestArguments):
    """Fine-tuning and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

    sft_num_train_epochs: float = field(default=15.0, metadata={"help": "Epochs of fine-tuning at most."})
    sft_early_stopping_patience: int = field(
        default=1, metadata={"help": "Stop fine-tuning after this many epochs in a row without a lower eval_loss."}
    )
    sft_learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of fine-tuning."})
    sft_batch_size: int = field(default=64, metadata={"help": "Rows per process and step of fine-tuning."})
    pack_histories: bool | None = field(
        default=None,
        metadata={
            "help": "Fine-tuning learns all targets of a history in one row; default: where the template allows it."
        },
    )
    full_learning_rate: float = field(
        default=1e-5, metadata={"help": "Peak learning rate of the RL stages that tune the whole model."}
    )
    decoders: list[str] = field(
        default_factory=lambda: ["constrained"],
        metadata={
            "help": "Test with beam search under the catalog's trie ('constrained'), or BIGRec's 'grounding'.",
            "choices": list(TEST_DECODERS),
        },
    )
    length_penalty: list[float] = field(
        default_factory=lambda: [0.0, 1.0],
        metadata={
            "help": "Length penalties of constrained beam search: 1.0 is BIGRec's, 0.0 D³'s. The first one also "
            "decodes for validation in reinforcement learning."
        },
    )
    eval_normalize: str = field(
        default="vocabulary",
        metadata={
            "help": "Over what beam search normalizes probabilities in tests and validation.",
            "choices": ["vocabulary", "catalog"],
        },
    )
    eval_num_beams: int = field(default=10, metadata={"help": "Beams per user in evaluation."})
    eval_batch_size: int = field(default=64, metadata={"help": "Users per process and batch in evaluation."})
    validation_users: int = field(
        default=1000,
        metadata={
            "help": "Validation examples, always the same: their loss watches fine-tuning, their NDCG@10 "
            "reinforcement learning."
        },
    )
    latency_users: int = field(
        default=100, metadata={"help": "Users of the final timing of thoughts on and off; 0 leaves it out."}
    )

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.decoders if name not in TEST_DECODERS]:
            raise ValueError(f"decoders holds {unknown[0]!r}; choose from {TEST_DECODERS}")
        if not self.decoders:
            raise ValueError(f"decoders is empty, so nothing would be tested; choose from {TEST_DECODERS}")
        if not self.length_penalty:
            raise ValueError("length_penalty is empty; give one value at least, validation decodes with the first")


@dataclass
class SmallRLDefaults:
    """Defaults of reinforcement learning on a CPU, in the place of those of the trainer's settings."""

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Prompts per process and step in RL."})
    noise_std: float = field(default=0.5, metadata={"help": "Noise on a thought, in units of noise_scale."})
    noise_scale: str = field(
        default="relative",
        metadata={
            "help": "Unit of noise_std: 'absolute', or 'relative' to the root mean square of the thought.",
            "choices": ["absolute", "relative"],
        },
    )
    max_steps: int = field(default=100, metadata={"help": "Steps of RL; -1 for num_train_epochs."})
    logging_steps: float = field(default=20, metadata={"help": "Log every X steps."})
    save_steps: float = field(default=50, metadata={"help": "Save a checkpoint every X steps in RL."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept per stage beside the best."})
    eval_strategy: str = field(default="steps", metadata={"help": "When RL validates.", "choices": ["steps", "epoch"]})
    eval_steps: float | None = field(default=50, metadata={"help": "Validate every X steps in RL."})
    eval_on_start: bool = field(default=True, metadata={"help": "Validate what RL starts from: it may be the best."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="NDCG@10", metadata={"help": "What RL is validated by."})
