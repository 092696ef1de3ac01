"""The search of hyperparameters as a user runs it, on very little data."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from transformers import AutoModel
from trl import TrlParser

from hf_latentrec.trainer import SequentialTrainer
from tests.recipes.search_data import write_events


optuna = pytest.importorskip("optuna")

# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import search_sequential as recipe  # noqa: E402
import train_sequential  # noqa: E402
from hyperparameter_search import DEFAULT_SPACE  # noqa: E402
from sequential_stages import plan  # noqa: E402


SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--num_train_epochs=3", "--early_stopping_patience=1", "--hidden_size=16",
    "--num_hidden_layers=1", "--intermediate_size=32", "--logging_steps=1", "--cutoffs", "5", "10",
]  # fmt: skip
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "hidden_size": [8, 16],
    "intermediate_size": {"low": 8, "high": 32},
    "per_device_train_batch_size": [8, 16],
    "layer_norm_eps": [1e-12, 1e-8],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("data"))


def run(*arguments):
    recipe.main(*TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, *map(str, arguments)]))


def trials_of(folder: Path, model: str) -> list:
    return optuna.load_study(study_name=model, storage=f"sqlite:///{folder / model / 'study.db'}").trials


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A study of three trials."""
    folder = tmp_path_factory.mktemp("out")
    run(f"--data_dir={data_dir}", f"--output_dir={folder}", "--n_trials=3", f"--search_space={json.dumps(SPACE)}")
    return folder


def test_values_come_from_the_space_and_the_best_is_written(out):
    trials = trials_of(out, "sasrec")
    assert len(trials) == 3 and len({trial.params["learning_rate"] for trial in trials}) == 3
    for trial in trials:
        assert set(trial.params) == set(SPACE) and 1e-4 <= trial.params["learning_rate"] <= 1e-1
        assert 8 <= trial.params["intermediate_size"] <= 32 and isinstance(trial.params["intermediate_size"], int)
    best = max(trials, key=lambda trial: trial.value)
    saved = json.loads((out / "sasrec" / "best.json").read_text())
    assert saved == {"NDCG@10": best.value, "trial": best.number, **best.params}
    assert sorted(path.name for path in (out / "sasrec").iterdir()) == ["best.json", "study.db"]


def test_a_search_goes_on_where_it_stopped(out, data_dir, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={out}", f"--search_space={json.dumps(SPACE)}"]
    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    before = [trial.params for trial in trials_of(out, "sasrec")]
    run(*arguments, "--n_trials=3", "--resume_from_checkpoint=true")
    assert [trial.params for trial in trials_of(out, "sasrec")] == before
    run(*arguments, "--n_trials=4", "--resume_from_checkpoint=true")
    after = [trial.params for trial in trials_of(out, "sasrec")]
    assert after[:3] == before and len(after) == 4 and after[3] not in before
    assert "SASRec, validation, 4 complete trials" in capsys.readouterr().out
    for changed, named in [
        ("--metric_for_best_model=HR@10", "metric_for_best_model NDCG@10, but this search has HR@10"),
        ("--split=temporal", "split_fingerprint .*, but this search has"),
        ("--num_hidden_layers=2", "model_settings .*, but this search has"),
        ("--num_train_epochs=4", "num_train_epochs 3.0, but this search has 4.0"),
        ("--contrastive=duorec", "contrastive none, but this search has duorec"),
        (
            f"--search_space={json.dumps({'hidden_size': SPACE['hidden_size']})}",
            "search_space .*, but this search has",
        ),
    ]:
        with pytest.raises(ValueError, match=f"study.db was begun with {named}"):
            run(*arguments, "--resume_from_checkpoint=true", changed)


def test_what_was_found_is_understood_by_the_training_recipe(out, data_dir, tmp_path, capsys):
    run(f"--data_dir={data_dir}", f"--output_dir={out}", "--n_trials=1", "--resume_from_checkpoint=true",
        f"--search_space={json.dumps(SPACE)}")  # fmt: skip
    found = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    train_sequential.main(
        *TrlParser(train_sequential.ARGUMENTS).parse_args_and_config(
            [*SMALL, f"--data_dir={data_dir}", f"--output_dir={tmp_path}", *found]
        )
    )
    best = json.loads((out / "sasrec" / "best.json").read_text())
    config = AutoModel.from_pretrained(tmp_path / "sasrec").config
    settings = json.loads((tmp_path / "sasrec" / "training_args.json").read_text())
    for name in ("hidden_size", "intermediate_size", "layer_norm_eps"):
        assert getattr(config, name) == best[name]
    for name in ("learning_rate", "per_device_train_batch_size"):
        assert settings[name] == best[name]
    last = max((tmp_path / "sasrec").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert json.loads((last / "trainer_state.json").read_text())["best_metric"] == best["NDCG@10"]


@pytest.mark.parametrize(
    ("model", "space", "expected"),
    [
        # Rows of whole windows have a batch size of their own.
        (
            "bsarec",
            {"per_device_train_batch_size": [32], "frequency_weight": [0.9]},
            "--unpacked_batch_size 32 --model_settings '{\"frequency_weight\": 0.9}'",
        ),
        # Model and trainer both have a temperature; the model's is searched.
        (
            "rearec_prl",
            {"temperature": [0.5], "learning_rate": [0.01]},
            "--learning_rate 0.01 --model_settings '{\"temperature\": 0.5}'",
        ),
    ],
)
def test_what_was_found_is_printed_as_arguments(data_dir, tmp_path, capsys, model, space, expected):
    run(f"--data_dir={data_dir}", f"--output_dir={tmp_path}", f"--model={model}", "--n_trials=1",
        f"--search_space={json.dumps(space)}", "--num_train_epochs=1")  # fmt: skip
    assert capsys.readouterr().out.strip().splitlines()[-1].strip() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_trials=0"], "n_trials is 0"),
        (['--search_space={"lr": [1]}'], "search_space holds 'lr', which sasrec has no setting for, nor its trainer"),
        (
            ["--model=rearec_erl", '--search_space={"variant": ["erl"]}'],
            "holds 'variant', which rearec_erl does not leave",
        ),
        (['--search_space={"max_history": [5, 9]}'], "search_space holds 'max_history'"),
        (['--search_space={"dropout": 0.1}'], r"search_space\['dropout'\] is 0.1; pass a list"),
        (['--search_space={"dropout": {"low": 0.1}}'], r"search_space\['dropout'\] is .*; pass a list"),
        (['--search_space={"dropout": []}'], r"search_space\['dropout'\] is \[\]; pass a list"),
        (["--model=popularity"], "popularity is not trained, so there is nothing to search"),
        (["--metric_for_best_model=NDCG@7"], "metric_for_best_model is 'NDCG@7'"),
    ],
)
def test_what_cannot_work_is_one_clear_error(data_dir, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out").exists()


def test_the_best_epoch_of_a_trial_counts(data_dir, tmp_path, monkeypatch):
    """And not the last one, after which it stopped because it was worse."""
    values = iter([0.2, 0.5, 0.3])
    rank_users = SequentialTrainer._rank_users
    monkeypatch.setattr(
        SequentialTrainer, "_rank_users", lambda self, prefix: {**rank_users(self, prefix), "eval_HR@5": next(values)}
    )
    run(f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--n_trials=1", "--metric_for_best_model=eval_HR@5",
        '--search_space={"dropout": [0.1]}')  # fmt: skip
    (trial,) = trials_of(tmp_path, "sasrec")
    assert list(trial.intermediate_values.values()) == [0.2, 0.5, 0.5] and trial.value == 0.5


def test_the_default_space_fits_every_model_that_is_trained(data_dir, tmp_path):
    args = TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, f"--data_dir={data_dir}"])
    setup = recipe.SequentialSetup.load(args[0], args[2])
    for stage in plan().values():
        if stage.is_trained and not stage.reads_text:
            names = recipe.SequentialSearch(setup, stage, {"hidden_size": 16}, DEFAULT_SPACE, args[-1]).model_names
            assert names == ["dropout", "hidden_size"]
