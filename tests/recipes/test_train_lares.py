"""The LARES recipe as a user runs it, on very little data."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoModel
from trl import TrlParser

import hf_latentrec.data
from hf_latentrec.data import make_synthetic
from hf_latentrec.evaluation import PROTOCOLS, load_ranks, ranking_metrics


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import lares_depth  # noqa: E402
import train_lares as recipe  # noqa: E402
from lares_stages import plan  # noqa: E402


CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--num_train_epochs=1", "--rpt_num_train_epochs=1", "--hidden_size=16",
    "--intermediate_size=32", "--mean_steps=3", "--logging_steps=1", "--eval_seeds=2", "--selection_top=10",
    "--cutoffs", "5", "10",
]  # fmt: skip
DEPTHS = ["--depth_steps", "1", "3", "5"]
ONE_PROTOCOL = ["--eval_protocols", "nothing filtered"]
ABLATIONS = [
    "spt_no_sla", "spt_no_tla", "spt_no_alignment", "spt_fixed_depth", "spt_no_pre_block", "spt_steps_2", "rpt_hybrid",
    "rpt_ndcg", "rpt_all_samples", "rpt_no_reward", "rpt_no_alignment", "rpt_steps_2",
]  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Thirty users with eight items each, out of twenty items; the last items depend on the first."""
    folder = tmp_path_factory.mktemp("data")
    inter = {str(u): [(u * 3 + 7 * k) % 20 for k in range(8)] for u in range(30)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i // 5}>", f"<b_{i % 5}>"] for i in range(20)}))
    return folder


def run(*arguments):
    recipe.main(*TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, *map(str, arguments)]))


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A run of the default stages but one."""
    folder = tmp_path_factory.mktemp("out")
    run(f"--data_dir={data_dir}", f"--output_dir={folder}", *DEPTHS, "--stages", "spt", "selection", "rpt", "depths")
    return folder


@pytest.fixture(scope="module")
def ablations(data_dir, out):
    """Most other stages, in the same folder."""
    run(f"--data_dir={data_dir}", f"--output_dir={out}", *ONE_PROTOCOL, "--stages", *ABLATIONS)
    return out


def saved(folder: Path, stage: str, name: str):
    return json.loads((folder / stage / name).read_text())


def test_metrics_are_means_over_states_of_those_of_the_ranks(out):
    for stage in ("spt", "rpt"):
        means, states = saved(out, stage, "test_metrics.json"), saved(out, stage, "test_states.json")
        assert list(means) == list(states) == list(PROTOCOLS)
        for protocol, by_state in states.items():
            for state, metrics in enumerate(by_state):
                ranks = load_ranks(out / "ranks" / f"{stage}_state_{state}_{protocol.replace(' ', '_')}.parquet")
                assert metrics == pytest.approx(ranking_metrics(ranks.ranks, (5, 10))) and len(ranks.user_ids) == 30
                assert (ranks.metadata["seed"], ranks.metadata["num_steps"]) == (42, 3)
            assert len(by_state) == 2 and by_state[0] != by_state[1]
            for name, mean in means[protocol].items():
                assert mean == pytest.approx(np.mean([metrics[name] for metrics in by_state]))


def test_rpt_goes_on_from_spt_with_the_selected_samples(out):
    spt, rpt = (AutoModel.from_pretrained(out / stage) for stage in ("spt", "rpt"))
    assert (spt.config.dropout, rpt.config.dropout, rpt.config.attention_dropout) == (0.2, 0.1, 0.1)
    assert spt.config.mean_steps == rpt.config.mean_steps == 3
    settings = saved(out, "rpt", "training_args.json")
    assert (settings["learning_rate"], settings["beta"], settings["num_generations"]) == (5e-4, 1.0, 4)
    with safe_open(out / "spt" / "selection.safetensors", framework="numpy") as file:
        circumstances = json.loads(file.metadata()["hf_latentrec.selection"])
        samples = file.get_tensor("samples")
    assert circumstances["top"] == 10 and circumstances["split"] == spt.config.split_fingerprint
    assert 0 < len(samples) < 30 * 5


def test_settings_reach_the_trainers(ablations):
    def settings(stage, *names):
        return tuple(saved(ablations, stage, "training_args.json")[name] for name in names)

    names = ("tla_weight", "sla_weight", "fixed_depth")
    assert settings("spt", *names) == (0.1, 0.5, False)
    assert settings("spt_no_sla", *names) == (0.1, 0.0, False)
    assert settings("spt_no_tla", *names) == (0.0, 0.5, False)
    assert settings("spt_no_alignment", *names) == (0.0, 0.0, False)
    assert settings("spt_fixed_depth", *names) == (0.1, 0.5, True)
    assert settings("rpt", "policy", "reward") == ("target", "recall")
    assert settings("rpt_hybrid", "policy", "reward") == ("hybrid", "recall")
    assert settings("rpt_ndcg", "policy", "reward") == ("target", "ndcg")
    configs = {stage: AutoModel.from_pretrained(ablations / stage).config for stage in ABLATIONS}
    assert [configs[stage].num_pre_layers for stage in ("spt_no_sla", "spt_no_pre_block")] == [1, 0]
    assert [configs[stage].mean_steps for stage in ("spt_no_sla", "spt_steps_2", "rpt_steps_2")] == [3, 2, 2]
    assert (ablations / "spt_steps_2" / "selection.safetensors").exists()  # of the model that rpt_steps_2 starts from


def test_the_control_of_post_training_rewards_all_rankings_alike(ablations):
    states = (ablations / "rpt_no_reward").glob("checkpoint-*/trainer_state.json")
    logs = [log for state in states for log in json.loads(state.read_text())["log_history"] if "reward" in log]
    assert logs
    assert all(log["reward"] == 1 and log["reward_std"] == log["loss/policy"] == 0 < log["kl"] for log in logs)


def test_depths_are_tested_drawn_and_kept(out, data_dir, capsys):
    pytest.importorskip("matplotlib")
    for stage, protocol in itertools.product(("spt", "rpt"), ("nothing filtered", "seen items excluded")):
        depths = saved(out, stage, f"depths_{protocol.replace(' ', '_')}.json")
        assert list(depths["depths"]) == ["1", "3", "5"] and depths["protocol"] == protocol
        # At the model's own number of steps, it is the test.
        assert depths["depths"]["3"] == saved(out, stage, "test_states.json")[protocol]
        assert depths["depths"]["1"] != depths["depths"]["5"]
    assert (out / "depths_nothing_filtered.png").stat().st_size > 0
    kept = out / "rpt" / "depths_nothing_filtered.json"
    before = kept.stat().st_mtime_ns
    shared = [f"--data_dir={data_dir}", "--cutoffs", "5", "10", "--eval_seeds=2", f"--picture={out / 'again.png'}"]
    arguments = [*shared, "--models", str(out / "spt"), str(out / "rpt")]
    lares_depth.main(*TrlParser(lares_depth.ARGUMENTS).parse_args_and_config([*arguments, *DEPTHS]))
    assert kept.stat().st_mtime_ns == before and (out / "again_seen_items_excluded.png").exists()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("1 ", "3 ", "5 ")) for line in lines) == 12
    for replaced, message in {
        ("--eval_seeds=2", "--eval_seeds=1"): "num_states 2, but now that is 1",
        ("10", "9"): r"cutoffs \[5, 10\], but now that is \[5, 9\]",
    }.items():
        others = [replaced[1] if argument == replaced[0] else argument for argument in arguments]
        with pytest.raises(ValueError, match=f"was measured with {message}; remove it"):
            lares_depth.main(*TrlParser(lares_depth.ARGUMENTS).parse_args_and_config(others))


def test_depths_of_other_weights_are_refused(out, data_dir, tmp_path):
    model = AutoModel.from_pretrained(out / "spt")
    model.get_input_embeddings().weight.data[1:] += 1
    shutil.copytree(out / "spt", tmp_path / "spt")
    model.save_pretrained(tmp_path / "spt")  # as training on would
    arguments = [f"--data_dir={data_dir}", "--cutoffs", "5", "10", "--eval_seeds=2", f"--models={tmp_path / 'spt'}"]
    with pytest.raises(ValueError, match="was measured with model '.*', but now that is '.*'; remove it"):
        lares_depth.main(*TrlParser(lares_depth.ARGUMENTS).parse_args_and_config([*arguments, *DEPTHS]))


def test_a_complete_run_has_nothing_left_to_do(out, data_dir, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={out}", *DEPTHS, "--stages", "spt", "rpt", "depths"]
    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    run(*arguments, "--resume_from_checkpoint=true")
    printed = capsys.readouterr().out
    assert "===" not in printed and "30 examples, whole catalog" in printed and "2 initial states" in printed
    for label in ("SPT", "LARES (SPT + RPT)"):
        assert sum(line.startswith(f"{label}  ") for line in printed.splitlines()) == len(PROTOCOLS)
    assert f'AutoModel.from_pretrained("{out / "rpt"}")' in printed


def test_a_run_that_was_cut_goes_on_to_the_same_metrics(data_dir, tmp_path, monkeypatch):
    def arguments(name):
        return [
            f"--data_dir={data_dir}", f"--output_dir={tmp_path / name}", *ONE_PROTOCOL, "--num_train_epochs=2",
            "--save_total_limit=9", "--stages", "spt", "rpt",
        ]  # fmt: skip

    run(*arguments("whole"))
    select = recipe.make_trainer.__globals__["selected_samples"]
    monkeypatch.setitem(recipe.make_trainer.__globals__, "selected_samples", None)
    with pytest.raises(TypeError):
        run(*arguments("cut"))
    # What a kill in the second epoch leaves of the pre-training: its first checkpoint.
    (tmp_path / "cut" / "spt" / "test_metrics.json").unlink()
    first, *later = sorted((tmp_path / "cut" / "spt").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for folder in later:
        shutil.rmtree(folder)
    monkeypatch.setitem(recipe.make_trainer.__globals__, "selected_samples", select)
    run(*arguments("cut"), "--resume_from_checkpoint=true")
    for stage in ("spt", "rpt"):
        whole, resumed = (saved(tmp_path / name, stage, "test_metrics.json") for name in ("whole", "cut"))
        assert resumed["nothing filtered"] == pytest.approx(whole["nothing filtered"])
    assert len(later) == 1 and first.exists()


@pytest.mark.parametrize("backbone", ["fmlp", "tedrec"])
def test_other_backbones(tmp_path, backbone, monkeypatch, capsys):
    """On synthetic data, whose items have titles."""
    small = {"num_users": 20, "num_items": 60, "max_length": 10}
    monkeypatch.setattr(hf_latentrec.data, "make_synthetic", lambda: make_synthetic(**small))
    run(f"--output_dir={tmp_path}", f"--backbone={backbone}", *ONE_PROTOCOL, "--stages", "spt", "rpt")
    told = re.findall(r"best NDCG@10 of validation: (\S+),", capsys.readouterr().out)
    for stage, kept in zip(("spt", "rpt"), told, strict=True):
        (path,) = (tmp_path / stage).glob("checkpoint-*/trainer_state.json")
        best = json.loads(path.read_text())["best_metric"]
        assert float(kept) == pytest.approx(best, abs=5e-5)
    rpt = AutoModel.from_pretrained(tmp_path / "rpt")
    assert (rpt.config.backbone, rpt.config.text_size) == (backbone, 256 if backbone == "tedrec" else 1)
    assert 0 < saved(tmp_path, "rpt", "test_metrics.json")["nothing filtered"]["HR@10"] <= 1


def test_a_selection_of_other_settings_is_refused(out, data_dir, tmp_path):
    shutil.copytree(out / "spt", tmp_path / "spt")
    shared = [f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--stages=rpt", *ONE_PROTOCOL]
    with pytest.raises(ValueError, match="is stale: it was made with top 10, but now that is 5"):
        run(*shared, "--selection_top=5")


def test_a_stage_needs_the_one_before_and_the_same_data(out, data_dir, tmp_path):
    shared = [f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'new'}"]
    for stage, start in (("rpt", "spt"), ("rpt_steps_6", "spt_steps_6")):
        with pytest.raises(ValueError, match=f"is not complete; run {start} first"):
            run(*shared, f"--stages={stage}")
    with pytest.raises(ValueError, match="samples are selected by .*spt, which is not complete"):
        run(*shared, "--stages=selection")
    other = tmp_path / "other"
    other.mkdir()
    (other / "Toy.index.json").write_text((data_dir / "Toy.index.json").read_text())
    inter = json.loads((data_dir / "Toy.inter.json").read_text())
    (other / "Toy.inter.json").write_text(json.dumps({user: items[::-1] for user, items in inter.items()}))
    shutil.copytree(out / "spt", tmp_path / "moved" / "spt")
    with pytest.raises(ValueError, match="was trained with .*but this data has"):
        run(f"--data_dir={other}", f"--output_dir={tmp_path / 'moved'}", "--stages=rpt")


def test_a_stage_keeps_the_settings_of_its_start(out, data_dir, tmp_path):
    shutil.copytree(out / "spt", tmp_path / "spt")
    shared = [f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--stages=rpt"]
    for name, value in (("intermediate_size", 96), ("mean_steps", 5), ("aggregation", "concat")):
        with pytest.raises(ValueError, match=rf"spt was trained with {name} .*, but this run asks for '?{value}'?, "):
            run(*shared, f"--{name}={value}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--stages", "spt_steps_9"], "invalid choice|stages holds 'spt_steps_9'"),
        (["--eval_seeds=0"], "eval_seeds is 0"),
        (["--depth_steps", "0"], "depth_steps holds 0"),
        (["--stages", "depths", "spt_no_sla"], "depths tests spt and rpt, of which .* holds neither"),
        (["--rpt_dropout=1"], "rpt_dropout is 1"),
        (["--metric_for_best_model=NDCG@7"], "metric_for_best_model"),
    ],
)
def test_bad_arguments(data_dir, tmp_path, arguments, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path}", *arguments)
    assert re.search(message, str(error.value) + capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line, message",
    [
        ("rpt_policy: targets", "policy is 'targets'"),
        ("rpt_reward: mrr", "reward is 'mrr'"),
        ("rpt_reward_k: 0", "reward_k is 0"),
        ("rpt_beta: -1", "beta is -1"),
        ("rpt_num_generations: 1", "num_generations is 1"),
        ("rpt_num_iterations: 0", "num_iterations is 0"),
    ],
)
def test_settings_of_post_training_are_checked_before_pre_training(data_dir, tmp_path, line, message):
    config = tmp_path / "wrong.yaml"
    config.write_text(line)
    with pytest.raises(ValueError, match=message):
        run("--config", config, f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'run'}", "--stages", "spt", "rpt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("lares_*.yaml")), ids=lambda path: path.stem)
def test_configs_parse(config):
    data_args, model_args, stage_args, args = TrlParser(recipe.ARGUMENTS).parse_args_and_config(
        ["--config", str(config), "--use_cpu"]
    )
    assert args.output_dir == f"outputs/{config.stem}" and model_args.mean_steps == 4
    dropout = 0.3 if config.stem == "lares_movielens" else 0.5  # the paper's sets have the paper's
    assert (stage_args.rpt_beta, stage_args.rpt_dropout, model_args.dropout) == (1.0, 0.1, dropout)
    assert set(stage_args.stages) - {"depths", "selection"} <= set(plan())


def test_there_is_a_config_for_each_data_set():
    assert {path.stem for path in CONFIGS.glob("lares_*.yaml")} == {
        "lares_beauty", "lares_instruments", "lares_movielens", "lares_scientific", "lares_sports",
    }  # fmt: skip
