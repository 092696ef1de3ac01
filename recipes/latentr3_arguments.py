"""What train_latentr3.py can do, and what it is told: its stages; data, model, budget, reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from training_setup import DataArguments, ScratchArguments
from training_stages import Stage
from trl import ModelConfig

from hf_latentrec.trainer import LRGRPOConfig


DEFAULT_STAGES = ("no_reasoning", "sft", "lr_grpo", "group_advantage", "no_latentratt")


@dataclass(frozen=True)
class LatentR3Stage(Stage):
    """
    A stage of LatentR³ or one of its ablations.

    Args:
        kind (`str`): `"base"` (no training), `"sft"` or `"rl"`.
        reasoner (`dict`, *optional*): the reasoner's settings beside `num_thoughts`; an RL stage keeps those of the
            model it starts from.
        settings (`dict`, *optional*): of the RL trainer, beside the shared ones.
    """

    kind: str = "sft"
    reasoner: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)


def plan(num_thoughts: int) -> dict[str, LatentR3Stage]:
    """All stages by name: those of fine-tuning start from one model, those of RL from a fine-tuned one."""
    n = num_thoughts
    plain = {"reasoner": "feedback", "thought_markers": False}
    attention = {"reasoner": "latent_attention"}
    group = {"advantage": "group"}
    whole = {"train_only_reasoner": False}
    original = {**group, **whole, "reward": "exact_match"}
    stages = [
        LatentR3Stage("base", None, 0, "Base, zero-shot", "base", plain),
        LatentR3Stage("no_reasoning", None, 0, "no reasoning (BIGRec, D³)", "sft", plain),
        LatentR3Stage("sft", None, n, f"SFT, N={n}", "sft", attention),
        LatentR3Stage("lr_grpo", "sft", n, f"SFT + LR-GRPO, N={n}", "rl"),
        LatentR3Stage("group_advantage", "sft", n, f"SFT + group advantage, N={n}", "rl", settings=group),
        LatentR3Stage("original_grpo", "sft", n, f"SFT + original GRPO, N={n}", "rl", settings=original),
        LatentR3Stage("more_thoughts", "lr_grpo", n + 1, f"LR-GRPO again, N={n + 1}", "rl"),
        LatentR3Stage("no_latentratt", None, 1, "no LatentRATT: SFT, N=1", "sft", plain),
        LatentR3Stage("no_latentratt_grpo", "no_latentratt", 1, "no LatentRATT: + LR-GRPO, N=1", "rl", settings=whole),
    ]
    return {stage.name: stage for stage in stages}


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
    split: str = field(
        default="leave_one_out",
        metadata={
            "help": "'leave_one_out'; 'temporal', 8:1:1 by time; or 'published', as the data's own column says.",
            "choices": ["leave_one_out", "temporal", "published"],
        },
    )


@dataclass
class TitleModelArguments(ScratchArguments, ModelConfig):
    """The language model: a pretrained one (with TRL's options, LoRA among them), or a small one from scratch."""

    num_thoughts: int = field(default=1, metadata={"help": "Thoughts N of the stages that think."})
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
        if self.num_thoughts < 1:
            raise ValueError(
                f"num_thoughts is {self.num_thoughts}; pass at least 1 (the stage no_reasoning has no thoughts)"
            )
        if self.load_in_8bit or self.load_in_4bit:
            raise ValueError("a quantized model cannot be tuned here; leave load_in_8bit and load_in_4bit off")


@dataclass
class LatentR3StageArguments:
    """Stages, fine-tuning and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

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
    stages: list[str] = field(
        default_factory=lambda: list(DEFAULT_STAGES),
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir.",
            "choices": list(plan(1)),
        },
    )
    decoders: list[str] = field(
        default_factory=lambda: ["constrained"],
        metadata={
            "help": "Test with beam search under the catalog's trie ('constrained'), or BIGRec's 'grounding'.",
            "choices": ["constrained", "grounding"],
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
        known = ("constrained", "grounding")
        if unknown := [decoder for decoder in self.decoders if decoder not in known]:
            raise ValueError(
                f"decoders holds {unknown[0]!r}; choose from {known}"
            )  # argparse does not see config files
        if not self.length_penalty:
            raise ValueError("length_penalty is empty; give one value at least, validation decodes with the first")


@dataclass
class LatentR3Config(LRGRPOConfig):
    """LR-GRPO's settings with the defaults of the small CPU run."""

    output_dir: str | None = field(
        default="outputs/latentr3", metadata={"help": "Folder for checkpoints and results."}
    )
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
