"""What train_latentr3.py can do, and what it is told beside the arguments of every recipe over titles: its stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from title_arguments import SmallRLDefaults, TitleModelArguments, TitleStageArguments
from title_stages import TitleStage
from training_stages import stage_names

from hf_latentrec.trainer import LRGRPOConfig


DEFAULT_STAGES = ("no_reasoning", "sft", "lr_grpo", "group_advantage", "no_latentratt")


def plan(num_thoughts: int) -> dict[str, TitleStage]:
    """All stages by name: those of fine-tuning start from one model, those of RL from a fine-tuned one."""
    n = num_thoughts
    plain = {"reasoner": "feedback", "thought_markers": False}
    attention = {"reasoner": "latent_attention"}
    group = {"advantage": "group"}
    whole = {"train_only_reasoner": False}
    original = {**group, **whole, "reward": "exact_match"}
    stages = [
        TitleStage("base", None, 0, "Base, zero-shot", None, plain),
        TitleStage("no_reasoning", None, 0, "no reasoning (BIGRec, D³)", "LatentSFT", plain),
        TitleStage("sft", None, n, f"SFT, N={n}", "LatentSFT", attention),
        TitleStage("lr_grpo", "sft", n, f"SFT + LR-GRPO, N={n}", "LRGRPO"),
        TitleStage("group_advantage", "sft", n, f"SFT + group advantage, N={n}", "LRGRPO", settings=group),
        TitleStage("original_grpo", "sft", n, f"SFT + original GRPO, N={n}", "LRGRPO", settings=original),
        TitleStage("more_thoughts", "lr_grpo", n + 1, f"LR-GRPO again, N={n + 1}", "LRGRPO"),
        TitleStage("no_latentratt", None, 1, "no LatentRATT: SFT, N=1", "LatentSFT", plain),
        TitleStage(
            "no_latentratt_grpo", "no_latentratt", 1, "no LatentRATT: + LR-GRPO, N=1", "LRGRPO", settings=whole
        ),
    ]
    return {stage.name: stage for stage in stages}


@dataclass
class LatentR3ModelArguments(TitleModelArguments):
    """The language model: a pretrained one (with TRL's options, LoRA among them), or a small one from scratch."""

    num_thoughts: int = field(default=1, metadata={"help": "Thoughts N of the stages that think."})

    def __post_init__(self):
        super().__post_init__()
        if self.num_thoughts < 1:
            raise ValueError(
                f"num_thoughts is {self.num_thoughts}; pass at least 1 (the stage no_reasoning has no thoughts)"
            )


@dataclass
class LatentR3StageArguments(TitleStageArguments):
    """Stages, fine-tuning and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

    stages: list[str] = field(
        default_factory=lambda: list(DEFAULT_STAGES),
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir.",
            "choices": list(plan(1)),
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.stages = stage_names(self.stages)


@dataclass
class LatentR3Config(SmallRLDefaults, LRGRPOConfig):
    """LR-GRPO's settings with the defaults of the small CPU run."""

    output_dir: str | None = field(
        default="outputs/latentr3", metadata={"help": "Folder for checkpoints and results."}
    )
