"""The recipe of item-ID recommenders as a user runs it, on very little data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModel
from trl import TrlParser

from hf_latentrec.data import load_data, make_synthetic, split_fingerprint, split_leave_one_out
from hf_latentrec.evaluation import PROTOCOLS, load_ranks, ranking_metrics


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import train_sequential as recipe  # noqa: E402
from compare_seeds import compare  # noqa: E402
from sequential_setup import SequentialSetup, make_items  # noqa: E402
from sequential_stages import plan  # noqa: E402
from sequential_text import embed_item_text, hashed_words, item_texts  # noqa: E402


CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--num_train_epochs=2", "--hidden_size=16", "--num_hidden_layers=1",
    "--intermediate_size=32", "--unpacked_batch_size=64", "--logging_steps=1",
]  # fmt: skip
COLD = ["c0", "c1", "c2"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Thirty users with seven items each, out of 24; three more occur in tests only, or never."""
    folder = tmp_path_factory.mktemp("data")
    sequences = {u: [str((u * 3 + 7 * k) % 24) for k in range(7)] for u in range(30)}
    sequences[4][-1], sequences[9][-1], sequences[5][-1] = "c0", "c0", "c1"
    rows = [(f"u{u}", item, float(100 * k + u)) for u, items in sequences.items() for k, item in enumerate(items)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(
        folder / "events.parquet"
    )
    ids = [*map(str, range(24)), *COLD]
    titles = [f"thing number {item_id}" for item_id in ids]
    pl.DataFrame({"item_id": ids, "title": titles}).write_parquet(folder / "items.parquet")
    return folder


def parse(*arguments):
    return TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, *map(str, arguments)])


def run(*arguments):
    recipe.main(*parse(*arguments))


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A run of some models, one of each kind."""
    folder = tmp_path_factory.mktemp("out")
    run(f"--data_dir={data_dir}", f"--output_dir={folder}", "--model", "popularity", "sasrec", "duorec", "tedrec")
    return folder


def saved(folder: Path, model: str, name: str):
    return json.loads((folder / model / name).read_text())


def test_metrics_are_those_of_the_ranks(out, data_dir):
    splits = split_leave_one_out(load_data(data_dir))
    for model in ("popularity", "sasrec", "duorec", "tedrec"):
        metrics = saved(out, model, "test_metrics.json")
        assert list(metrics) == list(PROTOCOLS)
        for protocol, row in metrics.items():
            ranks = load_ranks(out / "ranks" / f"{model}_{protocol.replace(' ', '_')}.parquet")
            assert row == pytest.approx({**ranking_metrics(ranks.ranks), "cold targets": 3})
            assert ranks.user_ids == splits["test"]["user_id"][:]
            assert ranks.metadata["split_fingerprint"] == split_fingerprint(splits)
            assert ranks.metadata["num_beams"] is None and ranks.metadata["seed"] == 42


def test_models_are_loaded_with_their_items_and_give_the_same_ranks(out, data_dir):
    examples = split_leave_one_out(load_data(data_dir))["test"]
    for name in ("popularity", "sasrec", "duorec", "tedrec"):
        model = AutoModel.from_pretrained(out / name)
        for protocol, exclude_seen in PROTOCOLS.items():
            ranks = load_ranks(out / "ranks" / f"{name}_{protocol.replace(' ', '_')}.parquet").ranks
            again = model.rank_targets(examples["history"][:], examples["target"][:], exclude_seen)
            assert ranks.tolist() == again.tolist()
        assert model.config.split_fingerprint == split_fingerprint(split_leave_one_out(load_data(data_dir)))


def test_cold_items_are_ranked_by_their_text_alone(out, data_dir):
    cold = np.isin(split_leave_one_out(load_data(data_dir))["test"]["target"][:], COLD)
    for model in ("popularity", "sasrec", "tedrec"):
        ranks = load_ranks(out / "ranks" / f"{model}_nothing_filtered.parquet").ranks
        assert ((ranks[cold] > 0) == (model == "tedrec")).all() and (ranks[~cold] > 0).all() and cold.sum() == 3


def test_contrastive_models_have_their_loss(out, data_dir, tmp_path):
    assert saved(out, "duorec", "training_args.json")["contrastive"] == "duorec"
    assert saved(out, "sasrec", "training_args.json")["contrastive"] == "none"
    one, other = (load_file(out / name / "model.safetensors") for name in ("sasrec", "duorec"))
    assert one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)
    # The same model by hand.
    run(f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--model=sasrec", "--contrastive=duorec")
    by_hand = load_file(tmp_path / "sasrec" / "model.safetensors")
    assert all(torch.equal(by_hand[name], other[name]) for name in other)


def test_a_finished_run_is_reported_again_and_a_cut_one_goes_on(out, data_dir, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={out}"]
    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    before = saved(out, "sasrec", "test_metrics.json"), load_file(out / "sasrec" / "model.safetensors")
    for file in ("test_metrics.json", "model.safetensors"):
        (out / "sasrec" / file).unlink()
    with pytest.raises(ValueError, match=r"checkpoint-\d+ was trained with split_fingerprint .* but this data has"):
        run(*arguments, "--resume_from_checkpoint=true", "--model=sasrec", "--split=temporal")
    capsys.readouterr()
    run(*arguments, "--resume_from_checkpoint=true", "--model", "sasrec", "duorec")
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("===")] == ["=== SASRec ==="]
    assert "30 users, 27 items, 210 interactions, 120 training targets" in printed
    assert "3 items never occur in training, and 3 of 30 test targets are among them" in printed
    for label in ("popularity", "SASRec", "DuoRec", "TedRec"):
        assert sum(line.startswith(f"{label}  ") for line in printed.splitlines()) == len(PROTOCOLS)
    assert f'AutoModel.from_pretrained("{out / "duorec"}")' in printed and "AutoProcessor" not in printed
    after = saved(out, "sasrec", "test_metrics.json"), load_file(out / "sasrec" / "model.safetensors")
    assert before[0] == after[0] and all(torch.equal(before[1][name], after[1][name]) for name in before[1])


def test_seeds_are_put_together(out, data_dir, tmp_path):
    for seed in (1, 2):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / str(seed)}", f"--seed={seed}", "--max_steps=1")
    assert "Mean ± standard deviation over 2 seeds" in compare([tmp_path / "1", tmp_path / "2"])
    config = saved(tmp_path / "2", "sasrec", "config.json")
    (tmp_path / "2" / "sasrec" / "config.json").write_text(json.dumps({**config, "split_fingerprint": "other"}))
    with pytest.raises(ValueError, match="has split_fingerprint other"):
        compare([tmp_path / "1", tmp_path / "2"])


def test_some_users_stand_for_all(data_dir, tmp_path, capsys):
    run(
        f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--eval_users=8", "--cutoffs", "1", "3",
        "--metric_for_best_model=HR@3", "--eval_protocols", "nothing filtered", "--validation_users=5",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "8 of 30 examples drawn at random" in printed and "seen items excluded" not in printed
    assert list(saved(tmp_path, "sasrec", "test_metrics.json")["nothing filtered"]) == [
        "HR@1", "NDCG@1", "HR@3", "NDCG@3", "cold targets",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, stage in plan().items() if name not in ("tedrec", "popularity")])
def test_every_model_is_trained_and_tested(data_dir, tmp_path, name):
    if name == "item_knn":
        pytest.importorskip("implicit")
    run(f"--data_dir={data_dir}", f"--output_dir={tmp_path}", f"--model={name}", "--max_steps=2", "--max_history=4")
    metrics = saved(tmp_path, name, "test_metrics.json")
    assert all(0 <= value <= 1 for row in metrics.values() for key, value in row.items() if "@" in key)
    assert AutoModel.from_pretrained(tmp_path / name).config.max_history == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cutoffs", "10", "28"], "the cutoff 28 is above the size of the catalog, 27 items"),
        (["--cutoffs", "5"], r"metric_for_best_model is 'NDCG@10', but cutoffs \[5\] give \['HR@5', 'NDCG@5'\]"),
        (["--cutoffs", "0", "10"], "cutoffs holds 0"),
        (["--validation_users=0"], "validation_users is 0"),
        (["--dropout=1.5"], "dropout is 1.5; pass a value in"),
        (["--hidden_size=15"], "hidden_size 15 is no multiple of num_attention_heads 2"),
        (['--model_settings={"frequency_weight": 0.9}'], "sasrec has no setting 'frequency_weight'; it has .*dropout"),
        (["--model", "sasrec", "bsarec", '--model_settings={"frequency_weight": 0.9}'], "sasrec has no setting"),
        (["--model_settings={x}"], "model_settings is no JSON"),
        (["--model_settings=[1]"], "model_settings is .1.; pass a mapping"),
        (['--model_settings={"dropout": 0.1}'], "dropout is given by itself and in model_settings"),
        (["--split=published"], "no column 'split'"),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_training(data_dir, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out").exists()


def test_item_knn_without_its_library_is_refused_before_training(data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.nearest_neighbours", None)
    with pytest.raises(ImportError, match=r"hf_latentrec\[baselines\]"):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}", "--model", "popularity", "item_knn")
    assert not (tmp_path / "out").exists()


def test_cutoffs_of_a_config_are_a_list(tmp_path):
    (tmp_path / "run.yaml").write_text("cutoffs: 10\n")
    with pytest.raises(ValueError, match=r"cutoffs is 10; pass a list, such as \[10\]"):
        parse("--config", tmp_path / "run.yaml")


def test_a_model_of_texts_needs_some(data_dir, tmp_path):
    (tmp_path / "events.parquet").write_bytes((data_dir / "events.parquet").read_bytes())
    pl.read_parquet(data_dir / "items.parquet").drop("title").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="the items have no text"):
        run(f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}", "--model", "sasrec", "tedrec")
    assert not (tmp_path / "out").exists()


def test_popularity_counts_the_training_sequences_once():
    data = make_synthetic(num_users=40, num_items=60, max_length=12)
    splits = split_leave_one_out(data, max_history=3)
    items = make_items(data, splits)
    expected = dict.fromkeys(data.items["item_id"][:], 0)
    sequences: dict[str, list[str]] = {}
    for row in data.interactions:
        sequences.setdefault(row["user_id"], []).append(row["item_id"])
    for sequence in sequences.values():
        for item_id in sequence[:-2]:
            expected[item_id] += 1
    assert dict(zip(items.item_ids, items.popularity.tolist(), strict=True)) == expected
    assert items.titles == data.items["title"][:] and 0 < items.is_cold.sum() < 60


def test_words_are_hashed_by_their_rarity():
    texts = ["red shoe", "red lamp red", "", "Shoe, blue lamp!"]
    vectors = hashed_words(texts, num_buckets=512)
    words = {word: hashed_words([word, "x"], 512)[0] for word in ("red", "shoe", "lamp", "blue")}
    rarity = {"red": np.log(2), "shoe": np.log(2), "lamp": np.log(2), "blue": np.log(4)}
    for text, vector in zip(texts, vectors, strict=True):
        found = {word for word in words if word in text.lower()}
        expected = sum((words[word] * rarity[word] for word in found), np.zeros(512))
        length = np.linalg.norm(expected)
        np.testing.assert_allclose(vector, expected / (length or 1), atol=1e-6)
    assert len({int(np.flatnonzero(vector)[0]) for vector in words.values()}) == 4  # no two in one bucket
    assert hashed_words(["same", "same"]).any() == False  # noqa: E712  what all have tells nothing


def test_all_text_of_an_item_is_read():
    columns = {"item_id": ["a", "b"], "title": ["Lamp", None], "categories": [["Home", "Light"], []], "price": [1, 2]}
    items = Dataset.from_dict(columns)
    assert item_texts(items) == ["Lamp Home Light", ""]
    vectors = embed_item_text(items)
    assert vectors.shape == (2, 256) and vectors[0].norm().item() == pytest.approx(1) and not vectors[1].any()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_understood(path, data_dir):
    model, data = path.stem.rsplit("_", 1)
    if model not in plan():
        pytest.skip("of another recipe")
    data_args, model_args, test_args, args = TrlParser(recipe.ARGUMENTS).parse_args_and_config(
        ["--config", str(path), "--use_cpu", f"--data_dir={data_dir}", "--split=leave_one_out"]  # what the toys have
    )
    assert model_args.model == [model] and args.output_dir == f"outputs/sequential_{data}"
    config = SequentialSetup.load(data_args, test_args).config(plan()[model], model_args.given())
    assert config.hidden_size == 64 and config.dropout == (0.3 if model == "gru4rec" else 0.5)


def test_every_model_that_is_trained_has_a_config_for_beauty():
    assert all((CONFIGS / f"{name}_beauty.yaml").exists() for name, stage in plan().items() if stage.is_trained)
