"""The recipe that looks inside a model, as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.data import make_synthetic
from hf_latentrec.evaluation import explain


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path += [str(Path(__file__).parents[2] / "recipes"), str(Path(__file__).parents[1])]

import explain as recipe  # noqa: E402
from tiny import make_tiny_recommender  # noqa: E402


REASONERS = {
    "flr": {"reasoner": "factorized_attention"},
    "latentr3": {"reasoner": "latent_attention"},
    "lasar": {"reasoner": "feedback"},
}
PANELS = {
    "flr": ["attention.png", "correlation.png", "explanation.png", "gates.png"],
    "latentr3": ["attention.png", "explanation.png"],
    "lasar": ["attention.png", "explanation.png"],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """What the tiny recommenders were made for, as files."""
    folder = tmp_path_factory.mktemp("data")
    data = make_synthetic(num_users=24, num_items=60, max_length=10)
    data.interactions.to_parquet(folder / "events.parquet")
    data.items.to_parquet(folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A saved model of every reasoner."""
    folder = tmp_path_factory.mktemp("models")
    for name, reasoner in REASONERS.items():
        tiny = make_tiny_recommender(num_thoughts=1, reasoner_config=reasoner)
        tiny.model.save_pretrained(folder / name)
        tiny.processor.save_pretrained(folder / name)
    return folder


def run(*arguments):
    recipe.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", REASONERS)
def test_users_of_the_test_split_are_explained(name, models, data_dir, tmp_path, capsys):
    run("--model", models / name, "--data_dir", data_dir, "--user", "u00003", "u00007", "--user", "u00001",
        "--output_dir", tmp_path, "--top_k", 60, "--num_beams", 4)  # fmt: skip
    text = capsys.readouterr().out
    tiny = make_tiny_recommender(num_thoughts=1, reasoner_config=REASONERS[name])
    test = {row["user_id"]: row for row in tiny.splits["test"]}
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["u00001", "u00003", "u00007"]
    assert text.count("<- the user's next item") == 3  # all 60 items are listed
    for user_id in ("u00001", "u00003", "u00007"):
        folder = tmp_path / user_id
        assert sorted(file.name for file in folder.glob("*.png")) == PANELS[name]
        expected = explain(tiny.model, tiny.processor, test[user_id]["history"])
        data = json.loads((folder / "explanation.json").read_text())
        assert data["titles"] == expected.titles and all(title in text for title in expected.titles)
        assert data["disentanglement_score"] == pytest.approx(expected.disentanglement_score, abs=1e-6)
        recommendations = json.loads((folder / "recommendations.json").read_text())
        assert len(recommendations) == 60 and f"{recommendations[0]['title']}  [" in text
        assert f"written to {folder}" in text


def test_a_history_needs_no_data(models, tmp_path, capsys):
    run("--model", models / "flr", "--history", "i0003", "i0011", "--output_dir", tmp_path, "--top_k", 2)
    text = capsys.readouterr().out
    assert "2 of 2 items, factorized_attention" in text and "(gates)" in text and "factor 4" in text
    assert text.count("[i00") == 2 and "next item" not in text
    assert (tmp_path / "history" / "explanation.png").stat().st_size > 10_000


def test_names_of_users_become_names_of_folders(models, data_dir, tmp_path, monkeypatch):
    example = (["i0003", "i0011"], "i0001")
    monkeypatch.setattr(recipe, "find_histories", lambda test, user_ids: dict.fromkeys(user_ids, example))
    out = tmp_path / "out"
    run("--model", models / "latentr3", "--data_dir", data_dir, "--user", "..", "a/b", "--output_dir", out)
    assert sorted(folder.name for folder in out.iterdir()) == ["%2E%2E", "a%2Fb"]


def test_bad_names_are_named(models, data_dir, tmp_path):
    model = ["--model", models / "flr", "--output_dir", tmp_path]
    with pytest.raises(ValueError, match=r"'u0003', 'nobody' not among the 24 users .*closest to 'u0003': .*'u00003'"):
        run(*model, "--data_dir", data_dir, "--user", "u0003", "u00003", "nobody")
    with pytest.raises(ValueError, match="item 1: item_id 'i3' is not in the catalog .*closest:"):
        run(*model, "--history", "i0003", "i3")
    with pytest.raises(ValueError, match="'nobody' not among the 2,000 users"):
        run(*model, "--user", "nobody")  # the synthetic set as it is by default
    for bad in ([], ["--user", "u00003", "--history", "i0003"], ["--user", "u00003", "--split", "random"]):
        with pytest.raises(SystemExit):
            run(*model, *bad)
    assert not list(tmp_path.iterdir())


def test_a_model_of_item_ids_has_no_thoughts_to_look_into(tmp_path):
    items = ItemTable(["a", "b"])
    LaresForSequentialRecommendation(LaresConfig(num_items=2), items).save_pretrained(tmp_path / "lares")
    with pytest.raises(ValueError, match="lares is a LaresForSequentialRecommendation, which recommends by item ids"):
        run("--model", tmp_path / "lares", "--history", "a", "--output_dir", tmp_path / "out")


def test_the_last_example_of_a_user_counts():
    from datasets import Dataset

    rows = [("u", ["a"], "b"), ("v", ["c"], "d"), ("u", ["a", "b"], "e")]
    test = Dataset.from_list([{"user_id": u, "history": h, "target": t} for u, h, t in rows])
    assert recipe.find_histories(test, ["u"]) == {"u": (["a", "b"], "e")}
