"""The recipe that evaluates trained models of every kind, as a user runs it, on very little data."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from datasets import DatasetDict
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel
from trl import TrlParser

import hf_latentrec
from hf_latentrec import ItemTable, LatentReasonerConfig
from hf_latentrec.data import make_synthetic, split_fingerprint, split_leave_one_out, training_popularity
from hf_latentrec.evaluation import (
    PROTOCOLS,
    EvaluationRun,
    RecEvaluator,
    SequentialEvaluator,
    load_ranks,
    measure_factors,
    summarize,
)
from hf_latentrec.hub import write_checksums


# The recipes import their neighbours, as scripts do that are run by their path.
ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "recipes"), str(Path(__file__).parents[1])]

from tiny import make_tiny_recommender  # noqa: E402
from training_setup import DataArguments, build_processor  # noqa: E402


# By its path: the name `evaluate` is that of a library, too.
_spec = importlib.util.spec_from_file_location("evaluate_recipe", ROOT / "recipes" / "evaluate.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

FULL, UNSEEN = PROTOCOLS
ITEM_MODELS = {
    "popularity": "PopularityRecommender",
    "item_knn": "ItemKNNRecommender",
    "sasrec": "SASRecForSequentialRecommendation",
    "lares": "LaresForSequentialRecommendation",
}
REASONERS = {
    "plain": {},
    "flr": {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 2},
    "adaptive": {"num_thoughts": 3, "adaptive_depth": True},
}
QUICK = ["--use_cpu", "--cutoffs", "5", "10", "--latency_users", "0", "--num_beams", "30"]


def make_data():
    """Synthetic data in which items share titles."""
    data = make_synthetic(num_users=24, num_items=60, max_length=10)
    items = data.items.remove_columns("title").add_column("title", [f"title {row % 25}" for row in range(60)])
    return replace(data, items=items)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The data as files."""
    folder = tmp_path_factory.mktemp("data")
    make_data().interactions.to_parquet(folder / "events.parquet")
    make_data().items.to_parquet(folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def splits():
    return split_leave_one_out(make_data(), max_history=8)


@pytest.fixture(scope="module")
def models(tmp_path_factory, splits):
    """A saved model of every kind, with random weights; the ones that only count are ready."""
    folder, data = tmp_path_factory.mktemp("models"), make_data()
    ids, titles = (data.items[name][:] for name in ("item_id", "title"))
    items = ItemTable(ids, titles, popularity=training_popularity(splits["train"], ids))
    for name, class_name in ITEM_MODELS.items():
        torch.manual_seed(1)
        model_class = getattr(hf_latentrec, class_name)
        own = {"max_history": 8, "initializer_range": 0.5, "split_fingerprint": split_fingerprint(splits)}
        own |= {"mean_steps": 2} if name == "lares" else {}
        model = model_class(model_class.config_class(num_items=60, **own), items=items)
        if name == "item_knn":
            model.fit(splits["train"])
        model.save_pretrained(folder / name)
    for name, reasoner in REASONERS.items():
        settings = LatentReasonerConfig(**reasoner)
        tiny = make_tiny_recommender(settings.num_thoughts, reasoner_config=settings, initializer_range=0.2)
        processor = build_processor(
            data,
            splits,
            tiny.processor.tokenizer,
            DataArguments(max_history=8),
            item_tokenization="semantic_id",
            prompt_template="{history}",
        )
        tiny.model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


def run(*arguments):
    recipe.main(*TrlParser(recipe.ARGUMENTS).parse_args_and_config([*QUICK, *map(str, arguments)]))


def run_item_model(*arguments):
    quick = [argument for argument in QUICK if argument not in ("--num_beams", "30")]
    recipe.main(*TrlParser(recipe.ARGUMENTS).parse_args_and_config([*quick, *map(str, arguments)]))


@pytest.mark.parametrize("name", ITEM_MODELS)
def test_models_of_item_ids_are_evaluated(name, models, data_dir, splits, tmp_path, capsys):
    out = tmp_path / "out"
    run_item_model("--model", models / name, "--data_dir", data_dir, "--output_dir", out)
    printed, saved = capsys.readouterr().out, EvaluationRun.load(out)
    model, examples = AutoModel.from_pretrained(models / name).eval(), splits["test"]
    for protocol, exclude_seen in PROTOCOLS.items():
        result = SequentialEvaluator(examples, ks=(5, 10), top_k=20).evaluate(model, exclude_seen)
        ranks = saved.ranks[protocol]
        assert ranks.user_ids == examples["user_id"][:] and ranks.ranks.tolist() == result.ranks.tolist()
        assert saved.recommendations[protocol].item_rows.tolist() == result.recommendations.tolist()
        assert f"{result.metrics['NDCG@10']:.4f}" in printed
        popularity = dict(zip(model.items.item_ids, model.items.popularity.tolist(), strict=True))
        assert ranks.columns["target"].tolist() == examples["target"][:]
        assert ranks.columns["target_popularity"].tolist() == [popularity[item] for item in examples["target"]]
        assert ranks.columns["history_length"].tolist() == [len(history) for history in examples["history"]]
        assert ranks.metadata["num_beams"] is None and ranks.metadata["part"] == "test"
        depths = None if name != "lares" else [2] * 24
        assert (ranks.num_thoughts if depths is None else ranks.num_thoughts.tolist()) == depths
    details = saved.details
    assert saved.label == name and details["model_class"] == ITEM_MODELS[name]
    assert details["system"].startswith(model.config.model_type) and details["num_examples"] == 24
    assert details["num_parameters"] == model.num_parameters() and details["data"] == data_dir.name
    assert details["split_fingerprint"] == split_fingerprint(splits)
    assert details["examples_fingerprint"] == split_fingerprint(DatasetDict({"examples": examples}))
    assert (saved.steps, saved.factors, saved.latency, saved.log_history) == (None,) * 4
    assert saved.items.popularity.tolist() == model.items.popularity.tolist()
    assert f"recipes/compare.py {out}" in printed and f"recipes/report.py {out}" in printed


@pytest.mark.parametrize("name", REASONERS)
def test_language_models_are_evaluated(name, models, data_dir, splits, tmp_path, capsys):
    out = tmp_path / "out"
    forced = ["--steps", "0", "1"] if name != "plain" else []
    run("--model", models / name, "--data_dir", data_dir, "--output_dir", out, "--label", "tiny", *forced)
    printed, saved = capsys.readouterr().out, EvaluationRun.load(out)
    model, processor = AutoModel.from_pretrained(models / name).eval(), AutoProcessor.from_pretrained(models / name)
    settings = {"num_beams": 30, "ks": (5, 10)}
    for protocol, exclude_seen in PROTOCOLS.items():
        result = RecEvaluator(processor, splits["test"], top_k=20, **settings).evaluate(model, exclude_seen)
        ranks = saved.ranks[protocol]
        assert ranks.ranks.tolist() == result.ranks.tolist() and ranks.metadata["num_beams"] == 30
        assert ranks.num_thoughts.tolist() == result.num_thoughts.tolist()
        assert saved.recommendations[protocol].item_rows.tolist() == result.recommendations.tolist()
        for number in ("0", "1") if forced else ():
            evaluator = RecEvaluator(processor, splits["test"], num_thoughts=int(number), **settings)
            metrics = evaluator.evaluate(model, exclude_seen).metrics
            assert saved.steps[protocol][number] == {key: [value] for key, value in metrics.items()}
    assert saved.label == "tiny" and processor.catalog.describe_collisions() in printed
    assert saved.details["decoding"] == "decoder constrained, normalize catalog, length_penalty 0.0, num_beams 30"
    system = {"plain": "no thoughts", "flr": "factorized_attention, 1 thought(s)", "adaptive": "1 to 3 thoughts"}
    assert saved.details["system"].endswith(system[name])
    assert (saved.factors is not None) == (name == "flr") and ("steps" in printed) == (name != "plain")
    if name == "flr":
        expected = measure_factors(model, processor, splits["test"]["history"][:]).to_dict()
        assert saved.factors["gates"] == pytest.approx(expected["gates"], abs=1e-6)


def test_settings_reach_what_they_belong_to(models, data_dir, splits, tmp_path):
    """Titles, the other part, some users, one protocol, decoding, latency with a text."""
    out = tmp_path / "out"
    run(
        "--model", models / "plain", "--data_dir", data_dir, "--output_dir", out, "--match", "title", "--part",
        "validation", "--eval_users", 9, "--eval_protocols", UNSEEN, "--decoder", "explicit_cot",
        "--max_cot_tokens", 3, "--normalize", "vocabulary", "--length_penalty", 1, "--latency_users", 4,
        "--latency_batch_sizes", 1, 4, "--top_k", 12,
    )  # fmt: skip
    saved = EvaluationRun.load(out)
    model, processor = AutoModel.from_pretrained(models / "plain"), AutoProcessor.from_pretrained(models / "plain")
    examples = splits["validation"].shuffle(seed=0).select(range(9))
    settings = {"num_beams": 30, "normalize": "vocabulary", "length_penalty": 1.0, "decoder": "explicit_cot"}
    evaluator = RecEvaluator(processor, examples, max_cot_tokens=3, match="title", **settings)
    assert list(saved.ranks) == [UNSEEN] and saved.details["match"] == "title"
    assert saved.ranks[UNSEEN].ranks.tolist() == evaluator.evaluate(model, exclude_seen=True).ranks.tolist()
    assert saved.recommendations[UNSEEN].item_rows.shape == (9, 12)
    assert {(row["thinking"], row["batch_size"]) for row in saved.latency} == {
        (kind, size) for kind in (False, "explicit_cot") for size in (1, 4)
    }
    assert "max_cot_tokens 3" in saved.details["decoding"]


def test_lares_is_stepped_through_from_several_states(models, data_dir, splits, tmp_path, capsys):
    out = tmp_path / "out"
    steps = ["--steps", 4, 1, "--eval_seeds", 2, "--latency_users", 6, "--latency_batch_sizes", 3]
    run_item_model("--model", models / "lares", "--data_dir", data_dir, "--output_dir", out, *steps)
    saved, model = EvaluationRun.load(out), AutoModel.from_pretrained(models / "lares")
    for protocol, exclude_seen in PROTOCOLS.items():
        assert list(saved.steps[protocol]) == ["1", "4"]
        for number in (1, 4):
            seeds = [
                SequentialEvaluator(splits["test"], ks=(5, 10), num_steps=number, seed=seed).evaluate(
                    model, exclude_seen
                )
                for seed in range(2)
            ]
            expected = {name: [result.metrics[name] for result in seeds] for name in ("HR@5", "NDCG@10")}
            assert expected.items() <= saved.steps[protocol][str(number)].items()
    rows = [(row["stage"], row["thinking"], row["batch_size"]) for row in saved.latency]
    assert rows == [("total", True, 3), ("total", "1 step", 3), ("total", "4 steps", 3)]
    printed = capsys.readouterr().out
    assert "4 steps, batch of 3" in printed and f"By number of steps, {FULL}" in printed


def test_batches_are_timed_that_the_users_fill(models, data_dir, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model", models / "popularity", "--data_dir", data_dir, "--output_dir", out]
    for users, given, sizes in ((100, [], [1, 4, 16]), (100, ["--eval_users", 5], [1, 4]), (3, [], [1])):
        run_item_model(*arguments, *given, "--latency_users", users, "--overwrite")
        assert [row["batch_size"] for row in EvaluationRun.load(out).latency] == sizes


def test_a_complete_evaluation_is_not_computed_again(models, data_dir, tmp_path, capsys, monkeypatch):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(models / "sasrec", model)
    arguments = ["--model", model, "--data_dir", data_dir, "--output_dir", out]
    run_item_model(*arguments)
    first = capsys.readouterr().out
    computed = []
    evaluate = SequentialEvaluator.evaluate
    monkeypatch.setattr(
        SequentialEvaluator, "evaluate", lambda *given, **named: computed.append(1) or evaluate(*given, **named)
    )
    run_item_model(*arguments, "--eval_batch_size", 7)  # which changes no result
    again = capsys.readouterr().out
    assert not computed and "nothing is computed again" in again
    assert again.splitlines()[3:] == first.splitlines()[2:]
    with pytest.raises(ValueError, match=r"with part 'test', but now that is 'validation'; pass --overwrite"):
        run_item_model(*arguments, "--part", "validation")
    weights = AutoModel.from_pretrained(model)
    with torch.no_grad():
        next(weights.parameters()).add_(0.1)
    weights.save_pretrained(model)
    with pytest.raises(ValueError, match="holds an evaluation with model "):
        run_item_model(*arguments)
    run_item_model(*arguments, "--part", "validation", "--overwrite")
    assert computed == [1, 1] and EvaluationRun.load(out).details["part"] == "validation"
    (out / "run.json").unlink()  # as if it had been killed before the end
    run_item_model(*arguments)
    assert len(computed) == 4


def test_files_of_somebody_else_are_not_replaced(models, data_dir, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ["--model", models / "popularity", "--data_dir", data_dir, "--output_dir", out]
    out.write_text("mine")
    with pytest.raises(ValueError, match="out is a file; pass a folder"):
        run_item_model(*arguments)
    out.unlink()
    (out / "ranks").mkdir(parents=True)
    mine = {"items.parquet": "i", "factors.json": "f", "ranks/nothing_filtered.parquet": "r", "settings.json": "[]"}
    for name, text in mine.items():
        (out / name).write_text(text)
    with pytest.raises(ValueError, match=r"holds settings.json, items.parquet, factors.json, ranks.*, which would be"):
        run_item_model(*arguments, "--overwrite")
    assert {str(path.relative_to(out)): path.read_text() for path in out.rglob("*.*")} == mine
    for name in mine:
        (out / name).unlink()
    (out / "notes.txt").write_text("mine")  # which is in nobody's way
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(EvaluationRun, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run_item_model(*arguments)
    run_item_model(*arguments)  # goes on after a cut
    assert EvaluationRun.load(out).label == "popularity" and (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["sasrec", "plain"])
def test_a_model_of_other_data_is_refused(name, models, data_dir, splits, tmp_path):
    run_it = run if name == "plain" else run_item_model
    arguments = ["--model", models / name, "--output_dir", tmp_path / "out"]
    own = split_fingerprint(splits)
    with pytest.raises(
        ValueError, match=rf"on the split {own}, but this data gives [0-9a-f]{{64}}; use the --data_dir"
    ):
        run_it(*arguments, "--data_dir", data_dir, "--max_history", 5)
    other = tmp_path / "data"
    shutil.copytree(data_dir, other)
    items = pl.read_parquet(other / "items.parquet")
    items.reverse().write_parquet(other / "items.parquet")
    with pytest.raises(ValueError, match=r"on the catalog [0-9a-f]{64}, but this data gives [0-9a-f]{64}"):
        run_it(*arguments, "--data_dir", other)
    assert not (tmp_path / "out").exists()


def test_what_a_model_does_not_have_is_refused(models, data_dir, tmp_path):
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    hf_latentrec.SASRecForSequentialRecommendation(hf_latentrec.SASRecConfig()).save_pretrained(tmp_path / "bare")
    cases = [
        (run, tmp_path / "bert", [], "is a 'bert' model, and no recommender"),
        (run, tmp_path / "nothing", [], "nothing' cannot be loaded"),
        (run_item_model, tmp_path / "bare", [], "has no item table"),
        (run_item_model, models / "sasrec", ["--num_beams", 9], "num_beams is given, but the model is a 'sasrec'"),
        (run_item_model, models / "sasrec", ["--steps", 2], r"steps are \[2\], but the model is a 'sasrec'"),
        (run_item_model, models / "lares", ["--steps", 0], "steps holds 0"),
        (run_item_model, models / "lares", ["--cutoffs", 100], "cutoff 100 is above the size of the catalog, 60"),
        (run, models / "plain", ["--steps", 1], r"steps are \[1\], but the model was not trained to think"),
        (run, models / "flr", ["--steps", 2], "refines one thought"),
        (run, models / "adaptive", ["--steps", -1], "steps holds -1"),
        (run, models / "plain", ["--num_beams", 8], r"num_beams is 8, but cutoffs are \[5, 10\]"),
        (run, models / "plain", ["--top_k", 40], "num_beams is 30, but cutoffs .* and top_k 40"),
        (run, models / "plain", ["--max_cot_tokens", 4], "max_cot_tokens is given, but the decoder is 'constrained'"),
        (run, models / "plain", ["--decoder", "grounding", "--latency_users", 4], "pass --latency_users 0"),
        (
            run,
            models / "plain",
            ["--latency_users", 9, "--latency_batch_sizes", 16],
            r"latency_batch_sizes are \[16\]",
        ),
    ]
    for run_it, model, arguments, message in cases:
        out = tmp_path / "out"
        with pytest.raises(ValueError, match=message):
            run_it("--model", model, "--data_dir", data_dir, "--output_dir", out, *arguments)
        assert not out.exists()


def test_a_published_model_that_was_changed_is_refused(models, data_dir, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models / "sasrec", model)
    write_checksums(model)
    items = (model / "items.json").read_text()
    (model / "items.json").write_text(items.replace("1", "2"))
    with pytest.raises(ValueError, match="model is not the model that was saved: items.json has another content"):
        run_item_model("--model", model, "--data_dir", data_dir, "--output_dir", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cutoffs", "0", "5"], r"cutoffs is \[0, 5\]"),
        (["--top_k", "0"], "top_k is 0; pass 1 or more"),
        (["--top_k", "9"], "top_k is 9, but cutoffs hold 10"),
        (["--eval_users", "0"], "eval_users is 0"),
        (["--eval_seeds", "0"], "eval_seeds is 0"),
        (["--latency_users=-1"], "latency_users is -1"),
    ],
)
def test_numbers_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        run("--model", "m", "--output_dir", "o", *arguments)


def test_a_config_file_is_checked_as_the_command_line_is(tmp_path):
    for name, value in (("part", "train"), ("match", "code"), ("eval_protocols", "[sampled]")):
        (tmp_path / "run.yaml").write_text(f"model: m\noutput_dir: o\n{name}: {value}\n")
        with pytest.raises(ValueError, match=f"{name} .*choose"):
            run("--config", tmp_path / "run.yaml")
    with pytest.raises(ValueError, match="cutoffs is 10; pass a list"):  # one number in a file
        recipe.EvaluationArguments(model="m", output_dir="o", cutoffs=10)
    with pytest.raises(SystemExit):
        run("--output_dir", "o")  # --model is missing


@pytest.mark.parametrize("where", ["trainer_state.json", "log_history.json", "checkpoint-7/trainer_state.json"])
def test_what_training_logged_is_taken_along(where, models, data_dir, tmp_path):
    model, log = tmp_path / "model", [{"step": 7, "loss": 0.5}]
    shutil.copytree(models / "popularity", model)
    (model / where).parent.mkdir(exist_ok=True)
    (model / where).write_text(json.dumps(log if "log" in where else {"log_history": log}))
    (model / "training_args.json").write_text(json.dumps({"seed": 31}))
    run_item_model("--model", model, "--data_dir", data_dir, "--output_dir", tmp_path / "out")
    saved = EvaluationRun.load(tmp_path / "out")
    assert saved.log_history == log and saved.details["seed"] == 31


def test_training_windows_do_not_change_what_is_tested(data_dir, models, tmp_path):
    from training_setup import load_splits

    _, splits = load_splits(DataArguments(data_dir=str(data_dir), max_history=4, window_stride=3))
    model = AutoModel.from_pretrained(models / "popularity")
    model.config.split_fingerprint, model.config.max_history = split_fingerprint(splits), 4
    model.save_pretrained(tmp_path / "model")
    run_item_model("--model", models / "popularity", "--data_dir", data_dir, "--output_dir", tmp_path / "a")
    arguments = ["--model", tmp_path / "model", "--data_dir", data_dir, "--window_stride", 3]
    run_item_model(*arguments, "--output_dir", tmp_path / "b")
    a, b = (EvaluationRun.load(tmp_path / name) for name in "ab")
    assert a.split_fingerprint != b.split_fingerprint
    assert a.details["examples_fingerprint"] == b.details["examples_fingerprint"]
    assert a.ranks[FULL].ranks.tolist() == b.ranks[FULL].ranks.tolist()


def test_several_examples_of_a_user_are_told_apart(data_dir, models, tmp_path):
    from training_setup import load_splits

    _, splits = load_splits(DataArguments(data_dir=str(data_dir), max_history=8, split="temporal"))
    users = splits["test"]["user_id"][:]
    assert len(set(users)) < len(users)
    model = AutoModel.from_pretrained(models / "popularity")
    model.config.split_fingerprint = split_fingerprint(splits)
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    run_item_model("--model", tmp_path / "model", "--data_dir", data_dir, "--split", "temporal", "--output_dir", out)
    file = load_ranks(out / "ranks" / "nothing_filtered.parquet")
    assert [user.split("#")[0] for user in file.user_ids] == users and f"{users[0]}#2" in file.user_ids


def test_metrics_are_summed_up(models, data_dir, tmp_path):
    run_item_model("--model", models / "sasrec", "--data_dir", data_dir, "--output_dir", tmp_path / "out")
    saved = EvaluationRun.load(tmp_path / "out")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found == json.loads(json.dumps({name: summarize(saved, name, (5, 10)) for name in PROTOCOLS}))


def test_two_processes_write_what_one_does(models, data_dir, tmp_path):
    arguments = ["--model", models / "adaptive", "--data_dir", data_dir, "--steps", 1, "--eval_batch_size", 7]
    run(*arguments, "--output_dir", tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [ROOT / "recipes" / "evaluate.py", *QUICK, *arguments, "--output_dir", tmp_path / "two"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (EvaluationRun.load(tmp_path / name) for name in ("one", "two"))
    assert one.steps == two.steps and one.details == two.details
    for protocol in PROTOCOLS:
        assert one.ranks[protocol].user_ids == two.ranks[protocol].user_ids
        for name in ("ranks", "num_thoughts"):
            assert (getattr(one.ranks[protocol], name) == getattr(two.ranks[protocol], name)).all()
        assert np.array_equal(one.recommendations[protocol].item_rows, two.recommendations[protocol].item_rows)
    assert done.stdout.count("recipes/report.py") == 1


def test_an_import_brings_no_more_than_it_needs():
    """A model needs no library of data; and Python finds recipes/evaluate.py first where a recipe is run."""
    code = "import sys; sys.path.insert(0, 'recipes'); import hf_latentrec; "
    code += "assert not {'datasets', 'polars'} & set(sys.modules); "
    code += "import hf_latentrec.evaluation, hf_latentrec.trainer; assert 'evaluate' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
