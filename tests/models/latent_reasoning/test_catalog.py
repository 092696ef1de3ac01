"""ItemCatalog: sequences, collisions, errors, and the file it is kept in."""

from __future__ import annotations

import json
from collections import Counter

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from hf_latentrec.models.latent_reasoning.catalog import ItemCatalog
from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer


ITEMS = [
    {"item_id": "B1", "title": "Soap", "brand": "Ivory", "semantic_id": ["<a_1>", "<b_7>"]},
    {"item_id": "B2", "title": "Soap bar", "brand": None, "semantic_id": ["<a_1>", "<b_2>"]},
    {"item_id": "B3", "title": "Café <|endoftext|>", "brand": "x", "semantic_id": ["<a_0>", "<b_7>"]},
]


@pytest.fixture
def tokenizer():
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, [item["semantic_id"] for item in ITEMS])
    return tokenizer


def changed(row: int, **columns) -> list[dict]:
    return [{**item, **columns} if index == row else item for index, item in enumerate(ITEMS)]


@pytest.mark.parametrize("form", ["list", "dataset", "table"])
def test_semantic_ids(tokenizer, form):
    build = {"list": lambda x: x, "dataset": datasets.Dataset.from_list, "table": pa.Table.from_pylist}[form]
    catalog = ItemCatalog.from_items(build(ITEMS), tokenizer, item_tokenization="semantic_id")
    assert len(catalog) == 3
    assert catalog[1] == {"item_id": "B2", "title": "Soap bar", "brand": None}
    for row, item in enumerate(ITEMS):
        assert tokenizer.convert_ids_to_tokens(catalog.answer_tokens(row).tolist()) == item["semantic_id"]
        assert catalog.prompt_tokens(row).tolist() == catalog.answer_tokens(row).tolist()
    assert catalog.titles == ["Soap", "Soap bar", "Café <|endoftext|>"]


def test_titles_end_in_eos_and_hold_none(tokenizer):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="title")
    for row, item in enumerate(ITEMS):
        answer = catalog.answer_tokens(row).tolist()
        assert answer[-1] == tokenizer.eos_token_id == catalog.terminal_token_id
        assert catalog.prompt_tokens(row).tolist() == answer[:-1]
        assert tokenizer.eos_token_id not in answer[:-1]
        assert tokenizer.decode(answer[:-1]) == item["title"]
    assert catalog.build_trie().num_leaves == 3  # "Soap" is the beginning of "Soap bar"


def test_qwen3_titles_stay_plain_text(qwen3_tokenizer_dir):
    tokenizer = AutoTokenizer.from_pretrained(qwen3_tokenizer_dir)
    lowest_added = min(tokenizer.added_tokens_decoder)
    add_item_tokens(tokenizer, [["<a_1>", "<b_2>"]])
    titles = ["A <|im_end|> B", "<a_1><b_2>", "<|thought|> <|start_thought|>", "<think>Soap</think>"]
    items = [{"item_id": str(row), "title": title} for row, title in enumerate(titles)]
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
    for row, title in enumerate(titles):
        assert catalog.prompt_tokens(row).max() < lowest_added
        assert tokenizer.decode(catalog.prompt_tokens(row).tolist()) == title


def test_rows(tokenizer):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id")
    assert catalog.rows(["B3", "B1", "B3"]).tolist() == [2, 0, 2]
    assert catalog.find(["B3", "no"]).tolist() == [2, -1]
    with pytest.raises(
        ValueError, match=r"item_id 'B22' is not in the catalog of 3 items; closest: \['B2'.*position 1"
    ):
        catalog.rows(["B1", "B22"])


def test_popularity(tokenizer):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id", popularity={"B3": 5, "B1": 2})
    assert catalog.popularity.tolist() == [2, 0, 5]
    with pytest.raises(ValueError, match="'B9' is not in the catalog"):
        ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id", popularity={"B9": 5})


def test_collisions_are_an_error_or_shared(tokenizer):
    items = [*ITEMS, {**ITEMS[0], "item_id": "B4"}, {**ITEMS[0], "item_id": "B5"}]
    arguments = {"item_tokenization": "semantic_id", "popularity": {"B5": 3, "B2": 9}}
    with pytest.raises(ValueError, match=r"3 items share their semantic_id sequence.*'B5', 'B1', 'B4'.*share"):
        ItemCatalog.from_items(items, tokenizer, **arguments)
    catalog = ItemCatalog.from_items(items, tokenizer, **arguments, on_collision="share")
    assert catalog.collisions() == [[4, 0, 3]]
    assert catalog.describe_collisions().startswith(
        "3 of 5 items share their sequence with another (1 sequences, up to 3"
    )
    assert "\n" not in catalog.describe_collisions()
    distinct = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id")
    assert distinct.describe_collisions() == "The 3 items have distinct sequences."


def test_duplicate_ids(tokenizer):
    items = [*ITEMS, {**ITEMS[0], "item_id": "B2"}]
    with pytest.raises(ValueError) as error:
        ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
    assert str(error.value) == (
        "ItemCatalog: item_id 'B2' appears 2 times (rows 1, 3); drop duplicates or pass on_duplicate=\"first\""
    )
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id", on_duplicate="first")
    assert catalog.item_ids == ["B1", "B2", "B3"]


@pytest.mark.parametrize(
    ("items", "tokenization", "message"),
    [
        ([], "title", "no items"),
        (changed(1, item_id=None), "title", "row 1 has no item_id"),
        (changed(1, semantic_id=None), "semantic_id", r"item_id 'B2' \(row 1\) has no semantic_id"),
        (changed(1, semantic_id=[]), "semantic_id", r"item_id 'B2' \(row 1\) has no semantic_id"),
        (
            changed(2, semantic_id=["<a_1>"]),
            "semantic_id",
            r"'B3' \(row 2\) has 1 codes, but item_id 'B1' \(row 0\) has 2",
        ),
        (
            changed(2, semantic_id=["<a_1>", "<b_9>"]),
            "semantic_id",
            r"'<b_9>' of item_id 'B3' \(row 2\), level 1, is not",
        ),
        (changed(2, semantic_id=["<a_1>", None]), "semantic_id", r"None of item_id 'B3' \(row 2\), level 1, is not"),
        (changed(0, title=None), "title", r"item_id 'B1' \(row 0\) has an empty title"),
        (changed(0, title=" \n"), "title", r"item_id 'B1' \(row 0\) has an empty title"),
        ([{"item_id": "1"}], "title", "no column 'title'; found item_id"),
        ([{"item_id": 1, "title": "x"}], "title", "column 'item_id' holds int 1 in row 0; expected strings"),
        (
            [{"item_id": "1", "semantic_id": "<a_1>"}],
            "semantic_id",
            "holds str '<a_1>' in row 0; expected lists of token strings",
        ),
        ([{"item_id": "1", "tokens": 1}], "title", "column 'tokens' is the catalog's own"),
        (changed(1, brand={"a", "b"}), "title", "column 'brand' cannot be saved as JSON .*set.*leave it out"),
        (changed(1, brand="\ud800"), "title", "column 'brand' cannot be saved as JSON"),
        ({"item_id": ["1"]}, "title", "items are a dict; pass a datasets.Dataset"),
        (pd.DataFrame(ITEMS), "title", "items are a DataFrame; pass a datasets.Dataset"),
        (ITEMS, "ids", "item_tokenization='ids'; choose one of 'semantic_id', 'title'"),
    ],
)
def test_bad_items(tokenizer, items, tokenization, message):
    with pytest.raises(ValueError, match=message):
        ItemCatalog.from_items(items, tokenizer, item_tokenization=tokenization)


def test_title_without_tokens_and_tokenizer_without_eos(tokenizer):
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("?", "")
    with pytest.raises(ValueError, match=r"the title '\?' of item_id 'B1' \(row 0\) has no tokens"):
        ItemCatalog.from_items(changed(0, title="?"), tokenizer, item_tokenization="title")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="set tokenizer.eos_token"):
        ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="title")


@pytest.mark.parametrize("tokenization", ["semantic_id", "title"])
def test_save_and_load(tmp_path, tokenizer, tokenization):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization=tokenization, popularity={"B2": 4})
    catalog.save(tmp_path / "catalog.safetensors")
    loaded = ItemCatalog.load(tmp_path / "catalog.safetensors")
    assert loaded.fingerprint == catalog.fingerprint
    assert loaded.columns == catalog.columns and loaded[1] == catalog[1]
    assert loaded.item_tokenization == tokenization and loaded.terminal_token_id == catalog.terminal_token_id
    assert loaded.popularity.tolist() == [0, 4, 0]
    assert all(np.array_equal(loaded.answer_tokens(row), catalog.answer_tokens(row)) for row in range(3))


def test_fingerprint_changes_with_what_it_covers(tokenizer):
    def fingerprint(items, tokenization="semantic_id", **settings):
        return ItemCatalog.from_items(items, tokenizer, item_tokenization=tokenization, **settings).fingerprint

    prints = [
        fingerprint(ITEMS),
        fingerprint(ITEMS, "title"),
        fingerprint(ITEMS[:2]),
        fingerprint(ITEMS[::-1]),
        fingerprint(changed(1, item_id="B9")),
        fingerprint(changed(1, semantic_id=["<a_0>", "<b_2>"])),
        fingerprint(ITEMS, popularity={"B1": 1}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(changed(1, title="Other")) == prints[0]


@pytest.mark.parametrize(
    ("tokenization", "fingerprint"),
    [
        ("semantic_id", "48f92220b104fd530e3a7b1e09f28a5f7b10e91c32c7370174fb476ed7260b79"),
        ("title", "1cf67066b7815936678e0fcdf1c1e3be37effe4bc12d784ea5403c8f4c93f89a"),
    ],
)
def test_fingerprint_is_what_it_always_was(tokenizer, tokenization, fingerprint):
    catalog = ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization=tokenization, popularity={"B2": 4})
    assert catalog.fingerprint == fingerprint


@pytest.mark.parametrize("tokenization", ["semantic_id", "title"])
def test_a_grown_catalog_is_the_one_of_all_items_with_the_old_rows_first(tmp_path, tokenizer, tokenization):
    arguments = {"item_tokenization": tokenization}
    old = ItemCatalog.from_items(ITEMS[:1], tokenizer, **arguments, popularity={"B1": 2})
    grown = old.with_items(ITEMS[1:2], tokenizer, popularity={"B2": 4}).with_items(ITEMS[2:], tokenizer)
    whole = ItemCatalog.from_items(ITEMS, tokenizer, **arguments, popularity={"B1": 2, "B2": 4})
    assert grown.fingerprint == whole.fingerprint and grown.columns == whole.columns
    assert (old.version, grown.version, len(old)) == (1, 3, 1)
    assert grown.earlier_versions[0] == {"num_items": 1, "fingerprint": old.fingerprint}
    grown.save(tmp_path / "catalog.safetensors")
    loaded = ItemCatalog.load(tmp_path / "catalog.safetensors")
    assert loaded.earlier_versions == grown.earlier_versions and loaded.fingerprint == grown.fingerprint
    assert same_tensors(loaded.build_trie(), whole.build_trie())


def same_tensors(one, two) -> bool:
    return all(torch.equal(tensor, two._tensors()[name]) for name, tensor in one._tensors().items())


def test_columns_that_one_side_lacks_are_none(tokenizer):
    old = ItemCatalog.from_items(ITEMS[:1], tokenizer, item_tokenization="semantic_id")
    grown = old.with_items([{"item_id": "B2", "price": 2.5, "semantic_id": ["<a_1>", "<b_2>"]}], tokenizer)
    assert grown[0] == {"item_id": "B1", "title": "Soap", "brand": "Ivory", "price": None}
    assert grown[1] == {"item_id": "B2", "title": None, "brand": None, "price": 2.5}


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (ITEMS[1:], r"1 of 2 items are in the catalog already, first \['B2'\].*pass new items only"),
        ([{**ITEMS[2], "semantic_id": ["<a_1>"]}], "new items have 1 codes each, the catalog's 2; take both"),
        (
            [{**ITEMS[2], "semantic_id": ["<a_0>", "<b_9>"]}],
            r"'<b_9>' of item_id 'B3' \(row 0\), level 1, is not in the tokenizer.*trained model.*train again",
        ),
        ([{**ITEMS[2], "semantic_id": ["<a_1>", "<b_2>"]}], r"2 items share their semantic_id sequence.*'B2', 'B3'"),
        ([], "no items"),
    ],
)
def test_items_that_a_catalog_does_not_take(tokenizer, new, message):
    catalog = ItemCatalog.from_items(ITEMS[:2], tokenizer, item_tokenization="semantic_id")
    with pytest.raises(ValueError, match=message):
        catalog.with_items(new, tokenizer)


def test_a_new_item_may_share_a_sequence(tokenizer):
    catalog = ItemCatalog.from_items(ITEMS[:2], tokenizer, item_tokenization="semantic_id")
    twin = {**ITEMS[1], "item_id": "B9"}
    assert catalog.with_items([twin], tokenizer, on_collision="share").collisions() == [[1, 2]]


def test_columns_of_every_kind(tmp_path, tokenizer):
    items = [
        {"item_id": "B1", "title": "Soap", "price": np.float64(2.5), "tags": ["a", "b"]},
        {"item_id": np.str_("B2"), "title": "Crème ✓", "tags": np.array(["c"]), "more": {"x": None}},
    ]
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
    catalog.save(tmp_path / "catalog.safetensors")
    loaded = ItemCatalog.load(tmp_path / "catalog.safetensors")
    assert loaded[0] == {"item_id": "B1", "title": "Soap", "price": 2.5, "tags": ["a", "b"], "more": None}
    assert loaded[1] == {"item_id": "B2", "title": "Crème ✓", "price": None, "tags": ["c"], "more": {"x": None}}


def test_a_dataset_in_another_order_and_format(tokenizer):
    dataset = datasets.Dataset.from_list(ITEMS).select([2, 0]).with_format("numpy")
    catalog = ItemCatalog.from_items(dataset, tokenizer, item_tokenization="semantic_id")
    assert catalog.item_ids == ["B3", "B1"] and catalog[0]["brand"] == "x"


def test_load_refuses_damaged_files(tmp_path, tokenizer):
    path = tmp_path / "catalog.safetensors"
    ItemCatalog.from_items(ITEMS, tokenizer, item_tokenization="semantic_id").save(path)
    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="catalog.safetensors is truncated"):
        ItemCatalog.load(path)
    settings = json.loads(metadata["item_catalog"])
    settings.pop("columns_sha256", None)  # as in files of before there were digests
    undigested = {"item_catalog": json.dumps(settings)}

    def save_replaced(old: bytes, new: bytes, metadata: dict[str, str]) -> None:
        columns = tensors["columns"].tobytes().replace(old, new)
        save_file({**tensors, "columns": np.frombuffer(columns, dtype=np.uint8)}, path, metadata)

    for old, new in ((b"B3", b"B9"), (b"Soap bar", b"Soup bar"), (b"Ivory", b"Ebony"), (b"{", b"[")):
        save_replaced(old, new, metadata)
        with pytest.raises(ValueError, match=r"columns \(titles and others\) of .*catalog.safetensors have SHA-256"):
            ItemCatalog.load(path)
    save_replaced(b"Ivory", b"Ebony", undigested)
    assert ItemCatalog.load(path)[0]["brand"] == "Ebony"
    save_replaced(b"B3", b"B9", undigested)
    with pytest.raises(ValueError, match="content of .*catalog.safetensors has fingerprint"):
        ItemCatalog.load(path)
    save_file({**tensors, "tokens": tensors["tokens"][::-1].copy()}, path, metadata)
    with pytest.raises(ValueError, match="content of .*catalog.safetensors has fingerprint"):
        ItemCatalog.load(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="is no catalog"):
        ItemCatalog.load(path)
    pq.write_table(pa.table({"item_id": ["B1"]}), path)
    with pytest.raises(ValueError, match="catalog.safetensors is truncated or no safetensors file"):
        ItemCatalog.load(path)


def test_real_beauty_codes(real_data_dir):
    codes = json.loads((real_data_dir("amazon_beauty_2014") / "Beauty.index.json").read_text())
    tokenizer = build_byte_tokenizer()
    assert add_item_tokens(tokenizer, codes.values()) == range(258, 258 + len({t for c in codes.values() for t in c}))
    items = [{"item_id": item_id, "semantic_id": code} for item_id, code in codes.items()]
    with pytest.raises(ValueError, match="items share their semantic_id sequence"):
        ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id", on_collision="share")
    trie = catalog.build_trie()
    assert trie.num_items == 12101 and trie.num_leaves == len({tuple(code) for code in codes.values()})
    assert trie.max_depth == 4 and trie.max_children[0] == len({code[0] for code in codes.values()})


def test_real_cd_titles(real_data_dir, qwen3_tokenizer_dir):
    titles = pq.read_table(real_data_dir("amazon_cds_2018") / "items.parquet")["title"].to_pylist()
    items = [{"item_id": str(row), "title": title} for row, title in enumerate(titles)]
    tokenizer = AutoTokenizer.from_pretrained(qwen3_tokenizer_dir)
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title", on_collision="share")
    trie = catalog.build_trie()
    count = Counter(titles)
    assert trie.num_items == 5841
    assert trie.num_leaves == len(count)
    assert sum(map(len, catalog.collisions())) == sum(count[title] > 1 for title in titles)
