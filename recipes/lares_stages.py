"""What train_lares.py can do: its stages, and how each starts and is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lares_selection import selected_samples
from training_stages import Stage, check_same_data, check_same_settings, stage_settings


if TYPE_CHECKING:
    from sequential_setup import SequentialSetup

    from hf_latentrec import LaresForSequentialRecommendation
    from hf_latentrec.trainer import RecConfig, RecTrainer

SELECTION, DEPTHS = "selection", "depths"  # among the stages, but nothing is trained
DEFAULT_STAGES = ("spt_no_alignment", "spt", "rpt", DEPTHS)
ANY_RANK = 2**31  # a cutoff beyond every catalog
MOST_STEPS = 8  # of the stages spt_steps_1, spt_steps_2, ...


@dataclass(frozen=True)
class LaresStage(Stage):
    """
    A stage of LARES. One that starts from another is reinforcement post-training, all others pre-train.

    Args:
        settings (`dict`, *optional*): of the model's configuration, beside the shared ones.
        training (`dict`, *optional*): of the trainer, beside the shared ones.
        selects_samples (`bool`, *optional*, defaults to `True`): post-training learns from selected samples alone.
        reads_text (`bool`, *optional*, defaults to `False`): its backbone knows items by their text, too.
    """

    settings: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    selects_samples: bool = True
    reads_text: bool = False
    model_class = "LaresForSequentialRecommendation"

    @property
    def reinforces(self) -> bool:
        """Whether the stage is reinforcement post-training."""
        return self.start_from is not None


def plan(mean_steps: int = 4) -> dict[str, LaresStage]:
    """
    All stages by name, in the order of tables.

    Args:
        mean_steps (`int`, *optional*, defaults to 4): reasoning steps of all stages but those of Fig. 3.
    """

    def spt(name: str, label: str, settings: dict | None = None, **training: Any) -> LaresStage:
        settings = {"mean_steps": mean_steps, **(settings or {})}
        return LaresStage(name, None, settings["mean_steps"], label, settings, training)

    def rpt(name: str, label: str, start: str = "spt", steps: int = mean_steps, selects: bool = True, **training: Any):
        return LaresStage(name, start, steps, label, training=training, selects_samples=selects)

    depths = range(1, MOST_STEPS + 1)
    stages = [
        # Table 2, from its last row on
        spt("spt_no_alignment", "SPT without alignments", tla_weight=0.0, sla_weight=0.0),
        spt("spt_no_tla", "SPT without TLA", tla_weight=0.0),
        spt("spt_no_sla", "SPT without SLA", sla_weight=0.0),
        spt("spt_fixed_depth", "SPT, fixed depth", fixed_depth=True),
        spt("spt_no_pre_block", "SPT without pre-block", {"num_pre_layers": 0}),
        spt("spt", "SPT"),
        rpt("rpt", "LARES (SPT + RPT)"),
        # Fig. 4 and 6, and what the selection of samples does
        rpt("rpt_hybrid", "RPT, hybrid policy", policy="hybrid"),
        rpt("rpt_top", "RPT, top-ranked policy", policy="top"),
        rpt("rpt_ndcg", "RPT, rewarded by NDCG", reward="ndcg"),
        rpt("rpt_all_samples", "RPT, all samples", selects=False),
        # The control of RPT: every rollout is rewarded alike, so that the divergence alone teaches
        rpt("rpt_no_reward", "RPT without reward", reward_k=ANY_RANK),
        # What the alignments do for RPT
        rpt("rpt_no_alignment", "SPT without alignments + RPT", "spt_no_alignment"),
        # Fig. 3
        *(spt(f"spt_steps_{k}", f"SPT, {k} steps", {"mean_steps": k}) for k in depths),
        *(rpt(f"rpt_steps_{k}", f"LARES, {k} steps", f"spt_steps_{k}", k) for k in depths),
    ]
    return {stage.name: stage for stage in stages}


def starting_model(
    stage: LaresStage, setup: SequentialSetup, settings: dict[str, Any], stage_args: Any, folder: Path
) -> LaresForSequentialRecommendation:
    """
    The model that a stage starts from.

    Args:
        stage (`LaresStage`): what is to be trained.
        setup (`SequentialSetup`): the data.
        settings (`dict`): of the model's configuration that all stages share.
        stage_args (`LaresStageArguments`): as parsed.
        folder (`Path`): of the whole run.

    Raises:
        ValueError: where the stage that it starts from was trained on other data, or with other settings.
    """
    from transformers import AutoModel

    from hf_latentrec import LaresForSequentialRecommendation

    if not stage.reinforces:
        reads_text = settings["backbone"] == "tedrec"
        config = setup.config(replace(stage, reads_text=reads_text), settings)
        model = LaresForSequentialRecommendation(config, items=setup.items)
        if reads_text:
            model.model.fusion.set_texts(setup.item_text, setup.items.is_cold)
        return model
    dropout = {"dropout": stage_args.rpt_dropout, "attention_dropout": stage_args.rpt_dropout}
    model = AutoModel.from_pretrained(folder / stage.start_from, **dropout)
    now = {"items_fingerprint": setup.items.fingerprint, "split_fingerprint": setup.test.split_fingerprint}
    before = {"items_fingerprint": model.items.fingerprint, "split_fingerprint": model.config.split_fingerprint}
    check_same_data(folder / stage.start_from, before, now)
    kept = {name: value for name, value in settings.items() if name not in dropout}
    kept["mean_steps"] = stage.num_thoughts
    check_same_settings(folder / stage.start_from, model.config.to_dict(), kept)
    return model


def make_trainer(
    stage: LaresStage, model: Any, setup: SequentialSetup, stage_args: Any, args: Any, folder: Path
) -> RecTrainer:
    """The trainer of a stage, with the shared settings and the stage's own in their place."""
    from hf_latentrec.data import SequenceDataset
    from hf_latentrec.trainer import LaresGRPOTrainer, LaresTrainer

    rows = SequenceDataset(setup.splits["train"], setup.items, model.config.max_history, packed=model.causal)
    settings = training_settings(stage, model.causal, stage_args, args, folder)
    if not stage.reinforces:
        return LaresTrainer(model, settings, train_dataset=rows, evaluator=setup.validation)
    if stage.selects_samples:
        rows = selected_samples(folder / stage.start_from, model.to(args.device), rows, stage_args, args.seed)
    return LaresGRPOTrainer(model, settings, train_dataset=rows, evaluator=setup.validation)


def training_settings(stage: LaresStage, packed: bool, stage_args: Any, args: Any, folder: Path) -> RecConfig:
    """The settings of a stage's trainer; `packed` says whether the backbone takes packed rows."""
    from hf_latentrec.trainer import LaresGRPOConfig, LaresTrainingConfig

    output_dir = str(folder / stage.name)
    if stage.reinforces:
        changes = {"output_dir": output_dir, **stage_args.of_rpt(packed), **stage.training}
        return stage_settings(args, LaresGRPOConfig, **changes)
    batch_size = args.per_device_train_batch_size if packed else args.unpacked_batch_size
    changes = {"output_dir": output_dir, "per_device_train_batch_size": batch_size, **stage.training}
    return stage_settings(args, LaresTrainingConfig, **changes)


__all__ = [
    "DEFAULT_STAGES", "DEPTHS", "SELECTION", "LaresStage", "make_trainer", "plan", "starting_model",
    "training_settings",
]  # fmt: skip
