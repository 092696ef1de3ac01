"""What train_flr.py can do, and what it is told beside the arguments of every recipe over titles: its stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from title_arguments import SmallRLDefaults, TitleModelArguments, TitleStageArguments
from title_stages import TitleStage

from hf_latentrec.trainer import LRGRPOConfig


DEFAULT_STAGES = ("no_reasoning", "latentr3", "flr", "lr_grpo", "flr_grpo")

# The rows of Table 3; the last one, with all losses, is the stage flr.
TABLE_3 = {
    "none": [],
    "diversity": ["diversity"],
    "orthogonality": ["orthogonality"],
    "sparsity": ["sparsity"],
    "diversity_orthogonality": ["diversity", "orthogonality"],
    "diversity_sparsity": ["diversity", "sparsity"],
    "orthogonality_sparsity": ["orthogonality", "sparsity"],
}
MOST_FACTORS = 8  # of the stages factors_1, factors_2, ...


def plan(
    num_factors: int = 4, num_iterations: int = 2, loss_weights: dict[str, float] | None = None
) -> dict[str, TitleStage]:
    """
    All stages by name: those of fine-tuning start from one model, those of RL from a fine-tuned one.

    Args:
        num_factors (`int`, *optional*, defaults to 4): K of every stage of FLR but `factors_1`, `factors_2`, ...
        num_iterations (`int`, *optional*, defaults to 2): T, how often a thought is refined.
        loss_weights (`dict[str, float]`, *optional*): fixed weights of the factor losses, which the rows of Table 3
            take theirs from; a row with a loss that has none is left out. Weights are learned if not given.
    """
    plain = {"reasoner": "feedback", "thought_markers": False}
    attention = {"reasoner": "latent_attention"}
    factors = {
        k: {"reasoner": "factorized_attention", "num_factors": k, "num_iterations": num_iterations}
        for k in (*range(1, MOST_FACTORS + 1), num_factors)
    }
    k, no_kl = num_factors, {"beta": 0.0}  # LR-GRPO as in LatentR³
    stages = [
        TitleStage("no_reasoning", None, 0, "no reasoning (BIGRec, D³)", "LatentSFT", plain),
        TitleStage("latentr3", None, 1, "LatentR³", "LatentSFT", attention),
        TitleStage("flr", None, 1, f"FLR, K={k}", "FLRSFT", factors[k]),
        TitleStage("latentr3_lr_grpo", "latentr3", 1, "LatentR³ + LR-GRPO", "LRGRPO", settings=no_kl),
        TitleStage("lr_grpo", "flr", 1, f"FLR + LR-GRPO, K={k}", "LRGRPO", settings=no_kl),
        TitleStage("flr_grpo", "flr", 1, f"FLR + FLR-GRPO, K={k}", "FLRGRPO"),
    ]
    for name, losses in TABLE_3.items():
        settings: dict = {"factor_losses": losses}
        if loss_weights is not None:
            if not set(losses) <= set(loss_weights):
                continue
            settings["factor_loss_weights"] = [loss_weights[loss] for loss in losses]
        label = f"FLR, K={k}, {' + '.join(losses) if losses else 'no factor loss'}"
        stages.append(TitleStage(name, None, 1, label, "FLRSFT", factors[k], settings))
    for k in range(1, MOST_FACTORS + 1):
        stages.append(TitleStage(f"factors_{k}", None, 1, f"FLR with K={k}", "FLRSFT", factors[k]))
    return {stage.name: stage for stage in stages}


@dataclass
class FLRModelArguments(TitleModelArguments):
    """The language model: a pretrained one (with TRL's options, LoRA among them), or a small one from scratch."""

    num_factors: int = field(default=4, metadata={"help": "Factors K of a thought."})
    factor_iterations: int = field(
        default=2,
        metadata={"help": "How often a thought is refined, T (num_iterations is GRPO's: steps on each rollout)."},
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_factors", "factor_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; pass at least 1")
        if self.model_name_or_path is None and self.num_factors > self.hidden_size:
            raise ValueError(
                f"num_factors is {self.num_factors} and hidden_size {self.hidden_size}, which cannot hold more factors "
                "than that; pass fewer factors or a larger hidden_size"
            )


@dataclass
class FLRStageArguments(TitleStageArguments):
    """Stages, fine-tuning and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

    stages: list[str] = field(
        default_factory=lambda: list(DEFAULT_STAGES),
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir.",
            "choices": list(plan()),
        },
    )
    factor_users: int = field(
        default=1000, metadata={"help": "Test users whose factors are measured at the end; 0 leaves it out."}
    )


@dataclass
class FLRConfig(SmallRLDefaults, LRGRPOConfig):
    """FLR-GRPO's settings, the factor losses among them, with the defaults of the small CPU run."""

    output_dir: str | None = field(default="outputs/flr", metadata={"help": "Folder for checkpoints and results."})
    factor_losses: list[str] = field(default_factory=lambda: ["orthogonality", "diversity", "sparsity"])
    factor_loss_weights: list[float] | None = field(default=None)
