"""What the demo's page shows, without a browser: searching, the history, answers, and text that means harm."""

from __future__ import annotations

import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from hf_latentrec import (
    ItemTable,
    LaresConfig,
    LaresForSequentialRecommendation,
    PopularityConfig,
    PopularityRecommender,
)


RECIPES = Path(__file__).parents[2] / "recipes"
sys.path += [str(RECIPES), str(Path(__file__).parents[1])]

import demo_app as app  # noqa: E402
from tiny import make_tiny_recommender  # noqa: E402


HOSTILE = ["<script>alert(1)</script>", "costs $5, not $x^2$", "${1+1} {{value}} @children `", "line\nbreak\x00"]
REASONERS = {
    "flr": {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 3},
    "latentr3": {"reasoner": "latent_attention", "num_thoughts": 2},
    "lasar": {"reasoner": "feedback", "num_thoughts": 3, "adaptive_depth": True},
    "none": {"num_thoughts": 0},
}


def demo_model(model, processor=None):
    return app.DemoModel.of(
        pipeline("next-item-recommendation", model=model.eval(), processor=processor, device="cpu")
    )


@pytest.fixture(scope="module")
def llms():
    """A demo of every reasoner."""
    models = {}
    for name, reasoner in REASONERS.items():
        tiny = make_tiny_recommender(num_thoughts=reasoner["num_thoughts"], num_users=8, reasoner_config=reasoner)
        models[name] = demo_model(tiny.model, tiny.processor)
    return models


@pytest.fixture(scope="module")
def lares():
    torch.manual_seed(0)
    items = ItemTable([f"i{row}" for row in range(30)], [*HOSTILE, None, "", *map(str, range(24))], [0, *range(1, 30)])
    config = LaresConfig(num_items=30, hidden_size=8, intermediate_size=8, max_history=4, initializer_range=0.5)
    return demo_model(LaresForSequentialRecommendation(config, items=items))


@pytest.fixture(scope="module")
def popularity():
    items = ItemTable(["a", "b", "c"], popularity=[1, 5, 3])
    return demo_model(PopularityRecommender(PopularityConfig(num_items=3), items=items))


class Cells(HTMLParser):
    """The cells of a table, and every tag in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        self.cells[-1] += data


def test_search_finds_the_first_items_that_have_all_words():
    items = ItemTable(
        [f"B{row:06d}" for row in range(100_000)], [f"Red soap {row}" for row in range(100_000)], [1] * 100_000
    )
    model = demo_model(PopularityRecommender(PopularityConfig(num_items=100_000), items=items))
    assert app.search(model, "") == [f"B{row:06d}" for row in range(app.MAX_MATCHES)]
    assert app.search(model, "SOAP 999 red", limit=3) == ["B000999", "B001999", "B002999"]
    assert app.search(model, "b099998") == ["B099998"]
    assert app.search(model, "towel") == []


def test_items_without_titles_are_called_by_their_ids(popularity, lares):
    assert [app.choice(popularity, item_id) for item_id in app.search(popularity, "")] == ["a", "b", "c"]
    assert app.choice(lares, "i5") == "i5"
    assert app.choice(lares, "i6") == "0  ·  i6"
    assert app.choice(lares, "i3") == "line break  ·  i3"


def test_the_history_is_edited():
    history = ["a", "b", "c"]
    assert app.remove(history, 1) == ["a", "c"]
    assert app.remove(history, None) == history
    assert app.move(history, 2, -1) == (["a", "c", "b"], 1)
    assert app.move(history, 0, 1) == (["b", "a", "c"], 1)
    assert app.move(history, 0, -1) == (history, 0)
    assert app.move(history, 2, 1) == (history, 2)
    assert app.move(history, None, 1) == (history, None)
    assert history == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name, thoughts, pictures",
    [
        ("flr", "The model thinks once, with 3 factors and 2 passes.", ["attention", "correlation", "gates"]),
        ("latentr3", "The model thinks 2 times.", ["attention", "correlation"]),
        ("lasar", "out of 1 to 3.", ["attention", "correlation"]),
        ("none", "This model answers in one pass, without thoughts.", []),
    ],
)
def test_answers_of_llm_recommenders(name, thoughts, pictures, llms, monkeypatch):
    model = llms[name]
    if name == "lasar":  # choose a depth at which there is something to compare
        monkeypatch.setattr(
            model.recommend.model.depth_policy,
            "forward",
            lambda h: torch.tensor([0.0, 1.0, 0.0]).expand(*h.shape[:-1], 3),
        )
    history = ["i0001", "i0002", "i0005"]
    answer = app.answer(model, history, top_k=4, exclude_seen=True)
    assert answer.thoughts.endswith(thoughts)
    assert [name for name in app.PICTURES if answer.pictures[name] is not None] == pictures
    cells = Cells(answer.table).cells
    expected = model.recommend(history, top_k=4, exclude_seen=True)
    assert cells[:3] == ["#", "Item", "Score"]
    assert cells[3::3] == ["1", "2", "3", "4"]
    assert cells[4::3] == [item["title"] + item["item_id"] for item in expected]
    assert cells[5::3] == [f"{item['score']:.3f}" for item in expected]


def test_the_depth_that_is_chosen_is_used(llms, lares):
    lasar, history = llms["lasar"], ["i0001", "i0002"]
    assert lasar.depth.values == ["the model's own", 0, 1, 2, 3]
    unthinking = app.answer(lasar, history, depth=0)
    assert unthinking.thoughts.startswith("The model answered without thinking; by itself it thinks")
    assert unthinking.pictures == dict.fromkeys(app.PICTURES)
    for depth in (0, 1, 3):
        expected = [item["item_id"] for item in lasar.recommend(history, num_thoughts=depth)]
        assert [cell[-5:] for cell in Cells(app.answer(lasar, history, depth=depth).table).cells[4::3]] == expected
    own = int(lasar.recommend.model(**lasar.recommend.processor([history])).num_thoughts[0])
    other = 1 if own != 1 else 2
    assert "as you asked. By itself it chose to think" in app.answer(lasar, history, depth=other).thoughts
    assert (lares.depth.option, lares.depth.values, lares.depth.default) == ("num_steps", list(range(1, 13)), 4)
    assert app.answer(lares, ["i1"], depth=1).thoughts.startswith("The model took 1 reasoning step;")


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_by_step_are_those_of_models_that_stop_there(lares, exclude_seen):
    history, everything = ["i7", "i2", "i9"], len(lares.labels)
    items = [item["item_id"] for item in lares.recommend(history, top_k=6, exclude_seen=exclude_seen)]
    found = app.ranks_by_step(lares, history, items, 4, exclude_seen)
    for item_id, ranks in zip(items, found, strict=True):
        for step, rank in enumerate(ranks, start=1):
            order = lares.recommend(history, top_k=everything, exclude_seen=exclude_seen, num_steps=step)
            assert [item["item_id"] for item in order].index(item_id) + 1 == rank
    assert [ranks[-1] for ranks in found] == [1, 2, 3, 4, 5, 6]
    table = Cells(app.answer(lares, history, top_k=6, exclude_seen=exclude_seen).table)
    assert table.cells[7::4] == [" → ".join(map(str, ranks)) for ranks in found]


def test_other_cases_of_an_answer(popularity, lares):
    assert app.answer(popularity, []).thoughts == "Add an item to the history first."
    few = app.answer(popularity, ["a"], top_k=50, exclude_seen=True)
    assert Cells(few.table).cells[4::3] == ["b", "c"]
    assert "Nothing is left" in app.answer(popularity, ["a", "b", "c"], exclude_seen=True).table
    assert app.answer(lares, ["i1"] * 6).thoughts.endswith("It reads the newest 4 of the 6 items.")


def test_titles_are_text_and_nothing_else(lares):
    items = [{"item_id": f"i{row}", "title": title, "score": 0.0} for row, title in enumerate(HOSTILE)]
    table = app.recommendation_table(lares, items)
    parsed = Cells(table)
    assert parsed.tags == {"table", "tr", "th", "td", "small"}
    assert parsed.cells[4::3] == [
        " ".join(title.replace("\0", " ").split()) + f"i{row}" for row, title in enumerate(HOSTILE)
    ]
    assert not set("${}`@") & set(table)


def test_gradio_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"needs gradio.*pip install 'hf_latentrec\[demo\]'"):
        runpy.run_path(str(RECIPES / "demo.py"))


def test_clicks_change_the_page(lares, llms):
    pytest.importorskip("gradio")
    import demo

    history, shown, matches = demo._added(lares, ["i7"], "i0")
    assert history == ["i7", "i0"]
    assert shown.choices == [("1. 1  ·  i7", 0), (f"2. {HOSTILE[0]}  ·  i0", 1)]
    assert (shown.value, matches.value) == (1, None)
    assert demo._up(lares, history, 1)[0] == ["i0", "i7"]
    assert demo._down(lares, history, 0)[0] == ["i0", "i7"]
    rest, shown = demo._removed(lares, history, 1)
    assert (rest, shown.value) == (["i7"], 0)
    assert demo._removed(lares, ["i7"], 0)[0] == demo._cleared(lares, history, 0)[0] == []
    assert demo._found(lares, "nowhere").label == "Nothing found"
    table, thoughts, *pictures = demo._answered(lares, ["i7"], 3, False, 2)
    assert "2 reasoning steps" in thoughts.value and not any(picture.visible for picture in pictures)
    control = demo._depth_control(llms["lasar"].depth)
    assert [control.preprocess(value) for value in ("the model's own", 0, 3)] == ["the model's own", 0, 3]
    assert demo.build(lares).analytics_enabled is False


def test_the_space_serves_the_model_that_its_variable_names(lares, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    import demo
    from huggingface_hub import metadata_load

    served = []
    monkeypatch.setattr(demo, "launch", served.append)
    monkeypatch.delenv("MODEL_REPO", raising=False)
    with pytest.raises(ValueError, match="MODEL_REPO is not set"):
        runpy.run_path(str(RECIPES / "space" / "app.py"), run_name="__main__")
    lares.recommend.model.save_pretrained(tmp_path)
    monkeypatch.setenv("MODEL_REPO", str(tmp_path))
    runpy.run_path(str(RECIPES / "space" / "app.py"), run_name="__main__")
    assert len(served) == 1
    header = metadata_load(RECIPES / "space" / "README.md")
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
