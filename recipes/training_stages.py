"""What the training recipes share about stages: which are complete, how each starts, trains, is tested, reported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from hf_latentrec import ItemCatalog, ItemTable, LatentRecProcessor
    from hf_latentrec.evaluation import EvaluationResult, RankingEvaluator


METRICS_FILE = "test_metrics.json"  # written last: a stage that has it is complete
TEST_FILE = "test_settings.json"  # how it was tested
FINGERPRINTS = ("split_fingerprint", "catalog_fingerprint", "items_fingerprint")  # of models and of processors


@dataclass(frozen=True)
class Stage:
    """One training run of a recipe: where it starts, how many thoughts it has, what tables call it."""

    name: str
    start_from: str | None
    num_thoughts: int
    label: str


def is_complete(folder: Path) -> bool:
    """Whether the stage in this folder was trained and tested to the end."""
    return (folder / METRICS_FILE).exists()


def stage_names(names: Sequence[str] | str | None) -> list[str]:
    """The stages asked for, of which a config file may hold one alone; with none a run would do nothing at all."""
    if not names:
        raise ValueError("stages is empty, so nothing would be trained; name at least one stage, or leave stages out")
    return [names] if isinstance(names, str) else list(names)


def check_stages(plan: Mapping[str, Stage], names: Sequence[str], folder: Path, resume: bool) -> None:
    """Before anything is loaded: every stage is known, has a place to go and something to start from."""
    for position, name in enumerate(names):
        if name not in plan:
            raise ValueError(f"stages holds {name!r}; choose from {list(plan)}")
        if (folder / name).exists() and not resume:
            raise ValueError(
                f"{folder / name} exists; pass --resume_from_checkpoint true to go on with it, or choose another "
                "--output_dir"
            )
        start = plan[name].start_from
        if start is not None and start not in names[:position] and not is_complete(folder / start):
            raise ValueError(f"stage {name} starts from {folder / start}, which is not complete; run {start} first")


def load_start(stage: Stage, processor: LatentRecProcessor, settings: Mapping[str, Any], folder: Path, **loading: Any):
    """
    The model that a stage starts from, which must have been trained on the same items and examples, with the settings
    that this run asks for.

    Args:
        stage (`Stage`): what is to be trained.
        processor (`LatentRecProcessor`): of this run's data.
        settings (`Mapping`): of the model's configuration, as [`model_settings`] tells them.
        folder (`Path`): of the whole run.
        loading: for `from_pretrained`.
    """
    from transformers import AutoModel, AutoProcessor

    start = folder / stage.start_from
    check_same_data(start, AutoProcessor.from_pretrained(start).to_dict(), processor.to_dict())
    model = AutoModel.from_pretrained(start, **loading)
    check_same_settings(start, model.config.to_dict(), settings)
    return model


def check_same_data(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises where a model, or its processor, has another fingerprint than it would have now; None says nothing."""
    for what in FINGERPRINTS:
        if None not in (before.get(what), now.get(what)) and before[what] != now[what]:
            raise ValueError(
                f"{folder} was trained with {what} {before[what]}, but this data has {now[what]}; use the same data "
                "and data arguments, or another --output_dir"
            )


def check_same_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises where a stage would start from a model of other settings than this run asks for, which it keeps."""
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"{folder} was trained with {name} {before.get(name)!r}, but this run asks for {value!r}, and a stage "
                "keeps the settings of the model that it starts from; pass the same, or another --output_dir"
            )


def data_of(folder: Path) -> dict[str, Any]:
    """The fingerprints of what a saved model or checkpoint was trained on; empty where none is saved."""
    files = [folder / name for name in ("config.json", "processor_config.json")]
    settings = [json.loads(file.read_text()) for file in files if file.is_file()]
    return {what: told[what] for told in settings for what in FINGERPRINTS if told.get(what) is not None}


def stage_settings(args: Any, config_class: type, **changes: Any):
    """A trainer's settings: those that `args` shares with its class, with the stage's own in their place."""
    known = {f.name for f in fields(config_class) if f.init}
    shared = {f.name: getattr(args, f.name) for f in fields(args) if f.init and f.name in known}
    if "push_to_hub" in known:
        shared["push_to_hub"] = False  # the recipe publishes its last stage, once it is tested
    return config_class(**(shared | changes))


def train_stage(trainer: Any, resume: bool) -> None:
    """Trains from the start, or on from the last checkpoint that is whole, and says which weights are kept."""
    from hf_latentrec.trainer import last_complete_checkpoint

    checkpoint = last_complete_checkpoint(trainer.args.output_dir) if resume else None
    if checkpoint is not None:
        now = trainer.model.config.to_dict()
        if trainer.processing_class is not None:
            now |= trainer.processing_class.to_dict()
        check_same_data(Path(checkpoint), data_of(Path(checkpoint)), now)
    trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.args.load_best_model_at_end and trainer.is_world_process_zero():
        print(describe_best(trainer.state, trainer.args.metric_for_best_model), flush=True)


def describe_best(state: Any, metric: str) -> str:
    """Where a trainer's state was best; a stage that only hurt gives back the model that it started from."""
    if state.best_model_checkpoint is None:
        return f"{metric} was never measured in training; the last weights are kept"
    best = f"best {metric} of validation: {state.best_metric:.4f}"
    if state.best_global_step == 0:
        return f"{best}, before training; the model that the stage started from is kept"
    return f"{best}, after {state.best_global_step:,} of {state.global_step:,} steps; these weights are kept"


def save_stage(trainer: Any) -> None:
    """Model and processor in the stage's folder; no process goes on before they are there."""
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()


def trained(trainer: Any, resume: bool):
    """Trains and saves a stage; its plain model, with LoRA's weights merged into it."""
    from peft import PeftModel

    from hf_latentrec.trainer import merge_lora

    train_stage(trainer, resume)
    if isinstance(trainer.model, PeftModel):
        trainer.model = merge_lora(trainer.model)
    save_stage(trainer)
    return trainer.model


def run_stages(
    plan: Mapping[str, Stage],
    names: Iterable[str],
    folder: Path,
    run: Callable[[Stage], dict],
    test: Mapping[str, Any],
    split_fingerprint: str,
) -> dict[str, dict]:
    """
    Runs the stages that are not complete.

    Args:
        plan (`Mapping[str, Stage]`): all stages of the recipe.
        names (iterable of `str`): the stages to run, in this order.
        folder (`Path`): of the whole run; a stage has a folder of its own below it.
        run (`Callable`): trains and tests a stage; returns its test metrics.
        test (`Mapping`): how stages are tested in this run, kept beside their metrics.
        split_fingerprint (`str`): of this run's data.

    Returns:
        `dict[str, dict]`: metrics of all complete stages on these data, of earlier runs, too, in the order of the
        plan.

    Raises:
        ValueError: where one of the stages is complete, but on other data.
    """
    from accelerate import PartialState

    state = PartialState()
    for name in filter(lambda name: is_complete(folder / name), names):
        check_same_data(folder / name, data_of(folder / name), {"split_fingerprint": split_fingerprint})
    for name in names:
        if is_complete(folder / name):
            continue
        if state.is_main_process:
            print(f"\n=== {plan[name].label} ===", flush=True)
        metrics = run(plan[name])
        if state.is_main_process:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / TEST_FILE).write_text(json.dumps(test, indent=2))
            (folder / name / METRICS_FILE).write_text(json.dumps(metrics, indent=2))
        state.wait_for_everyone()
    complete = [name for name in plan if is_complete(folder / name)]
    for name in list(complete):
        if data_of(folder / name).get("split_fingerprint", split_fingerprint) != split_fingerprint:
            complete.remove(name)
            if state.is_main_process:
                print(f"{folder / name} was trained on other data and is left out of the tables", flush=True)
    return {name: json.loads((folder / name / METRICS_FILE).read_text()) for name in complete}


def conditions_of(stage: Path, test: Mapping[str, Any]) -> dict[str, Any]:
    """
    How a complete stage was tested.

    Args:
        stage (`Path`): its folder.
        test (`Mapping`): how stages are tested in this run, for a stage of an earlier version, which did not keep it.
    """
    file = stage / TEST_FILE
    return json.loads(file.read_text()) if file.exists() else dict(test)


def describe_other_tests(folder: Path, labels: Mapping[str, str], test: Mapping[str, Any]) -> str:
    """
    Which complete stages an earlier run tested in another way, a line each; empty if none.

    Args:
        folder (`Path`): of the whole run.
        labels (`Mapping[str, str]`): what tables call the complete stages, by name.
        test (`Mapping`): how stages are tested in this run.
    """
    lines = []
    for name, label in labels.items():
        settings = conditions_of(folder / name, test)
        if other := [f"{what} {value}" for what, value in settings.items() if value != test.get(what)]:
            lines.append(
                f"\n{label}: of an earlier run, {', '.join(other)}; to test it anew, remove {name}/{METRICS_FILE}"
            )
    return "".join(lines)


def evaluate_protocols(
    evaluator: RankingEvaluator,
    model: Any,
    stage: Stage,
    ranks_folder: Path,
    setting: str = "",
    protocols: Sequence[str] | None = None,
    popularity: np.ndarray | None = None,
    **metadata: Any,
) -> dict[str, EvaluationResult]:
    """
    Results under the protocols; the ranks go to `{stage}[_{setting}]_{protocol}.parquet`, with the columns of
    [`rank_columns`].

    Args:
        evaluator (`RankingEvaluator`): of the test examples.
        model (`PreTrainedModel`): the recommender.
        stage (`Stage`): which it is.
        ranks_folder (`Path`): where the rank files go.
        setting (`str`, *optional*): of decoding, where a recipe tests several.
        protocols (`Sequence[str]`, *optional*): names of the protocols; all if not given.
        popularity (`np.ndarray` [I], *optional*): interactions of each item in training; by default the catalog's.
        metadata: for the rank files.

    Returns:
        `dict[str, EvaluationResult]`: by the protocol's name.
    """
    from accelerate import PartialState

    from hf_latentrec.evaluation import PROTOCOLS, save_ranks

    results, catalog = {}, evaluator.catalog(model)
    columns = rank_columns(evaluator.examples, catalog, catalog.popularity if popularity is None else popularity)
    for protocol in PROTOCOLS if protocols is None else protocols:
        what = ", ".join(filter(None, [setting, protocol]))
        results[protocol] = evaluator.evaluate(model, PROTOCOLS[protocol], description=f"test of {stage.name}, {what}")
        if PartialState().is_main_process:
            save_ranks(
                ranks_folder / f"{stage.name}_{what.replace(',', '').replace(' ', '_')}.parquet",
                example_ids(results[protocol].user_ids),
                results[protocol].ranks,
                split_fingerprint=evaluator.split_fingerprint,
                protocol=protocol,
                num_beams=evaluator.num_beams,
                num_thoughts=results[protocol].num_thoughts,
                columns=columns,
                checkpoint=stage.name,
                **metadata,
            )
    return results


def rank_columns(examples: Dataset, catalog: ItemCatalog | ItemTable, popularity: np.ndarray) -> dict[str, np.ndarray]:
    """
    What rank files tell of each example beside its rank: `user`, `target`, `target_popularity`, `history_length`.

    Args:
        examples (`Dataset`): rows of `user_id, history, target`.
        catalog (`ItemCatalog` or `ItemTable`): of all targets.
        popularity (`np.ndarray` [I]): interactions of each of its items in training.
    """
    import numpy as np

    from hf_latentrec.evaluation.ranks import USER_COLUMN

    targets = examples["target"][:]
    return {
        USER_COLUMN: np.array(examples["user_id"][:], dtype=object),
        "target": np.array(targets, dtype=object),
        "target_popularity": popularity[catalog.rows(targets)],
        "history_length": np.array([len(history) for history in examples["history"]]),
    }


def example_ids(user_ids: Sequence[str]) -> list[str]:
    """The user's id, and its number from the second example on of a user who has several (`u1`, `u2`, `u1#2`)."""
    seen: Counter[str] = Counter()
    ids = []
    for user_id in user_ids:
        seen[user_id] += 1
        ids.append(user_id if seen[user_id] == 1 else f"{user_id}#{seen[user_id]}")
    return ids


def report(
    results: Mapping[str, Mapping[str, dict]], labels: Mapping[str, str], header: str, columns: Sequence[str]
) -> str:
    """
    One table per way of testing, one row per stage.

    Args:
        results (`Mapping`): by stage and way of testing, metrics.
        labels (`Mapping[str, str]`): what tables call the stages.
        header (`str`): what all tables have in common.
        columns (`Sequence[str]`): the metrics to print.
    """
    from hf_latentrec.evaluation import format_metric_table

    lines = [header]
    for setting in dict.fromkeys(setting for metrics in results.values() for setting in metrics):
        rows = {labels[name]: metrics[setting] for name, metrics in results.items() if setting in metrics}
        lines += ["", setting, format_metric_table(rows, columns=columns, row_header="stage")]
    return "\n".join(lines)


def describe_counts(data: Any, num_targets: int) -> str:
    """The opening words: how much data there is."""
    return (
        f"{data.num_users:,} users, {data.num_items:,} items, {data.num_interactions:,} interactions, "
        f"{num_targets:,} training targets"
    )


def describe_data(data: Any, num_targets: int, processor: LatentRecProcessor) -> str:
    """How much data there is, and which items cannot be told apart."""
    return f"{describe_counts(data, num_targets)}\n{processor.catalog.describe_collisions()}"


def describe_outcome(model_folder: Path, ranks_folder: Path, has_processor: bool = True) -> str:
    """The closing words: where the model is, and how to load it."""
    auto_classes = {"model": "AutoModel", "processor": "AutoProcessor"} if has_processor else {"model": "AutoModel"}
    loading = [
        f'    {name} = {auto_class}.from_pretrained("{model_folder}")' for name, auto_class in auto_classes.items()
    ]
    loading[0] += ".eval()"
    return "\n".join(
        [
            f"The model is in {model_folder}, per-user ranks are in {ranks_folder}. Load it with:",
            "",
            f"    import hf_latentrec; from transformers import {', '.join(auto_classes.values())}",
            *loading,
        ]
    )


def close(state: Any) -> None:
    """Left to the interpreter's exit, a process group can abort the process there."""
    state.wait_for_everyone()
    state.destroy_process_group()
