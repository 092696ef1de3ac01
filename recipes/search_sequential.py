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
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from hyperparameter_search import Search, SearchArguments, run_searches
from sequential_arguments import (
    SequentialDataArguments,
    SequentialModelArguments,
    SequentialRunConfig,
    SequentialTestArguments,
    check_metric,
)
from sequential_setup import SequentialSetup
from sequential_stages import plan
from training_setup import HelpFormatter
from training_stages import check_stages, close
from trl import TrlParser

import hf_latentrec


@dataclass
class SequentialSearchConfig(SequentialRunConfig):
    """Settings of every trial, but for what is searched."""

    output_dir: str | None = field(default="outputs/search", metadata={"help": "Folder for the studies."})


class SequentialSearch(Search):
    """A study of a model of train_sequential.py; arguments as of [`Search`]."""

    recipe = "train_sequential.py"

    def fixed(self) -> set[str]:
        return super().fixed() | set(self.stage.settings)

    @property
    def packed(self) -> bool:
        return getattr(hf_latentrec, self.stage.model_class).causal

    def names_of_model(self) -> set[str]:
        return {f.name for f in fields(self.setup.config(self.stage, self.settings))}

    def make_model(self, searched: Mapping[str, Any]) -> Any:
        return self.setup.model(self.stage, {**self.settings, **searched})

    def make_trainer(self, model: Any) -> Any:
        return self.setup.trainer(self.stage, model, self.args)

    def arguments(self, params: Mapping[str, Any]) -> str:
        # The model and the trainer may both have a setting of a name; it is the model's that was searched then.
        named = {f.name for f in fields(SequentialModelArguments)}
        unnamed = {name: value for name, value in params.items() if name in self.model_names and name not in named}
        words = super().arguments({name: value for name, value in params.items() if name not in unnamed})
        return f"{words} --model_settings '{json.dumps(unnamed)}'".strip() if unnamed else words


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
    space = search_args.search_space
    run_searches(
        [SequentialSearch(setup, stages[name], settings, space, args) for name in model_args.model],
        search_args.n_trials,
    )
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
