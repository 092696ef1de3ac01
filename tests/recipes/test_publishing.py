"""Every training recipe finishes its cards, and publishes the model that it is about, once, after its tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from trl import TrlParser

import hf_latentrec.hub
import hf_latentrec.hub.publishing
from hf_latentrec.hub import CardFacts, DataFacts, PublishError, write_card


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import publish as publish_recipe  # noqa: E402
import train_flr  # noqa: E402
import train_lares  # noqa: E402
import train_lasar  # noqa: E402
import train_sequential  # noqa: E402
from flr_arguments import FLRConfig, FLRModelArguments, FLRStageArguments  # noqa: E402
from publishing import finish_cards  # noqa: E402
from title_arguments import TitleDataArguments  # noqa: E402
from training_stages import TEST_FILE  # noqa: E402

from tests.recipes.title_runs import SMALL, write_title_data  # noqa: E402


ONE_PROTOCOL = ["--eval_protocols", "nothing filtered"]
TITLES = [*SMALL, *ONE_PROTOCOL, "--stages", "no_reasoning", "--split=published"]
CODES = [
    "--use_cpu", "--disable_tqdm=true", "--stage1_num_train_epochs=1", "--hidden_size=16", "--intermediate_size=32",
    "--num_hidden_layers=1", "--eval_num_beams=5", "--stages", "stage1", *ONE_PROTOCOL,
]  # fmt: skip
IDS = [
    "--use_cpu", "--disable_tqdm=true", "--num_train_epochs=1", "--hidden_size=16", "--cutoffs", "5", "10",
    *ONE_PROTOCOL,
]  # fmt: skip
TITLE_CLASSES = (TitleDataArguments, FLRModelArguments, FLRStageArguments, FLRConfig)
LARES = [*IDS, "--stages", "spt", "--eval_seeds=1", "--mean_steps=2"]
SEVERAL = [*IDS, "--model", "sasrec", "popularity"]
RECIPES: dict[str, tuple[Any, Any, list[str], str, str]] = {
    "flr": (train_flr, TITLE_CLASSES, TITLES, "no_reasoning", "bigrec"),
    "lasar": (train_lasar, train_lasar.ARGUMENTS, CODES, "stage1", "minionerec"),
    "lares": (train_lares, train_lares.ARGUMENTS, LARES, "spt", "lares"),
    "sequential": (train_sequential, train_sequential.ARGUMENTS, SEVERAL, "popularity", "popularity"),
}


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Path:
    """Thirty users with eight items each, out of twenty items."""
    folder = tmp_path_factory.mktemp("codes")
    inter = {str(u): [(u * 3 + 7 * k) % 20 for k in range(8)] for u in range(30)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i // 5}>", f"<b_{i % 5}>"] for i in range(20)}))
    return folder


@pytest.fixture
def hub(monkeypatch) -> list[tuple]:
    """What recipes ask of the Hub, with what stood in the folder then."""
    asked: list[tuple] = []

    def publish(folder, repo_id, **settings):
        asked.append(
            ("publish", Path(folder), repo_id, settings, sorted(path.name for path in Path(folder).iterdir()))
        )
        return "the address"

    monkeypatch.setattr(hf_latentrec.hub, "publish", publish)
    monkeypatch.setattr(
        hf_latentrec.hub.publishing, "open_repository", lambda name, **settings: asked.append(("open", name, settings))
    )
    return asked


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_publishes_its_last_stage(name, codes, hub, tmp_path, capsys):
    recipe, classes, settings, stage, system = RECIPES[name]
    data = write_title_data(tmp_path) if name == "flr" else codes
    out = tmp_path / "out"
    hub_settings = ["--push_to_hub", "--hub_model_id=me/mine", "--hub_private_repo=true", "--hub_revision=dev"]
    told = [f"--data_dir={data}", f"--output_dir={out}", "--data_name=Toys", "--data_license=CC0"]
    recipe.main(*TrlParser(classes).parse_args_and_config([*settings, *told, *hub_settings]))

    (opened, published) = hub
    assert opened[:2] == ("open", "me/mine") and opened[2]["private"] is True
    assert published[1:3] == (out / stage, "me/mine")
    assert published[3] == {"private": True, "token": None, "revision": "dev"}
    assert {"README.md", "test_metrics.json", "model.safetensors"} <= set(published[4])
    facts, card = CardFacts.load(out / stage), ModelCard.load(out / stage / "README.md")
    assert facts.results == json.loads((out / stage / "test_metrics.json").read_text())
    assert len(card.data.eval_results) == sum(
        metric.startswith(("HR@", "NDCG@")) for row in facts.results.values() for metric in row
    )
    assert (facts.system, facts.data.name, facts.data.license) == (system, "Toys", "CC0")
    assert facts.data.num_users == (16 if name == "flr" else 30) and facts.data.num_interactions > 90
    assert "| licence of the data | CC0 |" in card.text and card.text.count(" on Toys") == 1
    assert "Published: the address" in capsys.readouterr().out
    if name == "sequential":
        assert CardFacts.load(out / "sasrec").results and CardFacts.load(out / "sasrec").system == "sasrec"


def test_nothing_is_published_unasked(codes, hub, tmp_path):
    settings = [*RECIPES["sequential"][2], "--model", "popularity"]
    told = [f"--data_dir={codes}", f"--output_dir={tmp_path}"]
    train_sequential.main(*TrlParser(train_sequential.ARGUMENTS).parse_args_and_config([*settings, *told]))
    assert hub == [] and CardFacts.load(tmp_path / "popularity").data.name == codes.name


def test_who_cannot_write_hears_so_before_training(codes, monkeypatch, tmp_path):
    def refuse(name, **settings):
        raise PublishError(f"{name}: no")

    monkeypatch.setattr(hf_latentrec.hub.publishing, "open_repository", refuse)
    told = [f"--data_dir={codes}", f"--output_dir={tmp_path / 'mine'}", "--push_to_hub"]
    with pytest.raises(PublishError, match="^mine: no"):
        train_lasar.main(*TrlParser(train_lasar.ARGUMENTS).parse_args_and_config([*CODES, *told]))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("started_from", "named"), [("Qwen/Qwen3-0.6B", True), ("/home/me/qwen", False), (None, False)]
)
def test_a_pretrained_model_is_named_where_it_is_on_the_hub(tmp_path, started_from, named):
    (tmp_path / "s").mkdir()
    write_card(tmp_path / "s", CardFacts(kind="llm"))
    finish_cards(tmp_path, "s", {"s": {}}, {"s": "S"}, {"name": "D"}, {}, started_from)
    assert CardFacts.load(tmp_path / "s").base_model == (started_from if named else None)


def test_a_card_written_by_hand_stays(tmp_path):
    (tmp_path / "s").mkdir()
    CardFacts(kind="llm").save(tmp_path / "s")
    (tmp_path / "s" / "README.md").write_text("mine")
    finish_cards(tmp_path, "s", {"s": {"nothing filtered": {"HR@5": 0.5}}}, {"s": "S"}, {"name": "D"}, {})
    assert (tmp_path / "s" / "README.md").read_text() == "mine"
    assert CardFacts.load(tmp_path / "s").results["nothing filtered"]["HR@5"] == 0.5
    args = publish_recipe.PublishArguments(str(tmp_path / "s"), "me/mine", title="T")
    with pytest.raises(ValueError, match="was written by hand"):
        publish_recipe.update_card(args)


def test_the_card_of_an_earlier_runs_stage_says_how_that_one_tested(tmp_path):
    (tmp_path / "s").mkdir()
    write_card(tmp_path / "s", CardFacts(kind="llm"))
    (tmp_path / "s" / TEST_FILE).write_text('{"beams": 50}')
    results = {"s": {"nothing filtered": {"HR@5": 0.5}}}
    finish_cards(tmp_path, "s", results, {"s": "S"}, {"name": "D"}, {"beams": 20})
    assert CardFacts.load(tmp_path / "s").test == {"beams": 50}
    (tmp_path / "s" / TEST_FILE).unlink()  # of an earlier version
    finish_cards(tmp_path, "s", results, {"s": "S"}, {"name": "D"}, {"beams": 20})
    assert CardFacts.load(tmp_path / "s").test == {"beams": 20}


def test_publish_updates_the_card(tmp_path):
    write_card(tmp_path, CardFacts(kind="llm", title="Old", data=DataFacts("Toys", 3)))
    publish_recipe.update_card(
        publish_recipe.PublishArguments(str(tmp_path), "me/mine", title="New", data_license="X")
    )
    facts = CardFacts.load(tmp_path)
    assert (facts.title, facts.data) == ("New", DataFacts("Toys", 3, license="X"))
    with pytest.raises(ValueError, match="--repo_id is missing"):
        publish_recipe.PublishArguments("folder")
