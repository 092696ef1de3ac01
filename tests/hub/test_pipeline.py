"""The pipeline against the models called directly; streams, options, bad input, and the files that travel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_latentrec
from hf_latentrec import ItemTable, NextItemRecommendationPipeline
from hf_latentrec.hub.pipeline import add_pipeline_files


sys.path.append(str(Path(__file__).parents[1]))

from tiny import make_tiny_recommender  # noqa: E402


TASK = "next-item-recommendation"
ITEM_IDS = [f"i{row}" for row in range(12)]
ITEM_ID_MODELS = {
    "BERT4Rec": {}, "BSARec": {}, "Caser": {}, "FMLPRec": {}, "GRU4Rec": {}, "ItemKNN": {}, "Lares": {"mean_steps": 2},
    "Popularity": {}, "ReaRec": {}, "SASRec": {},
}  # fmt: skip
HISTORIES = [["i3"], ["i1", "i2", "i5"], ["i0", "i7", "i7", "i2", "i9", "i4"], ["i11", "i10"], ["i6", "i8"]]


def make_item_id_model(name, num_items=12):
    """A small model of every kind; of a catalog of twelve items, i11 is cold."""
    class_name = f"{name}Recommender" if name in ("ItemKNN", "Popularity") else f"{name}ForSequentialRecommendation"
    titles, popularity = [f"Item {row}" for row in range(12)], [*range(1, 12), 0]
    items = ItemTable(ITEM_IDS[:num_items], titles[:num_items], popularity[:num_items])
    config = getattr(hf_latentrec, f"{name}Config")(
        num_items=num_items,
        hidden_size=8,
        intermediate_size=8,
        max_history=4,
        initializer_range=0.5,
        **ITEM_ID_MODELS[name],
    )
    model = getattr(hf_latentrec, class_name)(config, items=items)
    if name == "ItemKNN":
        model.neighbours.copy_(torch.randint(0, 12, model.neighbours.shape))
        model.similarities.data.uniform_()
    return model.eval()


@pytest.fixture(scope="module")
def lares():
    torch.manual_seed(0)
    return pipeline(TASK, model=make_item_id_model("Lares"), device="cpu")


@pytest.fixture(scope="module")
def tiny():
    tiny = make_tiny_recommender(num_thoughts=2, num_users=8)
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.mul_(3)  # scores that differ
    return tiny._replace(model=tiny.model.eval())


@pytest.fixture(scope="module")
def llm(tiny):
    return pipeline(TASK, model=tiny.model, processor=tiny.processor, device="cpu")


def check_same(found, expected):
    """The same items; scores to what the order of additions changes."""
    assert [[item["item_id"] for item in user] for user in found] == [
        [item["item_id"] for item in user] for user in expected
    ]
    assert [[item["title"] for item in user] for user in found] == [
        [item["title"] for item in user] for user in expected
    ]
    for user, other in zip(found, expected, strict=True):
        assert [item["score"] for item in user] == pytest.approx([item["score"] for item in other], abs=1e-4)


@pytest.mark.parametrize("name", ITEM_ID_MODELS)
def test_item_id_models_recommend_as_they_do_by_themselves(name, tmp_path):
    model = make_item_id_model(name)
    model.save_pretrained(tmp_path)
    recommend = pipeline(TASK, model=str(tmp_path), device="cpu")  # no processor, no tokenizer in there
    options = {"exclude_seen": True, "allowed_items": ITEM_IDS[2:]}
    check_same(recommend(HISTORIES, top_k=5), model.recommend(HISTORIES, k=5))
    check_same(recommend(HISTORIES, top_k=12, **options), model.recommend(HISTORIES, k=12, **options))


def test_llm_recommenders_recommend_as_processor_and_generate_do(tiny, llm):
    model, processor, splits = tiny
    histories = splits["test"]["history"][:5]
    inputs = processor(histories, exclude_seen=True)
    output = model.generate(**inputs, item_trie=processor.item_trie, num_beams=30, num_thoughts=1)
    expected = processor.post_process_recommendations(output, 7)
    check_same(llm(list(histories), top_k=7, num_beams=30, num_thoughts=1, exclude_seen=True), expected)

    allowed = processor.catalog.item_ids[10:14]
    found = llm(list(histories), allowed_items=allowed)
    assert all({item["item_id"] for item in user} == set(allowed) for user in found)


def test_one_history_is_told_from_a_list_of_histories(lares):
    one = lares(HISTORIES[1], top_k=3)
    assert isinstance(one[0], dict) and one[0].keys() == {"item_id", "title", "score"}
    check_same([one], lares([HISTORIES[1]], top_k=3))
    check_same([lares(tuple(HISTORIES[1]), top_k=3), lares({"history": HISTORIES[1]}, top_k=3)], [one, one])


@pytest.mark.parametrize("kind", ["lares", "llm"])
def test_batches_change_nothing(kind, lares, llm, tiny):
    recommend, histories = (lares, HISTORIES) if kind == "lares" else (llm, list(tiny.splits["test"]["history"]))
    alone = [recommend(history, top_k=4, exclude_seen=True) for history in histories]
    for batch_size in (1, 2, len(histories)):
        check_same(recommend(histories, top_k=4, exclude_seen=True, batch_size=batch_size), alone)


def test_streams_give_results_while_they_are_read(lares):
    read = []

    def stream():
        for history in HISTORIES:
            read.append(history)
            yield history

    results = lares(stream(), top_k=2, batch_size=2)
    assert read == []
    first = next(results)
    assert read == HISTORIES[:2]
    check_same([first, *results], lares(HISTORIES, top_k=2))


def test_data_sets_are_streams(lares):
    dataset = Dataset.from_dict({"history": HISTORIES, "target": ["i1"] * 5})
    expected = lares(HISTORIES, top_k=2)
    for inputs in (dataset, KeyDataset(dataset, "history"), dataset["history"], iter(HISTORIES)):
        check_same(list(lares(inputs, top_k=2, batch_size=3)), expected)
    with pytest.raises(ValueError, match="row 0 has items, target, but no column 'history'"):
        next(lares(dataset.rename_column("history", "items")))


def test_options_of_the_pipeline_are_the_defaults_of_its_calls(lares):
    few = pipeline(TASK, model=lares.model, device="cpu", top_k=2, num_steps=5, batch_size=3)
    assert list(map(len, few(HISTORIES))) == [2] * 5
    check_same(few(HISTORIES, top_k=4), lares.model.recommend(HISTORIES, k=4, num_steps=5))
    check_same(lares(HISTORIES), lares.model.recommend(HISTORIES, k=10))
    small = make_item_id_model("Popularity", num_items=3)
    check_same([pipeline(TASK, model=small, device="cpu")(["i0"])], small.recommend([["i0"]], k=3))
    check_same(few(HISTORIES, num_steps=1, seed=3), lares.model.recommend(HISTORIES, k=2, num_steps=1, seed=3))


def test_ten_thousand_histories_take_the_memory_of_a_batch(lares):
    def peak(num_histories):
        tracemalloc.start()
        count = sum(1 for _ in lares((HISTORIES[row % 5] for row in range(num_histories)), batch_size=500))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == num_histories
        return peak

    peak(500)  # what is made once
    assert peak(10_000) < 1.5 * peak(1_000)
    many = lares([HISTORIES[row % 5] for row in range(10_000)], batch_size=1_000)
    check_same(many[:5] + many[-5:], lares(HISTORIES) * 2)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([["i1"], ["i2", "i99", "i3"]], "history 1, item 1: item_id 'i99' is not among the 12 items.*closest: .*'i9'"),
        ([["i1"], ["i2", 7]], "history 1, item 1: item_id 7 is not among"),
        ((h for h in [["i1"]] * 5 + [["i1", "nope"]]), "history 5, item 1: item_id 'nope'"),
        ([["i1"], []], "history 1 is empty"),
        ([["i1"], "i2"], "history 1 is 'i2'; pass a list of item ids"),
        ([["i1"], None], "history 1 is None"),
        (["i1", None], "history 0, item 1: item_id None"),
        ([], r"the input is \[\]"),
        ("i1", "the input is 'i1'"),
        (None, "the input is None"),
    ],
)
def test_bad_histories_are_named(lares, inputs, message):
    with pytest.raises(ValueError, match=message):
        list(lares(inputs, batch_size=2))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 13}, "top_k is 13; pass 1 to 12"),
        ({"top_k": 0}, "top_k is 0"),
        ({"allowed_items": []}, r"allowed_items is \[\]; pass a list of item ids, at least one"),
        ({"allowed_items": "i1"}, "allowed_items is 'i1'"),
        ({"allowed_items": ["i1", "i99"]}, "allowed_items, position 1: item_id 'i99'"),
        (
            {"num_beams": 5},
            "LaresForSequentialRecommendation has no option num_beams; it has top_k, .*num_steps, seed",
        ),
        ({"topk": 5}, "no option topk"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": 2}, "num_workers is 2; leave it out"),
    ],
)
def test_bad_options_are_named(lares, options, message):
    with pytest.raises(ValueError, match=message):
        lares(HISTORIES, **options)


def test_options_of_other_models_are_refused(llm):
    sasrec = pipeline(TASK, model=make_item_id_model("SASRec"), device="cpu")
    with pytest.raises(ValueError, match="SASRecForSequentialRecommendation has no option num_steps"):
        sasrec(HISTORIES, num_steps=2)
    with pytest.raises(ValueError, match="Qwen3ForLatentReasoningRec has no option num_steps, seed"):
        llm([["i0001"]], num_steps=2, seed=1)
    with pytest.raises(ValueError, match="num_beams is 3 and top_k 10"):
        llm([["i0001"]], num_beams=3)
    plain = make_tiny_recommender(num_users=8)
    with pytest.raises(ValueError, match="num_thoughts is 2, but the model was trained without"):
        pipeline(TASK, model=plain.model, processor=plain.processor, device="cpu")([["i0001"]], num_thoughts=2)


def test_nothing_left_to_recommend_is_an_empty_list(lares, llm):
    assert lares([["i1", "i2"], ["i3"]], exclude_seen=True, allowed_items=["i1", "i2"])[0] == []
    found = llm([["i0001", "i0002"], ["i0003"]], exclude_seen=True, allowed_items=["i0001", "i0002"])
    assert [len(user) for user in found] == [0, 2]


def test_a_model_without_its_catalog_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="through its processor, which is missing; pass processor="):
        pipeline(TASK, model=tiny.model, device="cpu")
    with pytest.raises(ValueError, match="has no item table"):
        model = make_item_id_model("SASRec")
        model.items = None
        pipeline(TASK, model=model, device="cpu")
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({**settings, "catalog_fingerprint": "other"}))
    with pytest.raises(ValueError, match="says: .*has fingerprint"):  # and not that nothing was passed
        pipeline(TASK, model=str(tmp_path), device="cpu")


def test_saved_pipelines_load_with_the_library_and_without_trust(llm, tiny, tmp_path):
    histories = list(tiny.splits["test"]["history"])
    llm.save_pretrained(tmp_path)
    assert (tmp_path / "pipeline.py").read_text() == Path(hf_latentrec.hub.pipeline.__file__).read_text()
    entry = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert entry == {TASK: {"impl": "pipeline.NextItemRecommendationPipeline", "pt": ["AutoModel"]}}

    for trust in ({}, {"trust_remote_code": True}):
        loaded = pipeline(TASK, model=str(tmp_path), device="cpu", **trust)
        assert type(loaded) is NextItemRecommendationPipeline
        check_same(loaded(histories), llm(histories))
    loaded.model.save_pretrained(tmp_path / "again")  # and nothing is lost on the way
    assert json.loads((tmp_path / "again" / "config.json").read_text())["custom_pipelines"] == entry
    AutoProcessor.from_pretrained(tmp_path)
    AutoModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="call pipe.push_to_hub"):
        llm.save_pretrained(tmp_path, push_to_hub=True)


def test_pipeline_files_need_a_saved_model(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json"):
        add_pipeline_files(tmp_path)


WITHOUT_THE_LIBRARY = """
import json, sys

sys.modules["hf_latentrec"] = None  # importing it is an error
from transformers import pipeline

task, job = "next-item-recommendation", json.load(sys.stdin)
found = {}
for name, folder in job["folders"].items():
    recommend = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
    found[name] = recommend(job["histories"][name], top_k=3, exclude_seen=True, batch_size=2)
    recommend.save_pretrained(folder + "_again")
    again = pipeline(task, model=folder + "_again", trust_remote_code=True, device="cpu")
    found[name + "_again"] = again(job["histories"][name], top_k=3, exclude_seen=True)
try:
    pipeline(task, model=folder, trust_remote_code=False)
except ValueError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


def test_saved_pipelines_load_without_the_library_where_they_are_trusted(llm, lares, tiny, tmp_path):
    pipes = {"llm": llm, "lares": lares}
    histories = {"llm": list(tiny.splits["test"]["history"])[:5], "lares": HISTORIES}
    for name, recommend in pipes.items():
        recommend.save_pretrained(tmp_path / name)
    before = sorted(path.name for path in (tmp_path / "llm").iterdir())
    add_pipeline_files(tmp_path / "llm")  # again changes nothing
    assert sorted(path.name for path in (tmp_path / "llm").iterdir()) == before
    job = {"folders": {name: str(tmp_path / name) for name in pipes}, "histories": histories}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_LIBRARY],
        input=json.dumps(job),
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "trust_remote_code" in found["error"]
    for name, recommend in pipes.items():
        expected = recommend(histories[name], top_k=3, exclude_seen=True)
        check_same(found[name], expected)
        check_same(found[name + "_again"], expected)
