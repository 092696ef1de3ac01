"""
The same weights of LARES after every number of reasoning steps, from several initial states: a table and a picture.

    python recipes/lares_depth.py --models outputs/lares/spt outputs/lares/rpt --data_dir DATA
    accelerate launch recipes/lares_depth.py --models ... --depth_steps 1 2 4 8 16 --eval_seeds 5

train_lares.py does the same for its stages `spt` and `rpt` in its stage `depths`. Every model gets a file for each
protocol in its folder (`depths_nothing_filtered.json`, ...), where a later call finds what is done; the pictures go
where `--picture` says, the protocol in their names (they need the extra `plots`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lares_evaluation import table_columns, with_seed
from sequential_arguments import SequentialDataArguments, SequentialTestArguments
from sequential_setup import SequentialSetup
from training_setup import HelpFormatter
from training_stages import close
from trl import TrlParser


if TYPE_CHECKING:
    from hf_latentrec.evaluation import SequentialEvaluator

DEPTHS_FILE, PICTURE = "depths.json", "depths.png"
Depths = dict[int, list[dict[str, float]]]
"""By number of steps, the metrics of every initial state."""


@dataclass
class DepthArguments(SequentialTestArguments):
    """Which models are tested, and how."""

    models: list[str] = field(default_factory=list, metadata={"help": "Folders of trained models."})
    depth_steps: list[int] = field(
        default_factory=lambda: list(range(1, 13)), metadata={"help": "Numbers of steps to test."}
    )
    eval_seeds: int = field(default=3, metadata={"help": "Initial states to test with."})
    picture: str = field(
        default=PICTURE, metadata={"help": "Where the pictures go; the protocol is added to the name."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.models:
            raise ValueError("models is empty; pass the folders of trained models")


def measure_depths(
    folder: Path, evaluator: SequentialEvaluator, steps: Sequence[int], num_states: int, protocol: str, device: Any
) -> Depths:
    """
    Metrics of a model after numbers of steps; what the file in its folder holds is not computed again.

    Args:
        folder (`Path`): of the model.
        evaluator (`SequentialEvaluator`): of the test examples.
        steps (`Sequence[int]`): numbers of steps.
        num_states (`int`): initial states of each.
        protocol (`str`): of evaluation.
        device: where the model computes.

    Raises:
        ValueError: where the model was trained on another split, or that file is of other weights, examples or
            settings.
    """
    from accelerate import PartialState
    from transformers import AutoModel

    from hf_latentrec.cot.fingerprints import model_fingerprint
    from hf_latentrec.evaluation import PROTOCOLS

    model = AutoModel.from_pretrained(folder).to(device)
    if model.config.split_fingerprint != evaluator.split_fingerprint:
        raise ValueError(
            f"{folder} was trained on the split {model.config.split_fingerprint}, but this data gives "
            f"{evaluator.split_fingerprint}; use the same data and data arguments"
        )
    state, path = PartialState(), with_protocol(folder / DEPTHS_FILE, protocol)
    how = {
        "model": model_fingerprint(model),  # the stage may have been trained on since
        "split": evaluator.split_fingerprint,
        "protocol": protocol,
        "num_states": num_states,
        "num_examples": len(evaluator.examples),
        "cutoffs": list(evaluator.ks),
    }
    saved = read_depths(path, how)
    state.wait_for_everyone()  # before any of them writes
    for number in steps:
        if number in saved:
            continue
        saved[number] = [
            with_seed(evaluator, seed, number)
            .evaluate(model, PROTOCOLS[protocol], description=f"{folder.name}, {number} steps, state {seed}")
            .metrics
            for seed in range(num_states)
        ]
        if state.is_main_process:
            path.write_text(json.dumps({**how, "depths": saved}, indent=1))
    state.wait_for_everyone()
    return {number: saved[number] for number in sorted(steps)}


def read_depths(path: Path, how: Mapping[str, Any]) -> Depths:
    """What an earlier call measured in the same way."""
    if not path.exists():
        return {}
    saved = json.loads(path.read_text())
    for name, now in how.items():
        if saved.get(name) != now:
            raise ValueError(
                f"{path} was measured with {name} {saved.get(name)!r}, but now that is {now!r}; remove it, and it is "
                "made anew"
            )
    return {int(number): metrics for number, metrics in saved["depths"].items()}


def describe_depths(depths: Mapping[str, Depths], protocol: str, columns: Sequence[str], picture: Path) -> str:
    """
    A table per model, and a picture of the last column; one line says where it is.

    Args:
        depths (`Mapping`): by label.
        protocol (`str`): of evaluation.
        columns (`Sequence[str]`): metrics.
        picture (`Path`): of the picture, without the protocol.
    """
    from hf_latentrec.evaluation import format_seed_table

    lines = [f"After every number of steps, {protocol}, mean and spread over initial states"]
    for label, by_number in depths.items():
        rows = {str(number): metrics for number, metrics in by_number.items()}
        lines += ["", label, format_seed_table(rows, columns=columns, row_header="steps")]
    try:
        from hf_latentrec.evaluation.depth_plot import plot_depths
    except ImportError as error:
        return "\n".join([*lines, "", f"It is not drawn: {error}"])
    metric = columns[-1]
    curves = {
        label: {number: [row[metric] for row in metrics] for number, metrics in by_number.items()}
        for label, by_number in depths.items()
    }
    return "\n".join([*lines, "", f"Drawn in {plot_depths(curves, with_protocol(picture, protocol), metric)}"])


def with_protocol(path: Path, protocol: str) -> Path:
    """The file of a protocol.

    Example:
        >>> with_protocol(Path("depths.png"), "nothing filtered").name
        'depths_nothing_filtered.png'
    """
    return path.with_stem(f"{path.stem}_{protocol.replace(' ', '_')}")


def study_depths(
    models: Mapping[str, Path], evaluator: SequentialEvaluator, args: Any, picture: Path, device: Any
) -> None:
    """
    Tests models after every number of steps; prints a table for each under every protocol, and draws them.

    Args:
        models (`Mapping[str, Path]`): folders of models by label.
        evaluator (`SequentialEvaluator`): of the test examples.
        args: with `depth_steps`, `eval_seeds`, `eval_protocols` and `cutoffs`.
        picture (`Path`): where the pictures go, without their protocol.
        device: where the models compute.
    """
    from accelerate import PartialState

    for protocol in args.eval_protocols:
        depths = {
            label: measure_depths(folder, evaluator, args.depth_steps, args.eval_seeds, protocol, device)
            for label, folder in models.items()
        }
        if PartialState().is_main_process:
            print("\n" + describe_depths(depths, protocol, table_columns(args.cutoffs), picture), flush=True)


def main(data_args: SequentialDataArguments, args: DepthArguments) -> None:
    """The whole job, for parsed arguments."""
    from accelerate import PartialState

    state = PartialState()
    setup = SequentialSetup.load(data_args, args)
    models = {folder: Path(folder) for folder in args.models}
    study_depths(models, setup.test, args, Path(args.picture), state.device)
    close(state)


ARGUMENTS = (SequentialDataArguments, DepthArguments)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
