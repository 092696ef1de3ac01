"""A card is valid, says what is true, runs as it stands, and nothing of it is steered by a name."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from hf_latentrec import ItemTable, SASRecConfig, SASRecForSequentialRecommendation
from hf_latentrec.evaluation import EvaluatedItems, EvaluationRun, RankFile, ranking_metrics
from hf_latentrec.hub import CardFacts, DataFacts, describe_model, render_card, write_card
from hf_latentrec.hub.card_facts import changed_settings, load_facts
from hf_latentrec.hub.model_card import add_results, markdown, was_edited
from hf_latentrec.hub.snippets import literal
from hf_latentrec.trainer import FLRGRPOConfig, LASARGRPOConfig, LatentSFTConfig, LRGRPOConfig
from tests.tiny import make_tiny_recommender
from tests.trainer.lares_toys import make_toy


RESULTS = {
    "nothing filtered": {"HR@5": 0.25, "NDCG@10": 0.125, "mean thoughts": 4.0, "cold targets": 3},
    "seen items excluded": {"HR@5": 0.5, "NDCG@10": "0.25 ± 0.01"},
}
EVIL = "a|b\n---\n# [x](javascript:1) <script>`*_$ \u202e\x00: {{ 7 }} - \"q\" 'r' @ & http://e.vil ```"


def code_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)


def run_code(code: str) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().splitlines()


def ids(lines: list[str]) -> list[str]:
    return [line.split(" ")[0] for line in lines]


def test_the_snippet_of_a_language_model_runs(tmp_path):
    model, processor, _ = make_tiny_recommender(num_thoughts=2)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    write_card(tmp_path, describe_model(model, processor))
    blocks = code_blocks((tmp_path / "README.md").read_text())
    history = describe_model(model, processor).example_history
    output = model.eval().generate(**processor([history]), item_trie=processor.item_trie, num_beams=20)
    expected = [item["item_id"] for item in processor.post_process_recommendations(output, top_k=10)[0]]
    assert len(blocks) == 3
    for block in blocks:
        assert ids(run_code(block)) == expected and len(expected) == 10


def test_the_snippet_of_lares_runs(tmp_path):
    model = make_toy().model.eval()
    model.save_pretrained(tmp_path)
    write_card(tmp_path, describe_model(model))
    blocks = code_blocks((tmp_path / "README.md").read_text())
    expected = [item["item_id"] for item in model.recommend([describe_model(model).example_history], k=10)[0]]
    assert len(blocks) == 3
    for block in blocks:
        assert ids(run_code(block)) == expected and len(expected) == 10


def test_code_that_travels_gets_a_snippet_of_its_own(tmp_path):
    facts = CardFacts(kind="item_ids", example_history=["a"])
    (tmp_path / "config.json").write_text("{}")
    write_card(tmp_path, facts, "user/model")
    assert "trust_remote_code" not in (tmp_path / "README.md").read_text()
    (tmp_path / "config.json").write_text('{"auto_map": {}}')
    write_card(tmp_path, facts, "user/model")
    with_library, alone, pipeline = code_blocks((tmp_path / "README.md").read_text())
    assert "import hf_latentrec" in with_library and "trust_remote_code" not in with_library
    assert 'from_pretrained("user/model", trust_remote_code=True)' in alone and "import hf_latentrec" not in alone
    assert 'pipeline("next-item-recommendation", model="user/model")' in pipeline


def test_the_metadata_are_what_the_hub_reads(tmp_path):
    facts = CardFacts(
        title="T", system="lares", license="mit", base_model="org/base", language="en", results=RESULTS,
        data=DataFacts("Beauty", 3, 2, 9, "leave-one-out", "f1", "CC0"),
    )  # fmt: skip
    write_card(tmp_path, facts)
    metadata = metadata_load(tmp_path / "README.md")
    assert {"lares", "latent-reasoning", "recommender-systems"} <= set(metadata["tags"])
    assert (metadata["license"], metadata["library_name"], metadata["base_model"]) == (
        "mit", "hf_latentrec", "org/base",
    )  # fmt: skip
    assert metadata["metrics"] == ["HR@5", "NDCG@10"]
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "T" and len(results) == 4
    found = {(result.dataset_config, result.metric_type): result for result in results}
    assert found["nothing filtered", "hr_at_5"].metric_value == 0.25
    excluded = found["seen items excluded", "ndcg_at_10"]
    assert (
        excluded.metric_args == {"k": 10, "protocol": "seen items excluded"} and excluded.metric_value == "0.25 ± 0.01"
    )
    assert (excluded.dataset_name, excluded.dataset_split) == ("Beauty", "test")
    assert excluded.dataset_args == {
        "protocol": "seen items excluded", "split": "leave-one-out", "split_fingerprint": "f1",
    }  # fmt: skip


def test_the_text_says_what_is_known():
    facts = CardFacts(
        system="flr", kind="llm", results=RESULTS, trainer="FLRSFTTrainer", hyperparameters={"learning_rate": 0.01},
        collisions="All distinct.", test={"users": 12345}, training={"steps": 7}, validation={"NDCG@10": 0.4},
        data=DataFacts("Beauty", 22363, 12101, 198502, "leave-one-out", "f1"), versions={"torch": "2"},
    )  # fmt: skip
    card = render_card(facts, "user/model")
    for text in (
        "# FLR on Beauty", "| users | 22,363 |", "| items | 12,101 |", "| interactions | 198,502 |",
        "| split | leave-one-out |", "| licence of the data | not stated |", "| licence of the model | not stated |",
        "| learning\\_rate | 0.01 |", "steps: 7", "All distinct.", "- users: 12345", "torch 2", "arXiv:2604.26760",
        "| tested | HR@5 | NDCG@10 | mean thoughts |", "| nothing filtered | 0.2500 | 0.1250 | 4.0000 |",
        "| seen items excluded | 0.5000 | 0.25 ± 0.01 |  |", "Gao, Tianqi and Huang, Chengkai",
    ):  # fmt: skip
        assert text in card, text
    assert "cold targets" not in card and "## Use" not in card


def test_what_is_not_known_is_left_out():
    card = render_card(CardFacts(), "user/model")
    assert "Not tested yet." in card and "Citation" not in card and "None" not in card and "model-index" not in card
    assert re.findall(r"\n{3,}", card) == []


def test_hostile_names_stay_words():
    facts = CardFacts(
        title=EVIL, system="lasar", kind="llm", example_history=[EVIL], license=EVIL, base_model=EVIL, tags=[EVIL],
        collisions=EVIL, hyperparameters={EVIL: EVIL}, training={EVIL: EVIL}, test={EVIL: EVIL}, thoughts=EVIL,
        results={f"{EVIL}, nothing filtered": {"HR@5": EVIL}}, data=DataFacts(EVIL, split=EVIL, license=EVIL),
        model_class=EVIL, trainer=EVIL, versions={EVIL: EVIL},
    )  # fmt: skip
    text = render_card(facts, EVIL)
    card = ModelCard(text, ignore_metadata_errors=False)
    assert (
        card.data.license == EVIL and card.data.model_name.startswith("a|b ---") and len(card.data.eval_results) == 1
    )
    plain = render_card(replace(CardFacts(), system="lasar", kind="llm", example_history=["x"]), "y")
    prose, plain_prose = (re.sub(r"```python\n.*?\n```", "", part, flags=re.DOTALL) for part in (card.text, plain))
    live = re.sub(r"\\[\\`*_\[\]<>|~#&$:.]", "", prose)  # what is not escaped
    for mark in ("<", "](", "http://", "\u202e", "\x00", "49", "$", "`*", "# [", "&"):
        assert mark not in live, mark
    headings, other = (re.findall(r"^## .*$", part, re.MULTILINE) for part in (prose, plain_prose))
    assert [heading for heading in headings if heading != "## Training"] == other
    for line in prose.splitlines():  # rows of tables have the cells of their table
        if line.startswith("|") and "HR@5" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 3, line
    assert len(code_blocks(card.text)) == 2 and all(ascii([EVIL]) in code for code in code_blocks(card.text))
    compile(code_blocks(card.text)[0], "card", "exec")


@pytest.mark.parametrize("text", ["| x", "\\|", "a\\", "<b>", "[a](b)", "`", "~~~", "$$", "#", "&lt;"])
def test_markdown_escapes_every_mark(text):
    escaped = markdown(text)
    assert re.sub(r"\\([\\`*_\[\]<>|~#&$])", "", escaped) == re.sub(r"[\\`*_\[\]<>|~#&$]", "", text)
    assert escaped.replace("\\", "") == text.replace("\\", "")


def test_addresses_are_words():
    assert markdown("see www.e.vil, https://e.vil: now") == "see www\\.e.vil, https\\://e.vil: now"


def test_facts_survive_their_file(tmp_path):
    facts = CardFacts(title="T", data=DataFacts("Beauty", 3), results=RESULTS, example_history=["a"])
    facts.save(tmp_path)
    assert CardFacts.load(tmp_path) == facts
    (tmp_path / "card_facts.json").write_text('{"unknown": 1}')
    with pytest.raises(ValueError, match="card_facts.json was not written by"):
        CardFacts.load(tmp_path)


def test_a_model_without_facts_tells_of_itself(tmp_path):
    model = make_toy().model
    model.save_pretrained(tmp_path)
    facts = load_facts(tmp_path)
    assert facts == describe_model(model) and (facts.system, facts.data.num_items) == ("lares", 60)
    assert facts.thoughts.startswith("3 steps")


def test_what_a_language_model_tells():
    model, processor, _ = make_tiny_recommender(num_thoughts=2)
    facts = describe_model(model, processor)
    assert (facts.kind, facts.system, facts.thoughts) == ("llm", None, "2")
    assert facts.collisions == processor.catalog.describe_collisions()
    assert facts.data.split_fingerprint == processor.split_fingerprint
    popularity = dict(zip(processor.catalog.item_ids, processor.catalog.popularity, strict=True))
    shown = [popularity[item_id] for item_id in facts.example_history]
    assert shown == sorted(popularity.values(), reverse=True)[:2]
    assert describe_model(model).example_history == []  # nothing to recommend with


def test_the_example_history_is_popular():
    items = ItemTable(["a", "b", "c"], popularity=[1, 5, 3])
    model = SASRecForSequentialRecommendation(SASRecConfig(num_items=3), items=items)
    assert describe_model(model).example_history == ["b", "c"]


def test_results_of_a_run():
    ranks = np.array([1, 3, 0, 12])
    file = RankFile(list("abcd"), ranks, {"split_fingerprint": "f"}, num_thoughts=np.array([1, 2, 3, 6]))
    items = EvaluatedItems(["x", "y"], [None, None], np.array([1, 2]))
    details = {
        "split_fingerprint": "f", "num_beams": 50, "num_examples": 4, "part": "test", "match": "item", "data": "Toys",
        "split": "leave_one_out", "seed": None,
    }  # fmt: skip
    run = EvaluationRun("R", details, items, {"nothing filtered": file})
    facts = CardFacts(data=DataFacts(split_fingerprint="f"), results={"old": {"HR@5": 1.0}}).with_run(run)
    assert facts.results == {"nothing filtered": {**ranking_metrics(ranks), "mean thoughts": 3.0}}
    assert facts.test == {"beams": 50, "examples": 4} and facts.data.num_items == 2
    assert (facts.data.name, facts.data.split) == ("Toys", "leave one out")
    few_beams = CardFacts().with_run(replace(run, details={**details, "num_beams": 10}))
    assert set(few_beams.results["nothing filtered"]) == {"HR@5", "NDCG@5", "HR@10", "NDCG@10", "mean thoughts"}
    by_title = replace(run, details={**details, "match": "title"})
    assert list(CardFacts().with_run(by_title).results) == ["matched by title, nothing filtered"]
    assert CardFacts(data=DataFacts("Mine")).with_run(run).data.name == "Mine"
    with pytest.raises(ValueError, match="is of the validation examples"):
        CardFacts().with_run(replace(run, details={**details, "part": "validation"}))
    with pytest.raises(ValueError, match="is of split f, but the model was trained on g"):
        CardFacts(data=DataFacts(split_fingerprint="g")).with_run(run)


def test_an_edited_card_is_seen(tmp_path):
    assert not was_edited(tmp_path)
    write_card(tmp_path, CardFacts(title="T"))
    assert not was_edited(tmp_path)
    path = Path(tmp_path, "README.md")
    path.write_text(path.read_text().replace("# T", "# Mine"))
    assert was_edited(tmp_path)
    edited = add_results(path.read_text(), CardFacts(results=RESULTS))
    assert "# Mine" in edited and len(ModelCard(edited).data.eval_results) == 4


@pytest.mark.parametrize("config_class", [LatentSFTConfig, LRGRPOConfig, FLRGRPOConfig])
def test_defaults_are_not_hyperparameters(config_class):
    assert changed_settings(config_class("out", use_cpu=True)) == {}
    private = {"hub_token": "secret", "run_name": "mine", "logging_dir": None, "save_total_limit": 3}
    private.pop("logging_dir")
    changed = changed_settings(config_class("out", use_cpu=True, seed=7, max_steps=9, warmup_steps=5, **private))
    assert changed == {"seed": 7, "max_steps": 9, "warmup_steps": 5}


def test_a_zero_that_switches_a_part_off_is_told():
    plain = LASARGRPOConfig("out", use_cpu=True, terminal_kl_weight=0.0, reinforce_coef=0.0)
    assert changed_settings(plain) == {"terminal_kl_weight": 0.0, "reinforce_coef": 0.0}


@pytest.mark.parametrize("text", ["B1", "it's", 'a "b"', 'it\'s "b"', "\\", "日本 😀\n", "\u202e", ""])
def test_a_literal_is_the_text(text):
    code = literal(text)
    assert eval(code) == text and code.isascii() and "\n" not in code
    assert code[0] == '"' or '"' in text
