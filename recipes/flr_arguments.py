"""What train_flr.py can do, and what it is told beside the arguments of every recipe over titles: its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from title_arguments import SmallRLDefaults, TitleModelArguments, TitleStageArguments
from title_stages import TitleStage
from training_stages import stage_names

from hf_latentrec.trainer import FLRGRPOConfig
from hf_latentrec.trainer.factor_losses import FACTOR_LOSSES


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
    num_factors: int = 4,
    num_iterations: int = 2,
    factor_losses: Sequence[str] = FACTOR_LOSSES,
    factor_loss_weights: Sequence[float] | None = None,
) -> dict[str, TitleStage]:
    """
    All stages by name: those of fine-tuning start from one model, those of RL from a fine-tuned one.

    Args:
        num_factors (`int`, *optional*, defaults to 4): K of every stage of FLR but `factors_1`, `factors_2`, ...
        num_iterations (`int`, *optional*, defaults to 2): T, how often a thought is refined.
        factor_losses (`Sequence[str]`, *optional*): those of every stage of FLR but the rows of Table 3.
        factor_loss_weights (`Sequence[float]`, *optional*): a fixed weight for each of `factor_losses`, which the rows
            of Table 3 take theirs from; a row with a loss that has none is left out. Learned if not given.
    """
    plain = {"reasoner": "feedback", "thought_markers": False}
    attention = {"reasoner": "latent_attention"}
    no_kl = {"beta": 0.0}  # LR-GRPO as in LatentR³
    weights = None if factor_loss_weights is None else dict(zip(factor_losses, factor_loss_weights, strict=True))

    def factorized(k: int) -> dict:
        return {"reasoner": "factorized_attention", "num_factors": k, "num_iterations": num_iterations}

    def flr(name: str, label: str, k: int = num_factors, losses: Sequence[str] = factor_losses) -> TitleStage:
        fixed = None if weights is None else [weights[loss] for loss in losses]
        settings: dict = {"factor_losses": list(losses), "factor_loss_weights": fixed}
        if losses:  # eval_loss has them, too, but the best epoch is the one that recommends best, as without them
            settings["metric_for_best_model"] = "loss/cross_entropy"
        return TitleStage(name, None, 1, label, "FLRSFT", factorized(k), settings)

    rows = {name: losses for name, losses in TABLE_3.items() if weights is None or set(losses) <= set(weights)}
    k = num_factors
    stages = [
        TitleStage("no_reasoning", None, 0, "no reasoning (BIGRec, D³)", "LatentSFT", plain),
        TitleStage("latentr3", None, 1, "LatentR³", "LatentSFT", attention),
        flr("flr", f"FLR, K={k}"),
        TitleStage("latentr3_lr_grpo", "latentr3", 1, "LatentR³ + LR-GRPO", "LRGRPO", attention, no_kl),
        TitleStage("lr_grpo", "flr", 1, f"FLR + LR-GRPO, K={k}", "LRGRPO", factorized(k), no_kl),
        TitleStage("flr_grpo", "flr", 1, f"FLR + FLR-GRPO, K={k}", "FLRGRPO", factorized(k)),
        *(
            flr(name, f"FLR, K={k}, {' + '.join(losses) or 'no factor loss'}", losses=losses)
            for name, losses in rows.items()
        ),
        *(flr(f"factors_{k}", f"FLR with K={k}", k) for k in range(1, MOST_FACTORS + 1)),
    ]
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
                f"num_factors is {self.num_factors}, more than hidden_size {self.hidden_size} can hold; pass fewer "
                "factors or a larger hidden_size"
            )


@dataclass
class FLRStageArguments(TitleStageArguments):
    """Stages, fine-tuning and tests. Reinforcement learning takes the plain names (learning_rate, max_steps, ...)."""

    sft_num_train_epochs: float = field(default=8.0, metadata={"help": "Epochs of fine-tuning at most."})
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

    def __post_init__(self):
        super().__post_init__()
        self.stages = stage_names(self.stages)


@dataclass
class FLRConfig(SmallRLDefaults, FLRGRPOConfig):
    """FLR-GRPO's settings, the factor losses among them, with the defaults of the small CPU run."""

    output_dir: str | None = field(default="outputs/flr", metadata={"help": "Folder for checkpoints and results."})
