"""
Search the hyperparameters of LARES' pre-training: Trainer.hyperparameter_search with Optuna, by the ranking of the
validation users. The test users are not looked at.

    pip install -e ".[search]"
    python recipes/search_lares.py --n_trials 10
    python recipes/search_lares.py --config recipes/configs/lares_beauty.yaml --data_dir DATA --n_trials 30 \\
        --search_space '{"dropout": {"low": 0.2, "high": 0.6}, "mean_steps": [2, 3, 4], "sla_weight": [0.1, 0.5]}'

A search space gives for each name a list of values, or `low`, `high` and, optionally, `log`; numbers without a point
are whole. Names are those of the model's and of the trainer's arguments of train_lares.py; what makes a stage what it
is stays as it is. A config of train_lares.py fits; what it tells of post-training is not used here. Trials are kept in
study.db, so that `--resume_from_checkpoint true` goes on until there are n_trials; best.json has the best one, which
is printed as arguments for train_lares.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from hyperparameter_search import Search, SearchArguments, run_searches
from lares_arguments import LaresModelArguments, LaresRunConfig, LaresStageArguments
from lares_stages import make_trainer, plan, starting_model
from sequential_arguments import SequentialDataArguments, check_metric
from sequential_setup import SequentialSetup
from training_setup import HelpFormatter
from training_stages import check_stages, close
from trl import TrlParser

from hf_latentrec.models.lares.configuration_lares import CAUSAL_BACKBONES
from hf_latentrec.trainer import LaresTrainingConfig


# Of the pre-trainings those that take mean_steps from the arguments
SEARCHED = ("spt_no_alignment", "spt_no_tla", "spt_no_sla", "spt_fixed_depth", "spt_no_pre_block", "spt")


@dataclass
class LaresSearchStageArguments(LaresStageArguments):
    """What is searched; the others are those of train_lares.py, so that its configs can be read."""

    stages: list[str] = field(
        default_factory=lambda: ["spt"],
        metadata={"help": "Stages of pre-training, one study each.", "choices": list(SEARCHED)},
    )


@dataclass
class LaresSearchConfig(LaresRunConfig):
    """Settings of every trial, but for what is searched."""

    output_dir: str | None = field(default="outputs/search_lares", metadata={"help": "Folder for the studies."})


class LaresSearch(Search):
    """
    A study of a stage of pre-training.

    Args:
        stage_args (`LaresSearchStageArguments`): as parsed.
        kwargs: as for [`Search`].

    Raises:
        ValueError: as [`Search`]; for a weight that is searched, but without whose views training would begin.
    """

    training_class = LaresTrainingConfig
    recipe = "train_lares.py"

    def __init__(self, stage_args: LaresSearchStageArguments, **kwargs: Any):
        super().__init__(**kwargs)
        self.stage_args = stage_args
        if "tla_weight" in self.space and self.args.tla_weight == 0:
            raise ValueError(
                "tla_weight is searched, but is 0, which leaves its views out of every trial; pass another"
            )

    @property
    def packed(self) -> bool:
        return self.settings["backbone"] in CAUSAL_BACKBONES

    def fixed(self) -> set[str]:
        own = {*self.stage.settings, *self.stage.training} - {"mean_steps"}
        return super().fixed() | own | {"backbone", "contrastive_weight", "same_target"}

    def names_of_model(self) -> set[str]:
        return {f.name for f in fields(LaresModelArguments)}

    def make_model(self, searched: Mapping[str, Any]) -> Any:
        settings = {**self.settings, **searched}
        stage = plan(settings["mean_steps"])[self.stage.name]
        return starting_model(stage, self.setup, settings, self.stage_args, self.folder.parent)

    def make_trainer(self, model: Any) -> Any:
        return make_trainer(self.stage, model, self.setup, self.stage_args, self.args, self.folder.parent)


def main(
    data_args: SequentialDataArguments,
    model_args: LaresModelArguments,
    stage_args: LaresSearchStageArguments,
    search_args: SearchArguments,
    args: LaresSearchConfig,
):
    """The whole job, for parsed arguments."""
    state, stages, names = PartialState(), plan(model_args.mean_steps), stage_args.stages
    if other := [name for name in names if name not in SEARCHED]:
        raise ValueError(f"stages holds {other[0]!r}, which is not searched; choose from {SEARCHED}")
    check_stages(stages, names, Path(args.output_dir), args.resume_from_checkpoint is not None)
    check_metric(args.metric_for_best_model, stage_args.cutoffs)
    shared = {
        "setup": SequentialSetup.load(data_args, stage_args),
        "settings": {"max_history": data_args.max_history, **model_args.given()},
        "space": search_args.search_space,
        "args": args,
    }
    run_searches([LaresSearch(stage_args, stage=stages[name], **shared) for name in names], search_args.n_trials)
    close(state)


ARGUMENTS = (
    SequentialDataArguments,
    LaresModelArguments,
    LaresSearchStageArguments,
    SearchArguments,
    LaresSearchConfig,
)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
