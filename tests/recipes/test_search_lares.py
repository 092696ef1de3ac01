"""The search of LARES' hyperparameters as a user runs it, on very little data."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from transformers import AutoModel
from trl import TrlParser

from tests.recipes.search_data import write_events


optuna = pytest.importorskip("optuna")

# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import search_lares as recipe  # noqa: E402
import train_lares  # noqa: E402


SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--num_train_epochs=2", "--early_stopping_patience=1", "--hidden_size=16",
    "--intermediate_size=32", "--logging_steps=1", "--cutoffs", "5", "10",
]  # fmt: skip
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "hidden_size": [8, 16],
    "mean_steps": [2, 3],
    "tla_weight": [0.2, 0.3],
    "per_device_train_batch_size": [8, 16],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("data"))


def run(*arguments):
    recipe.main(*TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, *map(str, arguments)]))


def test_a_trial_is_what_the_recipe_trains_with_its_values(data_dir, tmp_path, capsys):
    search, shared = tmp_path / "search", f"--data_dir={data_dir}"
    run(shared, f"--output_dir={search}", f"--search_space={json.dumps(SPACE)}", "--n_trials=2")
    printed = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    study = optuna.load_study(study_name="spt", storage=f"sqlite:///{search / 'spt' / 'study.db'}")
    assert len(study.trials) == 2 and all(set(trial.params) == set(SPACE) for trial in study.trials)
    assert sorted(path.name for path in (search / "spt").iterdir()) == ["best.json", "study.db"]
    for trial in study.trials:
        values = [word for name, value in trial.params.items() for word in (f"--{name}", str(value))]
        assert (values == printed) == (trial.number == study.best_trial.number)
        out = tmp_path / str(trial.number)
        arguments = [*SMALL, shared, f"--output_dir={out}", "--stages=spt", "--eval_seeds=1", *values]
        train_lares.main(*TrlParser(train_lares.ARGUMENTS).parse_args_and_config(arguments))
        assert AutoModel.from_pretrained(out / "spt").config.mean_steps == trial.params["mean_steps"]
        last = max((out / "spt").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        assert json.loads((last / "trainer_state.json").read_text())["best_metric"] == trial.value


def test_searched_settings_of_the_model_are_those_of_a_trial(data_dir, tmp_path):
    data_args, model_args, stage_args, _, args = TrlParser(recipe.ARGUMENTS).parse_args_and_config(
        [*SMALL, f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
    )
    search = recipe.LaresSearch(
        stage_args,
        setup=recipe.SequentialSetup.load(data_args, stage_args),
        stage=recipe.plan()["spt_no_pre_block"],
        settings={"max_history": data_args.max_history, **model_args.given()},
        space={"mean_steps": [2], "sla_weight": [0.3]},
        args=args,
    )
    config = search.make_model({"mean_steps": 2, "num_core_layers": 3}).config
    assert (config.mean_steps, config.num_core_layers, config.num_pre_layers) == (2, 3, 0)
    assert search.model_names == ["mean_steps"]
    assert search.arguments({"per_device_train_batch_size": 32}) == "--per_device_train_batch_size 32"
    search.settings["backbone"] = "fmlp"  # rows of whole windows have a batch size of their own
    assert search.arguments({"per_device_train_batch_size": 32}) == "--unpacked_batch_size 32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (['--search_space={"rpt_beta": [1.0]}'], "search_space holds 'rpt_beta', which spt has no setting for"),
        (['--search_space={"backbone": ["fmlp"]}'], "search_space holds 'backbone', which spt does not leave free"),
        (["--stages=spt_no_tla", '--search_space={"tla_weight": [0.1]}'], "'tla_weight', which spt_no_tla does not"),
        (
            ["--stages=spt_no_pre_block", '--search_space={"num_pre_layers": [1]}'],
            "'num_pre_layers', which spt_no_pre",
        ),
        (["--tla_weight=0", '--search_space={"tla_weight": [0.1]}'], "tla_weight is searched, but is 0"),
        (["--config", "CONFIG"], "stages holds 'rpt', which is not searched; choose from"),
    ],
)
def test_what_cannot_work_is_one_clear_error(data_dir, tmp_path, arguments, message):
    (tmp_path / "CONFIG").write_text("stages: [rpt]\n")
    arguments = [argument.replace("CONFIG", str(tmp_path / "CONFIG")) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out").exists()
