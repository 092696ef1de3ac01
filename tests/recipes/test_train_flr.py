"""The FLR recipe as a user runs it, on very little data with titles as found in the wild."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel
from trl import TrlParser

from hf_latentrec.evaluation import load_ranks, ranking_metrics

from .title_runs import SMALL, write_title_data


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import train_flr as recipe  # noqa: E402
from compare_seeds import compare  # noqa: E402
from flr_arguments import DEFAULT_STAGES, TABLE_3, plan  # noqa: E402


CLASSES = (recipe.TitleDataArguments, recipe.FLRModelArguments, recipe.FLRStageArguments, recipe.FLRConfig)
WEIGHTS = ["--factor_losses", "orthogonality", "sparsity", "--factor_loss_weights", "0.5", "0.25"]
STAGES = [*DEFAULT_STAGES, "latentr3_lr_grpo", "none", "orthogonality_sparsity", "factors_1"]


def parse(*arguments):
    return TrlParser(CLASSES).parse_args_and_config([*SMALL, *map(str, arguments)])


def run(*arguments):
    recipe.main(*parse(*arguments))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_title_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A run of the usual stages and of some ablations, with fixed weights."""
    folder = tmp_path_factory.mktemp("out")
    run(
        f"--data_dir={data_dir}", f"--output_dir={folder}", "--split=published", "--num_factors=3",
        "--factor_iterations=1", "--beta=0.1", "--factor_users=6", *WEIGHTS, "--eval_protocols",
        "nothing filtered", "--stages", *STAGES,
    )  # fmt: skip
    return folder


def saved(folder: Path, stage: str, name: str) -> dict:
    return json.loads((folder / stage / name).read_text())


def test_every_stage_is_trained_tested_and_saved(out):
    for name in STAGES:
        stage = plan(3, 1)[name]
        reasoner = AutoModel.from_pretrained(out / name).config.reasoner_config
        start = plan(3, 1).get(stage.start_from, stage)
        expected = {"num_factors": None, "num_iterations": None, **start.reasoner, "num_thoughts": stage.num_thoughts}
        assert {key: getattr(reasoner, key) for key in expected} == expected
        ((setting, row),) = saved(out, name, "test_metrics.json").items()
        assert setting == "length penalty 0, nothing filtered"
        ranks = load_ranks(out / "ranks" / f"{name}_length_penalty_0_nothing_filtered.parquet")
        assert {key: row[key] for key in ("HR@5", "NDCG@10")}.items() <= ranking_metrics(ranks.ranks, (5, 10)).items()
    assert saved(out, ".", "latency.json")["num_thoughts"] == 1


def test_settings_reach_the_trainers_that_they_belong_to(out):
    def settings(stage, *names):
        return tuple(saved(out, stage, "training_args.json").get(name) for name in names)

    losses = ("factor_losses", "factor_loss_weights")
    for stage in ("flr", "flr_grpo", "factors_1", "orthogonality_sparsity"):
        assert settings(stage, *losses) == (["orthogonality", "sparsity"], [0.5, 0.25])
    assert settings("none", *losses) == ([], [])
    assert settings("latentr3", *losses) == settings("lr_grpo", *losses) == (None, None)
    assert settings("flr_grpo", "beta", "max_steps") == (0.1, 2)
    assert settings("lr_grpo", "beta", "advantage") == settings("latentr3_lr_grpo", "beta", "advantage")
    assert settings("lr_grpo", "beta", "advantage") == (0.0, "batch")
    assert settings("flr", "max_steps", "num_train_epochs") == (-1, 1.0)


@pytest.mark.parametrize("stage", ["lr_grpo", "flr_grpo"])
def test_reinforcement_is_validated_and_trains_the_reasoner_alone(out, stage):
    start = load_file(out / "flr" / "model.safetensors")
    last = load_file(out / stage / "checkpoint-2" / "model.safetensors")
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name], last[name])}
    assert moved == {"reasoner"}
    history = saved(out, stage, "checkpoint-2/trainer_state.json")["log_history"]
    assert [entry["step"] for entry in history if "eval_NDCG@10" in entry] == [0, 1, 2]


def test_factors_are_measured_and_compared_over_seeds(out, data_dir, capsys):
    factorized = [name for name in STAGES if name not in ("no_reasoning", "latentr3", "latentr3_lr_grpo")]
    assert sorted(file.parent.name for file in out.glob("*/factors.json")) == sorted(factorized)
    for name in factorized:
        statistics = saved(out, name, "factors.json")
        assert statistics["num_users"] == 6 and statistics["num_factors"] == (1 if name == "factors_1" else 3)
    # A finished run is reported again.
    run(
        f"--data_dir={data_dir}", f"--output_dir={out}", "--split=published", "--resume_from_checkpoint=true",
        "--factor_users=4", "--stages", *STAGES,
    )  # fmt: skip
    printed = capsys.readouterr().out
    table = printed[printed.index("Factors: ") : printed.index("Latency of flr:")].splitlines()
    assert "mean |corr|" in table[2]
    # One factor has nothing to be compared with.
    labels = ["FLR, K=4", "FLR + LR-GRPO, K=4", "FLR + FLR-GRPO, K=4", "FLR, K=4, no factor loss"]
    assert [line.split("  ")[0] for line in table[4:-1]] == [*labels, "FLR, K=4, orthogonality + sparsity"]
    assert saved(out, "flr", "factors.json")["num_users"] == 4
    assert f'AutoModel.from_pretrained("{out / "flr_grpo"}")' in printed
    value = f"{saved(out, 'flr', 'factors.json')['disentanglement_score']:.4f}"
    assert value in table[4]


@pytest.mark.parametrize(
    "setting", ["hidden_size=24", "embedding_dropout=0.3", "num_factors=2", "factor_iterations=2"]
)
def test_a_stage_keeps_the_settings_of_its_start(out, data_dir, tmp_path, setting):
    shutil.copytree(out / "flr", tmp_path / "flr")
    same = {"num_factors": 3, "factor_iterations": 1}
    name, value = setting.split("=")
    arguments = [f"--{key}={value}" for key, value in {**same, name: value}.items()]
    shared = [f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--split=published", "--stages=flr_grpo"]
    found = name.removeprefix("factor_")
    with pytest.raises(
        ValueError, match=rf"flr was trained with (num_)?{found} \d.*, but this run asks for {value}, "
    ):
        run(*shared, *arguments)


def test_all_stages_of_the_paper_are_planned():
    stages = plan(3, 5)
    assert [stages[f"factors_{k}"].reasoner["num_factors"] for k in range(1, 9)] == [*range(1, 9)]
    for name in TABLE_3:
        losses = [] if name == "none" else name.split("_")
        assert stages[name].settings["factor_losses"] == losses
        assert stages[name].settings["factor_loss_weights"] is None
        # The best epoch is that of the lowest recommendation loss, which is the whole loss without regularizers.
        assert stages[name].settings.get("metric_for_best_model") == ("loss/cross_entropy" if losses else None)
    flr = {"reasoner": "factorized_attention", "num_factors": 3, "num_iterations": 5}
    assert all(stages[name].reasoner == flr and stages[name].algorithm == "FLRSFT" for name in ("flr", *TABLE_3))
    assert len({stage.label for stage in stages.values()}) == len(stages)
    for stage in stages.values():
        assert stage.reinforces == (stage.start_from is not None)


def test_fixed_weights_belong_to_their_losses():
    stages = plan(4, 2, ["orthogonality", "sparsity", "diversity"], [0.5, 0.25, 2.0])
    assert stages["diversity_sparsity"].settings["factor_loss_weights"] == [2.0, 0.25]
    assert stages["flr"].settings["factor_loss_weights"] == [0.5, 0.25, 2.0]
    assert stages["none"].settings["factor_loss_weights"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=flr_grpo"], "starts from .*flr, which is not complete; run flr first"),
        (["--stages=latentr3_lr_grpo"], "starts from .*latentr3, which is not complete"),
        (["--num_factors=0"], "num_factors is 0"),
        (["--num_factors=17"], "num_factors is 17"),
        (["--factor_iterations=0"], "factor_iterations is 0"),
        (["--stages=diversity_sparsity", *WEIGHTS], "stage diversity_sparsity needs a weight of 'diversity'"),
        (["--load_in_4bit"], "quantized"),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_training(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stages", "message"), [("[flr, thinking]", "stages holds 'thinking'; choose from"), ("[]", "stages is empty")]
)
def test_a_config_file_is_checked_like_the_command_line(tmp_path, stages, message):
    config = tmp_path / "config.yaml"
    config.write_text(f"stages: {stages}")
    with pytest.raises(ValueError, match=message):
        run("--config", config, f"--output_dir={tmp_path / 'out'}")


@pytest.mark.parametrize("config", sorted((Path(recipe.__file__).parent / "configs").glob("flr_*.yaml")))
def test_configs_are_settings_that_exist(config):
    _, model, stages, args = TrlParser(CLASSES).parse_args_and_config(["--config", str(config), "--bf16=false"])
    assert args.load_best_model_at_end and args.metric_for_best_model == "NDCG@10"
    assert set(stages.stages) <= set(plan())
    assert model.num_factors == (3 if "_cds" in config.name else 4) and model.factor_iterations == 2


def test_seeds_are_compared_by_their_factors_too(tmp_path):
    for seed, score in ((1, 0.2), (2, 0.4)):
        folder = tmp_path / str(seed) / "flr"
        folder.mkdir(parents=True)
        metrics = dict.fromkeys(("HR@5", "NDCG@5", "HR@10", "NDCG@10"), 0.1)
        (folder / "test_metrics.json").write_text(json.dumps({"length penalty 0, nothing filtered": metrics}))
        names = ("mean_abs_correlation", "abs_mean_correlation", "disentanglement_score", "gate_entropy")
        (folder / "factors.json").write_text(json.dumps({"num_factors": 2, **dict.fromkeys(names, score)}))
    table = compare([tmp_path / "1", tmp_path / "2"])
    assert "0.3000 ± 0.1414" in table[table.index("Factors: ") :]
