"""
What the recipes of a search share: Trainer.hyperparameter_search with Optuna, by the ranking of the validation users.

A search space gives for each name a list of values, or `low`, `high` and, optionally, `log`; numbers without a point
are whole. Names are those of the model's configuration and of the trainer's settings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from mapping_arguments import read_mapping
from training_stages import Stage
from transformers import TrainerCallback, TrainerState, TrainingArguments, set_seed

from hf_latentrec.evaluation import format_metric_table
from hf_latentrec.trainer import SequentialTrainingConfig


if TYPE_CHECKING:
    from sequential_setup import SequentialSetup

    from hf_latentrec.trainer import SequentialTrainer


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
TRAINING = (
    "seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "weight_decay",
    "per_device_train_batch_size",
    "unpacked_batch_size",
    "gradient_accumulation_steps",
)  # and what the trainer adds of its own
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


def suggest(trial: Any, name: str, values: list | Mapping[str, Any]) -> Any:
    """A value for one name, from its part of the search space."""
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    whole = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, **values)


class Search:
    """
    One study. A recipe says how a model and its trainer are made, and what either can be told.

    Args:
        setup (`SequentialSetup`): the data.
        stage (`Stage`): what is searched.
        settings (`Mapping`): of the model's configuration, where they are not searched.
        space (`Mapping`): the search space.
        args (`SequentialTrainingConfig`): of the trainer, where they are not searched.

    Raises:
        ValueError: for a name that neither the model nor the trainer has, or that is not free.
    """

    training_class = SequentialTrainingConfig
    recipe = ""  # that trains with what was found

    def __init__(
        self,
        setup: SequentialSetup,
        stage: Stage,
        settings: Mapping[str, Any],
        space: Mapping[str, Any],
        args: SequentialTrainingConfig,
    ):
        self.setup, self.stage, self.settings, self.space, self.args = setup, stage, settings, space, args
        self.folder, self.metric = Path(args.output_dir, stage.name), args.metric_for_best_model.removeprefix("eval_")
        fixed, own = self.fixed(), self.names_of_model()
        known = (own | {f.name for f in fields(self.training_class)}) - fixed
        if unknown := sorted(set(space) - known):
            why = "does not leave free" if unknown[0] in fixed else "has no setting for, nor its trainer"
            raise ValueError(f"search_space holds {unknown[0]!r}, which {stage.name} {why}; leave it out")
        self.model_names = [name for name in space if name in own]

    def fixed(self) -> set[str]:
        """Settings that are not searched: the data depend on them, or the stage is what it is by them."""
        return set(FIXED)

    @property
    def packed(self) -> bool:
        """Whether the model learns all targets of a history in one row."""
        raise NotImplementedError

    def names_of_model(self) -> set[str]:
        """What can be set of the model's configuration."""
        raise NotImplementedError

    def make_model(self, searched: Mapping[str, Any]) -> Any:
        """The model before training, with searched settings in the place of the others."""
        raise NotImplementedError

    def make_trainer(self, model: Any) -> SequentialTrainer:
        """The trainer of all trials, which saves in `folder`."""
        raise NotImplementedError

    def arguments(self, params: Mapping[str, Any]) -> str:
        """Values that were found as arguments of the recipe that trains."""
        called = {} if self.packed else {"per_device_train_batch_size": "unpacked_batch_size"}
        return " ".join(f"--{called.get(name, name)} {value}" for name, value in params.items())

    def model_init(self, trial: Any = None):
        """The model of a trial."""
        searched = {} if trial is None else {name: suggest(trial, name, self.space[name]) for name in self.model_names}
        model = self.make_model(searched)
        set_seed(self.args.seed)  # as a new trainer does, so that a trial is what the recipe trains with its values
        return model

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
            trainer = self.make_trainer(self.model_init())
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
            **{name: getattr(self.args, name) for name in sorted(self.names_of_training() - set(self.space))},
        }
        conditions, known = json.loads(json.dumps(conditions)), study.user_attrs  # an older study does not tell all
        for what, now in conditions.items():
            if what in known and known[what] != now:
                raise ValueError(
                    f"{self.folder / STUDY_FILE} was begun with {what} {known[what]}, but this search has {now}; go "
                    "on with the same, or choose another --output_dir"
                )
        if PartialState().is_main_process:  # two that write the same at once would be in each other's way
            for what in conditions.keys() - known.keys():
                study.set_user_attr(what, conditions[what])

    def names_of_training(self) -> set[str]:
        """Settings of the trainer that change what a trial is worth."""
        own = {f.name for f in fields(self.training_class)} - {f.name for f in fields(TrainingArguments)}
        return own | set(TRAINING)

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
            f"{self.folder / BEST_FILE}. Train it by {self.recipe} with the same arguments and:\n\n"
            f"    {self.arguments(best.params)}"
        )


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


def run_searches(searches: Sequence[Search], num_trials: int) -> None:
    """One study after the other; prints what each of them found."""
    state = PartialState()
    state.wait_for_everyone()
    for search in searches:
        trials = search(num_trials)
        if state.is_main_process:
            print(search.report(trials), flush=True)


__all__ = ["DEFAULT_SPACE", "Search", "SearchArguments", "run_searches"]
