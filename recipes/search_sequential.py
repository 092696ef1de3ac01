"""
Search the hyperparameters of a recommender of item ids: Trainer.hyperparameter_search with Optuna, by the ranking of
the validation users. The test users are not looked at.

    pip install -e ".[search]"
    python recipes/search_sequential.py --model sasrec --n_trials 10
    python recipes/search_sequential.py --config recipes/configs/sasrec_beauty.yaml --data_dir DATA --n_trials 30 \\
        --search_space '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}, "hidden_size": [64, 128]}'

A search space gives for each name a list of values, or `low`, `high` and, optionally, `log`; numbers without a point
are whole. Names are those of the model's configuration and of the trainer's settings. Trials are kept in study.db, so
that `--resume_from_checkpoint true` goes on until there are n_trials; best.json has the best one, which is printed as
arguments for train_sequential.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from mapping_arguments import read_mapping
from sequential_arguments import (
    SequentialDataArguments,
    SequentialModelArguments,
    SequentialRunConfig,
    SequentialTestArguments,
    check_metric,
)
from sequential_setup import SequentialSetup
from sequential_stages import SequentialStage, plan
from training_setup import HelpFormatter
from training_stages import check_stages, close
from transformers import TrainerCallback, TrainerState
from trl import TrlParser

import hf_latentrec
from hf_latentrec.evaluation import format_metric_table
from hf_latentrec.trainer import SequentialTrainingConfig


DEFAULT_SPACE = {
    "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "dropout": {"low": 0.1, "high": 0.7},
    "hidden_size": [32, 64, 128],
}
FIXED = (
    "max_history",
    "num_items",
    "items_fingerprint",
    "split_fingerprint",
    "contrastive",
    "output_dir",
    "seed",
)  # the data depend on them
STUDY_FILE, BEST_FILE = "study.db", "best.json"
NUM_PRINTED = 5


@dataclass
class SearchArguments:
    """What is searched, and how long."""

    n_trials: int = field(default=10, metadata={"help": "Trials in all, those before a restart included."})
    search_space: dict | str | None = field(
        default=None,
        metadata={"help": "JSON: for each name a list of values, or {'low': ..., 'high': ..., 'log': true}."},
    )

    def __post_init__(self):
        if self.n_trials < 1:
            raise ValueError(f"n_trials is {self.n_trials}; pass a positive number")
        self.search_space = read_mapping("search_space", self.search_space) or DEFAULT_SPACE
        for name, values in self.search_space.items():
            bounds = isinstance(values, Mapping) and {"low", "high"} <= set(values) <= {"low", "high", "log"}
            if not bounds and not (isinstance(values, list) and values):
                raise ValueError(
                    f"search_space[{name!r}] is {values!r}; pass a list of values, or "
                    '{"low": ..., "high": ...} with, optionally, "log": true'
                )


@dataclass
class SequentialSearchConfig(SequentialRunConfig):
    """Settings of every trial, but for what is searched."""

    output_dir: str | None = field(default="outputs/search", metadata={"help": "Folder for the studies."})


def suggest(trial: Any, name: str, values: list | Mapping[str, Any]) -> Any:
    """A value for one name, from its part of the search space."""
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    whole = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, **values)


class Search:
    """
    One study.

    Args:
        setup (`SequentialSetup`): the data.
        stage (`SequentialStage`): the model that is searched.
        settings (`Mapping`): of its configuration, where they are not searched.
        space (`Mapping`): the search space.
        args (`SequentialSearchConfig`): as parsed.

    Raises:
        ValueError: for a name that neither the model nor the trainer has.
    """

    def __init__(
        self,
        setup: SequentialSetup,
        stage: SequentialStage,
        settings: Mapping[str, Any],
        space: Mapping[str, Any],
        args: SequentialSearchConfig,
    ):
        self.setup, self.stage, self.settings, self.space, self.args = setup, stage, settings, space, args
        self.folder, self.metric = Path(args.output_dir, stage.name), args.metric_for_best_model.removeprefix("eval_")
        config = setup.config(stage, settings)
        own = {f.name for f in fields(config)} - set(FIXED)
        known = own | {f.name for f in fields(SequentialTrainingConfig)} - set(FIXED)
        if unknown := sorted(set(space) - known):
            raise ValueError(f"search_space holds {unknown[0]!r}, which is no setting of {stage.name} or its trainer")
        self.causal = getattr(hf_latentrec, stage.model_class).causal
        self.model_names = [name for name in space if name in own]

    def model_init(self, trial: Any = None):
        """The model of a trial."""
        searched = {} if trial is None else {name: suggest(trial, name, self.space[name]) for name in self.model_names}
        return self.setup.model(self.stage, {**self.settings, **searched})

    def hp_space(self, trial: Any) -> dict[str, Any]:
        """The trainer's settings of a trial. The model's are drawn here too, so that all processes know them."""
        values = {name: suggest(trial, name, spec) for name, spec in self.space.items()}
        return {name: value for name, value in values.items() if name not in self.model_names}

    def best_so_far(self, metrics: Mapping[str, float], state: TrainerState) -> float:
        """What a trial is worth: its best epoch, which training keeps, and not its last one."""
        return max(metrics[f"eval_{self.metric}"], state.best_metric or 0.0)

    def __call__(self, num_trials: int) -> list[Any]:
        """
        Runs what is left of so many trials.

        Returns:
            `list`: all complete trials, also those of earlier runs, the best one first.
        """
        import optuna
        from optuna.trial import TrialState

        state, finished = PartialState(), (TrialState.COMPLETE, TrialState.PRUNED)
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"study_name": self.stage.name, "storage": f"sqlite:///{self.folder / STUDY_FILE}"}
        with state.main_process_first():
            study = optuna.create_study(direction="maximize", load_if_exists=True, **kept)
        self.check_conditions(study)
        done = len(study.get_trials(states=finished))
        state.wait_for_everyone()
        if done < num_trials:
            trainer = self.setup.trainer(self.stage, self.model_init(), self.args)
            trainer.model_init = self.model_init
            trainer.add_callback(RemoveCheckpoints())
            trainer.hyperparameter_search(
                self.hp_space,
                compute_objective=lambda metrics: self.best_so_far(metrics, trainer.state),
                n_trials=num_trials - done,
                direction="maximize",
                load_if_exists=True,
                # Another seed than before a restart, which would draw the same values again.
                sampler=optuna.samplers.TPESampler(seed=self.args.seed + len(study.trials)),
                # One process that stops a trial would leave the others waiting.
                pruner=optuna.pruners.MedianPruner() if state.num_processes == 1 else optuna.pruners.NopPruner(),
                **kept,
            )
        return sorted(study.get_trials(states=[TrialState.COMPLETE]), key=lambda trial: -trial.value)

    def check_conditions(self, study: Any) -> None:
        """Trials are compared with each other, so those of another search cannot be gone on with."""
        validation = self.setup.validation
        conditions = {
            "split_fingerprint": validation.split_fingerprint,
            "validation_users": len(validation.examples),
            "metric_for_best_model": self.metric,
            "search_space": self.space,
            "model_settings": self.settings,
        }
        for what, now in json.loads(json.dumps(conditions)).items():
            before = study.user_attrs.get(what, now)  # an older study does not tell
            if before != now:
                raise ValueError(
                    f"{self.folder / STUDY_FILE} was begun with {what} {before}, but this search has {now}; go on "
                    "with the same, or choose another --output_dir"
                )
            study.set_user_attr(what, now)

    def report(self, trials: Sequence[Any]) -> str:
        """The best trials, and the best one as arguments; it is written to a file, too."""
        best = trials[0]
        (self.folder / BEST_FILE).write_text(
            json.dumps({self.metric: best.value, "trial": best.number, **best.params}, indent=2)
        )
        rows = {f"trial {trial.number}: {describe(trial.params)}": {self.metric: trial.value} for trial in trials}
        table = format_metric_table(dict(list(rows.items())[:NUM_PRINTED]), columns=[self.metric], row_header="trial")
        return (
            f"\n{self.stage.label}, validation, {len(trials)} complete trials\n\n{table}\n\nThe best one is in "
            f"{self.folder / BEST_FILE}. Train it with the same arguments and:\n\n    {self.arguments(best.params)}"
        )

    def arguments(self, params: Mapping[str, Any]) -> str:
        """Values that were found as arguments of train_sequential.py."""
        # The model and the trainer may both have a setting of a name; it is the model's that was searched then.
        named = {f.name for f in fields(SequentialModelArguments)}
        unnamed = {name: value for name, value in params.items() if name in self.model_names and name not in named}
        called = {} if self.causal else {"per_device_train_batch_size": "unpacked_batch_size"}
        words = [f"--{called.get(name, name)} {value}" for name, value in params.items() if name not in unnamed]
        return " ".join([*words, *([f"--model_settings '{json.dumps(unnamed)}'"] if unnamed else [])])


class RemoveCheckpoints(TrainerCallback):
    """A trial leaves its score; its checkpoints would fill the disk."""

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            for folder in Path(args.output_dir).glob("run-*"):
                shutil.rmtree(folder)


def describe(params: Mapping[str, Any]) -> str:
    """`learning_rate 0.0012, hidden_size 64`."""
    return ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def main(
    data_args: SequentialDataArguments,
    model_args: SequentialModelArguments,
    test_args: SequentialTestArguments,
    search_args: SearchArguments,
    args: SequentialSearchConfig,
):
    """The whole job, for parsed arguments."""
    state, stages = PartialState(), plan()
    check_stages(stages, model_args.model, Path(args.output_dir), args.resume_from_checkpoint is not None)
    check_metric(args.metric_for_best_model, test_args.cutoffs)
    if untrained := [name for name in model_args.model if not stages[name].is_trained]:
        raise ValueError(f"{untrained[0]} is not trained, so there is nothing to search; choose another --model")
    setup = SequentialSetup.load(data_args, test_args)
    settings = {"max_history": data_args.max_history, **model_args.given()}
    searches = [Search(setup, stages[name], settings, search_args.search_space, args) for name in model_args.model]
    state.wait_for_everyone()
    for search in searches:
        trials = search(search_args.n_trials)
        if state.is_main_process:
            print(search.report(trials), flush=True)
    close(state)


ARGUMENTS = (
    SequentialDataArguments,
    SequentialModelArguments,
    SequentialTestArguments,
    SearchArguments,
    SequentialSearchConfig,
)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
