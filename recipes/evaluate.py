"""
Evaluate a trained model of any kind on the whole catalog: ranks, recommendations, metrics, steps, factors, latency.

    python recipes/evaluate.py --model outputs/sequential/sasrec --output_dir runs/sasrec        # the synthetic data
    python recipes/evaluate.py --model outputs/lasar/grpo --data_dir DATA --output_dir runs/lasar --steps 1 2 4
    accelerate launch recipes/evaluate.py --model ORG/NAME --data_dir DATA --split published --output_dir runs/name
    python recipes/evaluate.py --model ... --match title --num_beams 10 --cutoffs 5 10           # the papers' protocol

Data and split are those of the training run; a model of another split or catalog is refused. Both protocols, nothing
filtered and seen items excluded, stand side by side. All goes to output_dir, which compare.py and report.py read: no
model is needed then. A complete evaluation of the same model and settings is not computed again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluate_arguments import DEFAULT_LATENCY_BATCH_SIZES, EvaluationArguments, EvaluationDataArguments
from evaluate_tables import describe
from training_setup import HelpFormatter, load_splits, some_users
from training_stages import close, describe_counts, example_ids, rank_columns
from trl import TrlParser


if TYPE_CHECKING:
    import numpy as np
    from accelerate import PartialState
    from evaluate_models import Recommender

    from hf_latentrec.evaluation import EvaluationRun, RankFile, Recommendations

SETTINGS_FILE, METRICS_FILE, RUN_FILE = "settings.json", "metrics.json", "run.json"


class Evaluation:
    """
    The whole job for one model.

    Args:
        data_args, args: as parsed.
        state (`PartialState`): of this process.
    """

    def __init__(self, data_args: EvaluationDataArguments, args: EvaluationArguments, state: PartialState):
        from datasets import DatasetDict
        from evaluate_loading import check_trained_on, load_recommender

        from hf_latentrec.data import split_fingerprint, training_popularity
        from hf_latentrec.evaluation import check_cutoffs

        self.args, self.state, self.folder = args, state, Path(args.output_dir)
        self.model: Recommender = load_recommender(args)
        if data_args.max_history is None:
            data_args = replace(data_args, max_history=self.model.max_history)
        self.data_args = data_args
        self.data, self.splits = load_splits(data_args, item_tokenization=self.model.item_tokenization)
        self.split_fingerprint = split_fingerprint(self.splits)
        check_trained_on(self.model, {"split": self.split_fingerprint})
        check_trained_on(self.model, {"catalog": self.model.catalog_fingerprint(self.data, self.splits)})
        check_cutoffs(args.cutoffs, self.data.num_items)
        self.examples = some_users(self.splits[args.part], args.eval_users)
        # The split's fingerprint covers training windows, too, which models that are tested on the same may not share.
        self.examples_fingerprint = split_fingerprint(DatasetDict({"examples": self.examples}))
        self.check_latency()
        self.popularity: np.ndarray = training_popularity(self.splits["train"], self.model.items.item_ids)
        self.label = args.label or Path(args.model).resolve().name

    def __call__(self) -> None:
        """Computes and writes what is not there, and prints the tables."""
        from hf_latentrec.evaluation import EvaluationRun

        settings = {"model": self.model.fingerprint(), "split": self.split_fingerprint, **self.args.compared()}
        settings["label"] = self.label
        complete = is_complete(self.folder, settings, self.args.overwrite)
        self.state.wait_for_everyone()  # before any of them writes
        if self.state.is_main_process:
            print(describe_counts(self.data, len(self.splits["train"])), flush=True)
        if not complete:
            run = self.run()
            if self.state.is_main_process:
                self.save(run, settings)
        if self.state.is_main_process:
            if complete:
                print(f"{self.folder} is complete; nothing is computed again")
            print(describe(EvaluationRun.load(self.folder), self.args.cutoffs, str(self.folder)))

    def run(self) -> EvaluationRun:
        """Evaluates, on all processes; what is no ranking, on the main one alone."""
        from evaluate_loading import read_log

        from hf_latentrec.evaluation import EvaluatedItems, EvaluationRun

        self.model.model.to(self.state.device)
        ranks, recommendations = self.rank()
        steps = self.rank_steps() if self.args.steps else None
        factors = latency = None
        if self.state.is_main_process:
            if self.args.factor_users:
                factors = self.model.factors(self.some_histories(self.args.factor_users))
            if self.args.latency_users:
                latency = self.model.latency(self.some_histories(self.args.latency_users))
        items = EvaluatedItems(self.model.items.item_ids, self.model.items.titles, self.popularity)
        return EvaluationRun(
            self.label,
            self.details(),
            items,
            ranks,
            recommendations,
            latency,
            steps,
            factors,
            read_log(self.args.model),
        )

    def rank(self) -> tuple[dict[str, RankFile], dict[str, Recommendations]]:
        """Ranks and recommendations by protocol."""
        from hf_latentrec.evaluation import PROTOCOLS, RankFile, Recommendations

        evaluator = self.model.evaluator(self.examples)
        columns = rank_columns(self.examples, self.model.items, self.popularity)
        ranks, recommendations = {}, {}
        for protocol in self.args.eval_protocols:
            result = evaluator.evaluate(self.model.model, PROTOCOLS[protocol], description=protocol)
            users = example_ids(result.user_ids)
            how = {
                "split_fingerprint": self.split_fingerprint,
                "examples_fingerprint": self.examples_fingerprint,
                "protocol": protocol,
                "num_beams": evaluator.num_beams,
                "match": evaluator.match,
                "part": self.args.part,
            }
            ranks[protocol] = RankFile(users, result.ranks, how, result.num_thoughts, columns)
            recommendations[protocol] = Recommendations(users, result.recommendations)
        return ranks, recommendations

    def rank_steps(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """By protocol and number of steps, the metrics of every initial state."""
        from hf_latentrec.evaluation import PROTOCOLS

        steps: dict[str, dict[str, dict[str, list[float]]]] = {protocol: {} for protocol in self.args.eval_protocols}
        for number in sorted(set(self.args.steps)):
            evaluators = self.model.step_evaluators(self.examples, number)
            for protocol, by_number in steps.items():
                what = f"{protocol}, {number} steps"
                metrics = [
                    evaluator.evaluate(self.model.model, PROTOCOLS[protocol], description=what).metrics
                    for evaluator in evaluators
                ]
                by_number[str(number)] = {name: [row[name] for row in metrics] for name in metrics[0]}
        return steps

    def details(self) -> dict[str, Any]:
        """How the model and its tests came about."""
        from importlib.metadata import version

        from evaluate_loading import read_training_seed

        from hf_latentrec import __version__

        data_args, args, model = self.data_args, self.args, self.model.model
        timed = min(args.latency_users, len(self.examples))
        return {
            "model": Path(args.model).resolve().name if Path(args.model).exists() else args.model,  # reports travel
            "model_class": type(model).__name__,
            **self.model.details(),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "data": "synthetic" if data_args.data_dir is None else Path(data_args.data_dir).resolve().name,
            "split": data_args.split,
            "max_history": data_args.max_history,
            "part": args.part,
            "num_examples": len(self.examples),
            "cutoffs": args.cutoffs,
            "match": args.match,
            "split_fingerprint": self.split_fingerprint,
            "examples_fingerprint": self.examples_fingerprint,
            "catalog_fingerprint": self.model.trained_on["catalog"],
            "seed": read_training_seed(args.model),
            "latency": f"{timed:,} users, median of 3, {self.state.device.type}" if timed else None,
            "versions": {
                "hf_latentrec": __version__,
                **{name: version(name) for name in ("torch", "transformers")},
                "python": platform.python_version(),
            },
        }

    def save(self, run: EvaluationRun, settings: dict[str, Any]) -> None:
        """Writes the folder; `settings.json`, which says whose it is, first, `run.json`, that it is complete, last."""
        from hf_latentrec.evaluation.summary import summarize

        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RUN_FILE).unlink(missing_ok=True)
        (self.folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2))
        metrics = {protocol: summarize(run, protocol, tuple(self.args.cutoffs)) for protocol in run.ranks}
        (self.folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2))
        run.save(self.folder)

    def some_histories(self, num_users: int) -> list[list[str]]:
        """Of so many users, always the same."""
        return some_users(self.examples, num_users)["history"][:]

    def check_latency(self) -> None:
        """Before anything is computed: there are users for the largest batch; by default, no batch is larger."""
        users = min(self.args.latency_users, len(self.examples))
        if self.args.latency_batch_sizes is None:  # the model reads it, too
            self.args.latency_batch_sizes = [size for size in DEFAULT_LATENCY_BATCH_SIZES if size <= users]
        sizes = self.args.latency_batch_sizes
        if users and (not sizes or min(sizes) < 1 or max(sizes) > users):
            raise ValueError(
                f"latency_batch_sizes are {sizes} and latency_users {self.args.latency_users}, of "
                f"{len(self.examples):,} examples; pass sizes from 1 on that the users fill, or --latency_users 0"
            )


def is_complete(folder: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """
    Whether the folder holds these results.

    Raises:
        ValueError: it holds others, and they are not to be overwritten, or files that no evaluation wrote.
    """
    from hf_latentrec.evaluation.run import run_files

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file; pass a folder")
    before = read_settings(folder / SETTINGS_FILE)
    if not (folder / RUN_FILE).is_file():
        names = [SETTINGS_FILE, METRICS_FILE, *map(str, run_files(settings["eval_protocols"]))]
        found = [name for name in names if (folder / name).exists()]
        if found and not {"model", "split", "label"} <= before.keys():  # else it was cut
            raise ValueError(
                f"{folder} holds {', '.join(found)}, which would be replaced, but no {RUN_FILE} or {SETTINGS_FILE} of "
                "an evaluation; pass another --output_dir"
            )
        return False
    if overwrite:
        return False
    now = json.loads(json.dumps(settings))
    different = [name for name in now if name not in before or before[name] != now[name]]
    if not different:
        return True
    name = different[0]
    raise ValueError(
        f"{folder} holds an evaluation with {name} {before.get(name)!r}, but now that is {now[name]!r}; pass "
        "--overwrite, or another --output_dir"
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Those of the evaluation that the folder is of; none where the file is missing or somebody else's."""
    try:
        settings = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


@contextmanager
def processes(use_cpu: bool) -> Iterator[PartialState]:
    """The processes of the launch, which end together."""
    from accelerate import PartialState

    # The others wait while the main one times recommendations.
    state = PartialState(cpu=use_cpu, timeout=timedelta(hours=12))
    yield state
    close(state)


def main(data_args: EvaluationDataArguments, args: EvaluationArguments) -> None:
    """The whole job, for parsed arguments."""
    with processes(args.use_cpu) as state:
        Evaluation(data_args, args, state)()


ARGUMENTS = (EvaluationDataArguments, EvaluationArguments)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
