"""Titles as catalogs hold them: whatever their characters, each item comes back once, with its own id and title."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import normalizers
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.data.collators import PackedHistoryCollator
from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer


TITLES = [
    "Soap",
    "Soap bar",  # the title before is its beginning
    "Soap bar\n",
    " Soap",
    "Soap ",
    "  Soap\t ",
    "Say \"Hi\" — it's 'fine' \\ “really”",
    "<b>Bold</b> &amp; <a href='x?y=1&z=2'>link</a><br/><!-- no -->",
    "Line one\nline two\r\nline three",
    "日本語のタイトル",
    "Война и мир",
    "مرحبا بالعالم",
    "🎸🔥 Rock 👨‍👩‍👧‍👦",
    "Caf\u00e9",
    "Cafe\u0301",  # the same to a reader, and to a tokenizer that composes characters
    "\u200bzero\x00width\x7f",
    "<|im_end|>",
    "<|endoftext|>",
    "before <|endoftext|> after",
    "<|start_thought|><|thought|><|end_thought|>",
    "<|pad|>",
    "<a_1><b_2>",
    "<think>\n\n</think>",
    "{history}",
    "null",
    "Greatest Hits",
    "Greatest Hits",
    "Greatest Hits",
    "<i>Live</i>",
    "<i>Live</i>",
]
# 92 tokens, the longest of the CDs, and more; the first of a pair is the beginning of the second.
LONG_TITLES = {"byte": ["x" * 92, "x" * 101], "qwen3": ["word" + " word" * 91, "word" + " word" * 100]}
BAD_TITLES = ["", None, "   ", "\n\t", "\u3000", "\u00a0 "]


@pytest.fixture(params=["byte", "qwen3"])
def dirty(request):
    """The tokenizer's name, and a processor over the titles; later ones are more popular."""
    if request.param == "byte":
        tokenizer = build_byte_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("qwen3_tokenizer_dir"))
    return request.param, make_processor(tokenizer, [*TITLES, *LONG_TITLES[request.param]])


def make_processor(tokenizer, titles):
    add_item_tokens(tokenizer, [["<a_1>", "<b_2>"]])
    items = [{"item_id": f"B{row}", "title": title} for row, title in enumerate(titles)]
    popularity = {item["item_id"]: 1 + row for row, item in enumerate(items)}
    catalog = ItemCatalog.from_items(
        items, tokenizer, item_tokenization="title", popularity=popularity, on_collision="share"
    )
    return LatentRecProcessor(tokenizer, catalog, max_history=len(items))


def make_model(processor):
    torch.manual_seed(0)
    config = Qwen3LatentRecConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        reasoner_config={"reasoner": "latent_attention", "num_thoughts": 1},
        tie_word_embeddings=True,
    )
    return Qwen3ForLatentReasoningRec(config).eval()


@torch.inference_mode()
def recommend(model, processor, histories, **settings):
    output = model.generate(
        **processor(histories), item_trie=processor.item_trie, num_beams=len(processor.catalog), **settings
    )
    return output, processor.post_process_recommendations(output)


def assert_everything_comes_back(processor, output, recommendations):
    """Each item once, under its own id and title; `rank_of` finds it where it is listed."""
    titles = dict(zip(processor.catalog.item_ids, processor.catalog.titles, strict=True))
    places = []
    for items in recommendations:
        assert {item["item_id"]: item["title"] for item in items} == titles and len(items) == len(titles)
        places.append({item["item_id"]: place for place, item in enumerate(items, start=1)})
    for row, item_id in enumerate(titles):
        ranks = processor.rank_of(output, np.full(len(recommendations), row))
        assert ranks.tolist() == [place[item_id] for place in places]


def distinct(name, titles):
    """Titles that the tokenizer can tell apart."""
    return {unicodedata.normalize("NFC", title) if name == "qwen3" else title for title in titles}


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_every_item_comes_back(dirty, normalize):
    name, processor = dirty
    output, recommendations = recommend(make_model(processor), processor, [["B8", "B17"]], normalize=normalize)
    assert_everything_comes_back(processor, output, recommendations)
    rows = [row[(row != -100) & (row != processor.catalog.terminal_token_id)] for row in output.sequences]
    texts = [processor.tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in rows]
    assert set(texts) == distinct(name, processor.catalog.titles) and len(texts) == len(set(texts))


def test_shared_titles_take_consecutive_ranks(dirty):
    name, processor = dirty
    output, [items] = recommend(make_model(processor), processor, [["B0"]])
    groups = [["B27", "B26", "B25"], ["B29", "B28"]] + ([["B14", "B13"]] if name == "qwen3" else [])
    listed = [item["item_id"] for item in items]
    for group in groups:
        first = listed.index(group[0])
        assert listed[first : first + len(group)] == group
        assert len({item["score"] for item in items[first : first + len(group)]}) == 1
        ranks = [processor.rank_of(output, processor.catalog.rows([item_id]))[0] for item_id in group]
        assert ranks == [first + 1 + place for place in range(len(group))]
    assert sorted(map(sorted, processor.catalog.collisions())) == sorted(
        sorted(int(item_id[1:]) for item_id in group) for group in groups
    )


def test_no_title_steers_the_model(dirty):
    """Neither as a prompt nor as an answer is anything in a title an added or special token."""
    name, processor = dirty
    catalog, tokenizer = processor.catalog, processor.tokenizer
    lowest_added = 256 if name == "byte" else min(tokenizer.added_tokens_decoder)
    ids = processor([catalog.item_ids])["input_ids"][0]
    assert ids.max() < lowest_added
    assert unicodedata.normalize("NFC", "\n".join(catalog.titles)) == unicodedata.normalize(
        "NFC", tokenizer.decode(ids)
    )
    for row in range(len(catalog)):
        assert catalog.prompt_tokens(row).max() < lowest_added
        assert catalog.answer_tokens(row)[-1] == tokenizer.eos_token_id
    assert [len(catalog.prompt_tokens(len(TITLES) + row)) for row in (0, 1)] == [92, 101]


def test_packed_histories_train_on_the_right_items(dirty):
    _, processor = dirty
    catalog, trie = processor.catalog, processor.item_trie
    items, targets = catalog.item_ids, list(range(1, len(catalog)))
    batch = PackedHistoryCollator(processor)([{"user_id": "u", "items": items, "targets": targets}])
    for labels, target in zip(batch["labels"][0], targets, strict=True):
        tokens = labels[labels != -100]
        assert tokens.tolist() == catalog.answer_tokens(target).tolist()
        assert target in trie.leaf_items(trie.walk(tokens)[-1:])[0]
    del batch["user_ids"]
    model = make_model(processor)
    with torch.no_grad():
        packed = model(**batch, item_trie=trie).logps[0].sum(-1)
        single = processor([items[:5]])
        alone = model(**single, labels=batch["labels"][:, 4], item_trie=trie).logps.sum()
    assert packed.isfinite().all()
    torch.testing.assert_close(packed[4], alone, atol=1e-4, rtol=1e-4)


def test_round_trip(dirty, tmp_path):
    _, processor = dirty
    model = make_model(processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).num_thoughts == 1
    assert loaded.catalog.titles == processor.catalog.titles
    again = Qwen3ForLatentReasoningRec.from_pretrained(tmp_path).eval()
    histories = [["B5", "B16"], ["B11"]]
    assert recommend(again, loaded, histories)[1] == recommend(model, processor, histories)[1]


def test_real_titles(real_data_dir):
    """CDs with markup, quotes, other alphabets, the longest titles, titles that several share, and some plain ones."""
    titles = pq.read_table(real_data_dir("amazon_cds_2018") / "items.parquet")["title"].to_pylist()
    odd = [title for title in titles if not title.isascii() or any(char in title for char in '<>&"\\\n|')]
    seen, shared = set(), []
    for title in titles:
        shared += [title, title] if title in seen else []
        seen.add(title)
    longest = sorted(titles, key=len)[-5:]
    processor = make_processor(build_byte_tokenizer(), [*odd[:60], *shared[:20], *longest, *titles[:40]])
    histories = [["B3", "B70"], ["B100"]]
    output, recommendations = recommend(make_model(processor), processor, histories)
    assert_everything_comes_back(processor, output, recommendations)


@pytest.mark.parametrize("title", BAD_TITLES)
def test_empty_titles_are_named(title):
    items = [{"item_id": "B0", "title": "Soap"}, {"item_id": "B1", "title": title}]
    with pytest.raises(ValueError, match=r"item_id 'B1' \(row 1\) has an empty title; give it one or remove the item"):
        ItemCatalog.from_items(items, build_byte_tokenizer(), item_tokenization="title")


def test_a_title_without_tokens_is_named():
    tokenizer = build_byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    items = [{"item_id": "B0", "title": "Soap"}, {"item_id": "B1", "title": "\u200b\u200b"}]
    with pytest.raises(ValueError, match=r"the title '\\u200b\\u200b' of item_id 'B1' \(row 1\) has no tokens"):
        ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
