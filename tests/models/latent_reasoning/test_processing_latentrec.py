"""LatentRecProcessor: prompts against loops over text pieces, beams to items, and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

from hf_latentrec.models.latent_reasoning.catalog import ItemCatalog
from hf_latentrec.models.latent_reasoning.configuration_latent_reasoning import Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.modeling_outputs import LatentRecGenerateOutput
from hf_latentrec.models.latent_reasoning.processing_latentrec import INSTRUCTION_TEMPLATE, LatentRecProcessor
from hf_latentrec.models.latent_reasoning.sub_catalog import SubCatalog
from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer


ITEMS = [
    {"item_id": f"B{row}", "title": f"Item <|pad|> {'x' * row}", "semantic_id": [f"<a_{row % 3}>", f"<b_{row // 3}>"]}
    for row in range(7)
]
HISTORIES = [["B3"], ["B1", "B5", "B1", "B6"], ["B0", "B2"]]


def make_processor(item_tokenization="semantic_id", items=ITEMS, on_collision="error", popularity=None, **settings):
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, [item["semantic_id"] for item in items])
    catalog = ItemCatalog.from_items(
        items, tokenizer, item_tokenization=item_tokenization, on_collision=on_collision, popularity=popularity
    )
    return LatentRecProcessor(tokenizer, catalog, **settings)


def slow_prompt(processor: LatentRecProcessor, history: list[str], bos: tuple[int, ...] = ()) -> list[int]:
    """Piece by piece, as the template reads."""

    def text_ids(text: str) -> list[int]:
        return processor.tokenizer(text, add_special_tokens=False).input_ids

    before, after = processor.prompt_template.split("{history}")
    ids = [*bos, *text_ids(before)]
    for position, item_id in enumerate(history):
        ids += text_ids(processor.item_separator) if position else []
        ids += processor.catalog.prompt_tokens(processor.catalog.item_ids.index(item_id)).tolist()
    return ids + text_ids(after)


SETTINGS = [
    {},
    {"item_separator": ", "},
    {"item_separator": "<|endoftext|>", "prompt_template": "<|endoftext|>User: {history}"},
    {"item_separator": ", ", "prompt_template": INSTRUCTION_TEMPLATE},
    {"item_separator": "\n", "prompt_template": "{history}\n"},
]


@pytest.mark.parametrize("item_tokenization", ["semantic_id", "title"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_prompts_equal_the_pieces_of_the_template(item_tokenization, settings):
    processor = make_processor(item_tokenization, **settings)
    inputs = processor(HISTORIES)
    assert set(inputs) == {"input_ids", "attention_mask"} == set(processor.model_input_names)
    expected = [slow_prompt(processor, history) for history in HISTORIES]
    width = max(map(len, expected))
    pad = processor.tokenizer.pad_token_id
    assert inputs["input_ids"].tolist() == [[pad] * (width - len(ids)) + ids for ids in expected]
    assert inputs["attention_mask"].tolist() == [[0] * (width - len(ids)) + [1] * len(ids) for ids in expected]
    assert inputs["input_ids"].dtype == inputs["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize("item_tokenization", ["semantic_id", "title"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_encode_history_ends_where_shorter_prompts_end(item_tokenization, settings):
    processor = make_processor(item_tokenization, **settings)
    history = ["B1", "B5", "B1", "B6"]
    ids, item_ends = processor.encode_history(processor.catalog.rows(history))
    assert ids.tolist() == slow_prompt(processor, history)
    assert processor.packable == (not settings.get("prompt_template", "").endswith("Response:\n"))
    for length in range(1, len(history) + 1):
        prompt = slow_prompt(processor, history[:length])
        if processor.packable:
            assert ids[: item_ends[length - 1]].tolist() == prompt
    follows = item_tokenization == "semantic_id" and settings == {}
    assert processor.answers_follow_history == follows


@pytest.mark.parametrize("item_tokenization", ["semantic_id", "title"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_token_items_say_what_each_token_belongs_to(item_tokenization, settings):
    processor = make_processor(item_tokenization, max_history=3, **settings)

    def size(text: str) -> int:
        return len(processor.tokenizer(text, add_special_tokens=False).input_ids)

    before, after = processor.prompt_template.split("{history}")
    expected = []
    for history in HISTORIES:
        items = [-1] * size(before)
        for place, item_id in enumerate(history[-3:]):
            row = processor.catalog.item_ids.index(item_id)
            items += [place] * (size(processor.item_separator) if place else 0)
            items += [place] * len(processor.catalog.prompt_tokens(row))
        expected.append(items + [-1] * size(after))
    width = max(map(len, expected))
    got = processor.token_items(HISTORIES)
    assert got.tolist() == [[-1] * (width - len(items)) + items for items in expected]
    assert got.shape == processor(HISTORIES)["input_ids"].shape and got.dtype == np.int64
    assert processor.token_items(HISTORIES[0]).tolist() == processor.token_items(HISTORIES[:1]).tolist()


def test_llama_style_bos_opens_a_prompt():
    processor = make_processor()
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", bos)]
    )
    processor = LatentRecProcessor(tokenizer, processor.catalog, prompt_template="Items: {history}")
    assert processor(["B1", "B2"])["input_ids"][0].tolist() == slow_prompt(processor, ["B1", "B2"], (bos,))


def test_only_the_newest_items_enter():
    processor = make_processor(max_history=2)
    full = make_processor()
    assert processor(HISTORIES)["input_ids"].equal(full([history[-2:] for history in HISTORIES])["input_ids"])


def test_one_history_is_a_batch_of_one():
    processor = make_processor()
    assert processor(["B1", "B2"])["input_ids"].equal(processor([["B1", "B2"]])["input_ids"])
    assert isinstance(processor([["B1"]], return_tensors="np")["input_ids"], np.ndarray)


def test_bad_histories_are_named():
    processor = make_processor()
    with pytest.raises(ValueError, match="history 1 is empty"):
        processor([["B1"], []])
    with pytest.raises(ValueError, match="history 2, item 1: item_id 'B77' is not in the catalog .*closest:"):
        processor([["B1"], ["B1", "B2"], ["B1", "B77", "B9"]])
    with pytest.raises(ValueError, match="no histories"):
        processor([])
    letters = make_processor(items=[{"item_id": name, "semantic_id": [f"<a_{name}>"]} for name in ("1", "2", "12")])
    for read in (letters, letters.token_items):
        with pytest.raises(ValueError, match="histories is the string '12'; pass a list of lists"):
            read("12")
        for bad, problem in (([["12"], "12"], "1 is '12'"), (["12", ["1"]], "0 is '12'"), ([["1"], 2], "1 is 2")):
            with pytest.raises(ValueError, match=f"history {problem}; pass a list of item ids"):
                read(bad)
    assert letters(["1", "2"])["input_ids"].equal(letters([np.array(["1", "2"])])["input_ids"])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"holds \{history\} 0 times"):
        make_processor(prompt_template="items")
    with pytest.raises(ValueError, match=r"holds \{history\} 2 times"):
        make_processor(prompt_template="{history}{history}")
    with pytest.raises(ValueError, match="max_history is 0"):
        make_processor(max_history=0)
    processor, other = make_processor(), make_processor(items=ITEMS[:4])
    with pytest.raises(ValueError, match=f"{other.catalog.fingerprint}.*{processor.catalog.fingerprint}.*build_trie"):
        LatentRecProcessor(processor.tokenizer, processor.catalog, other.item_trie)
    with pytest.raises(ValueError, match="catalog uses token 263, but the tokenizer holds 258"):
        LatentRecProcessor(build_byte_tokenizer(), processor.catalog)
    processor.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        LatentRecProcessor(processor.tokenizer, processor.catalog)


@pytest.mark.parametrize("name", ["prompt_template", "item_separator"])
def test_what_prompts_are_made_of_is_fixed(name):
    processor = make_processor(prompt_template="Items: {history}", item_separator=", ")
    before = processor.to_dict()
    with pytest.raises(AttributeError, match=f"'{name}'.*has no setter"):
        setattr(processor, name, "{history}!")
    assert processor.to_dict() == before


def test_answers_hold_their_terminal():
    processor = make_processor("title")
    assert [ids.tolist() for ids in processor.answer_ids(np.array([2, 0]))] == [
        processor.catalog.answer_tokens(row).tolist() for row in (2, 0)
    ]


@pytest.mark.parametrize("max_history", [1, 20])
def test_seen_items_are_those_of_the_whole_history(max_history):
    processor = make_processor("title", max_history=max_history)
    inputs = processor(HISTORIES, exclude_seen=True)
    assert inputs["seen_items"].tolist() == [[3, -1, -1, -1], [1, 5, 1, 6], [0, 2, -1, -1]]
    assert inputs["seen_items"].dtype == torch.int64
    assert inputs["input_ids"].equal(processor(HISTORIES)["input_ids"])
    assert isinstance(processor(["B1"], "np", exclude_seen=True)["seen_items"], np.ndarray)


SHARED = [  # B0, B1 and B3 share a leaf
    {"item_id": f"B{row}", "title": None, "semantic_id": [code]}
    for row, code in enumerate(["<a_0>", "<a_0>", "<a_1>", "<a_0>"])
]


def shared_processor() -> LatentRecProcessor:
    return make_processor(items=SHARED, on_collision="share", popularity={"B3": 9})


def make_output(processor, beams: list[list[str]], **sub_catalog) -> LatentRecGenerateOutput:
    """Beams of each user, given as code tokens, scored -1, -2, ..."""
    tokens = processor.tokenizer.convert_tokens_to_ids([token for user in beams for token in user])
    nodes = processor.item_trie.walk(torch.tensor(tokens).view(-1, 1))[:, -1]
    return LatentRecGenerateOutput(
        item_nodes=nodes,
        sequences_scores=torch.cat([-1.0 - torch.arange(len(user)) for user in beams]),
        user_indices=torch.arange(len(beams)).repeat_interleave(torch.tensor([len(user) for user in beams])),
        num_users=len(beams),
        sub_catalog=SubCatalog(processor.item_trie, len(beams), **sub_catalog) if sub_catalog else None,
    )


def test_recommendations_expand_shared_leaves():
    processor = shared_processor()
    output = make_output(processor, [["<a_1>", "<a_0>"], ["<a_0>"], []])
    ids = [[item["item_id"] for item in user] for user in processor.post_process_recommendations(output)]
    assert ids == [["B2", "B3", "B0", "B1"], ["B3", "B0", "B1"], []]
    top = processor.post_process_recommendations(output, top_k=2)
    assert top[0] == [
        {"item_id": "B2", "title": None, "score": -1.0},
        {"item_id": "B3", "title": None, "score": -2.0},
    ]
    assert [len(user) for user in top] == [2, 2, 0]
    assert processor.rank_of(output, np.array([1, 0, 2])).tolist() == [4, 2, 0]
    assert processor.rank_of(output, np.array([2, 2, 2])).tolist() == [1, 0, 0]
    for targets, problem in (
        (np.array(["B1", "B0", "B2"]), r"have shape \(3,\) and type <U2"),
        (np.array([1.0, 0.0, 2.0]), r"have shape \(3,\) and type float64"),
        (np.array([1, 0]), r"have shape \(2,\) and type int64; pass one catalog row per user \[3\]"),
        (np.array([1, 0, -1]), r"hold -1 \(position 2\), but the catalog has 4 items"),
        (np.array([1, 4, 2]), r"hold 4 \(position 1\), but the catalog has 4 items"),
    ):
        with pytest.raises(ValueError, match=f"target_rows {problem}"):
            processor.rank_of(output, targets)


@pytest.mark.parametrize(
    "sub_catalog, expected, ranks_of_B3",
    [
        ({}, [["B3", "B0", "B1", "B2"], ["B2", "B3", "B0", "B1"]], [1, 2]),
        (
            {"allowed_items": torch.tensor([[True, True, True, False], [True, True, True, True]])},
            [["B0", "B1", "B2"], ["B2", "B3", "B0", "B1"]],
            [0, 2],
        ),
        ({"seen_items": torch.tensor([[1, 1], [2, 0]])}, [["B3", "B0", "B2"], ["B3", "B1"]], [1, 1]),
        (
            {"allowed_items": torch.tensor([True, True, True, False]), "seen_items": torch.tensor([[0], [3]])},
            [["B1", "B2"], ["B2", "B0", "B1"]],
            [0, 0],
        ),
    ],
)
def test_recommendations_are_unique_and_allowed(sub_catalog, expected, ranks_of_B3):
    processor = shared_processor()
    output = make_output(processor, [["<a_0>", "<a_1>", "<a_0>"], ["<a_1>", "<a_0>"]], **sub_catalog)
    ids = [[item["item_id"] for item in user] for user in processor.post_process_recommendations(output)]
    assert ids == expected
    assert processor.rank_of(output, np.array([3, 3])).tolist() == ranks_of_B3


@pytest.fixture
def registered():
    """Registers what the package registers when it is imported."""
    AutoConfig.register(Qwen3LatentRecConfig.model_type, Qwen3LatentRecConfig, exist_ok=True)
    AutoProcessor.register(Qwen3LatentRecConfig, LatentRecProcessor, exist_ok=True)


@pytest.mark.parametrize("item_tokenization", ["semantic_id", "title"])
def test_round_trip_through_auto_processor(tmp_path, registered, item_tokenization):
    processor = make_processor(
        item_tokenization,
        prompt_template=INSTRUCTION_TEMPLATE,
        item_separator=", ",
        max_history=3,
        split_fingerprint="leave-one-out-7",
        popularity={"B2": 3},
    )
    files = processor.save_pretrained(tmp_path)
    assert {"processor_config.json", "catalog.safetensors", "item_trie.safetensors"} == {
        f.split("/")[-1] for f in files
    }
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == {
        "processor_config.json",
        "catalog.safetensors",
        "item_trie.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": Qwen3LatentRecConfig.model_type}))
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is LatentRecProcessor
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved == processor.to_dict()
    assert saved.pop("auto_map") == {"AutoProcessor": "processing_latentrec.LatentRecProcessor"}
    assert loaded.to_dict() == saved
    assert loaded.to_dict()["start_thought_token_id"] == 264
    assert loaded.split_fingerprint == "leave-one-out-7"
    assert loaded(HISTORIES)["input_ids"].equal(processor(HISTORIES)["input_ids"])
    assert loaded.item_trie.row_ptr.equal(processor.item_trie.row_ptr)
    assert loaded.catalog[3] == processor.catalog[3]
    assert AutoProcessor.from_pretrained(tmp_path, max_history=1)(HISTORIES)["input_ids"].equal(
        make_processor(item_tokenization, prompt_template=INSTRUCTION_TEMPLATE, max_history=1)(HISTORIES)["input_ids"]
    )


def test_loading_refuses_a_trie_or_a_catalog_of_another_checkpoint(tmp_path, registered):
    processor, other = make_processor(), make_processor(items=ITEMS[:4])
    processor.save_pretrained(tmp_path)
    other.item_trie.save(tmp_path / "item_trie.safetensors")
    with pytest.raises(ValueError, match=f"{other.catalog.fingerprint}.*{processor.catalog.fingerprint}"):
        AutoProcessor.from_pretrained(tmp_path)
    other.catalog.save(tmp_path / "catalog.safetensors")
    with pytest.raises(ValueError, match=f"{other.catalog.fingerprint}.*names {processor.catalog.fingerprint}"):
        AutoProcessor.from_pretrained(tmp_path)
    (tmp_path / "catalog.safetensors").unlink()
    with pytest.raises(ValueError, match="has no catalog.safetensors; save the processor again"):
        AutoProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "missing", "truncated"),
    [
        ("catalog.safetensors", "has no catalog.safetensors", "catalog.safetensors is truncated"),
        ("item_trie.safetensors", "has no item_trie.safetensors", "item_trie.safetensors is truncated"),
        ("processor_config.json", "has no processor_config.json", "processor_config.json' is not a valid JSON"),
        ("tokenizer.json", "tokenizer.json or .* is missing or broken", "tokenizer.json or .* is missing or broken"),
        ("tokenizer_config.json", "no padding token", "tokenizer_config.json of .* is missing or broken"),
    ],
)
def test_missing_and_truncated_files_are_named(tmp_path, registered, name, missing, truncated):
    make_processor().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": Qwen3LatentRecConfig.model_type}))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises((ValueError, OSError), match=truncated):
        AutoProcessor.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=missing):
        AutoProcessor.from_pretrained(tmp_path)


def test_qwen3_prompts_hold_codes_as_single_tokens(qwen3_tokenizer_dir, tmp_path, registered):
    tokenizer = AutoTokenizer.from_pretrained(qwen3_tokenizer_dir)
    add_item_tokens(tokenizer, [item["semantic_id"] for item in ITEMS])
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id")
    processor = LatentRecProcessor(tokenizer, catalog, prompt_template=INSTRUCTION_TEMPLATE, item_separator=", ")
    ids = processor([["B1", "B2"]])["input_ids"][0].tolist()
    assert tokenizer.decode(ids) == INSTRUCTION_TEMPLATE.format(history="<a_1><b_0>, <a_2><b_0>")
    assert ids == tokenizer(tokenizer.decode(ids)).input_ids
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": Qwen3LatentRecConfig.model_type}))
    assert AutoProcessor.from_pretrained(tmp_path)([["B1", "B2"]])["input_ids"][0].tolist() == ids


LEVELS = [[f"<{letter}_{code}>" for code in range(4)] for letter in "ab"]
NEW_ITEMS = [
    {"item_id": "N0", "title": "New", "semantic_id": ["<a_3>", "<b_3>"]},  # codes that no item had in training
    {"item_id": "N1", "semantic_id": ["<a_0>", "<b_3>"]},
]


def tiny_model(tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "initializer_range": 0.5}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return AutoModel.from_config(Qwen3LatentRecConfig(vocab_size=len(tokenizer), **sizes, **heads)).eval()


def all_scores(model, processor, history) -> dict[str, float]:
    """Score of every item, over the vocabulary."""
    output = model.generate(
        **processor([history]), item_trie=processor.item_trie, num_beams=len(processor.catalog), normalize="vocabulary"
    )
    found = processor.post_process_recommendations(output, top_k=len(processor.catalog))[0]
    return {item["item_id"]: item["score"] for item in found}


def test_a_trained_model_takes_up_new_items(tmp_path, registered):
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, [item["semantic_id"] for item in ITEMS], LEVELS)
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id")
    processor = LatentRecProcessor(tokenizer, catalog, max_history=3, item_separator=",", split_fingerprint="f")
    model = tiny_model(tokenizer)
    grown = processor.with_items(NEW_ITEMS, popularity={"N1": 2})
    before, after = all_scores(model, processor, ["B1", "B5"]), all_scores(model, grown, ["B1", "B5"])
    assert {item_id: after[item_id] for item_id in before} == pytest.approx(before, abs=1e-5)
    assert set(after) - set(before) == {"N0", "N1"} and len(before) == 7  # both can be recommended, and
    assert np.isfinite(after["N0"]) and all_scores(model, grown, ["N0", "B1"]).keys() == after.keys()  # be a history

    model.save_pretrained(tmp_path)
    grown.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.catalog.version == 2 and loaded.catalog[7] == {"item_id": "N0", "title": "New"}
    assert loaded.catalog.fingerprint == grown.catalog.fingerprint != processor.catalog.fingerprint
    assert (loaded.split_fingerprint, loaded.max_history, loaded.item_separator) == ("f", 3, ",")
    again = all_scores(AutoModel.from_pretrained(tmp_path).eval(), loaded, ["B1", "B5"])
    assert again == pytest.approx(after, abs=1e-6)
    assert loaded.with_items([{"item_id": "N2", "semantic_id": ["<a_3>", "<b_0>"]}]).catalog.version == 3


def test_answers_of_another_catalog_are_refused(registered):
    processor, other = make_processor(items=ITEMS[::-1]), make_processor()
    model = tiny_model(processor.tokenizer)
    output = model.generate(**processor([["B1"]]), item_trie=other.item_trie, num_beams=2)
    for read in (
        processor.post_process_recommendations,
        lambda output: processor.rank_of(output, np.zeros(1, dtype=np.int64)),
        lambda output: processor.recommended_rows(output, 2),
    ):
        with pytest.raises(ValueError, match=f"of the catalog {other.catalog.fingerprint}, but this processor's is"):
            read(output)
    assert other.post_process_recommendations(output)


def test_a_tokenizer_with_the_codes_in_use_alone_takes_up_no_others():
    with pytest.raises(ValueError, match=r"'<a_3>' of item_id 'N0' \(row 0\), level 0, is not.*train again"):
        make_processor().with_items(NEW_ITEMS)
