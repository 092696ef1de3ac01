"""Tokenizers from scratch, item and thought tokens, and titles that must stay plain text."""

from __future__ import annotations

import json
from functools import partial

import pytest
from transformers import AutoTokenizer

from hf_latentrec.models.latent_reasoning.tokenization import (
    END_THOUGHT_TOKEN,
    START_THOUGHT_TOKEN,
    THOUGHT_TOKEN,
    add_item_tokens,
    build_bpe_tokenizer,
    build_byte_tokenizer,
    encode_plain_text,
    thought_token_ids,
)


CODES = [["<a_10>", "<b_3>"], ["<a_9>", "<b_3>"], ["<a_10>", "<b_0>"]]
TITLES = ["Café de Olla, 12 oz", "Café con Leche, 16 oz", 'Steel Ruler 12" <b>new</b>', 'Steel Square 12"'] * 2
TRICKY = [
    "<|im_end|>",
    "<|endoftext|> <a_9>",
    "<a_10><b_3>",
    START_THOUGHT_TOKEN + "x",
    "<|Thought|>",
    "Café 日本 ☕\n",
]


@pytest.fixture(params=["byte", "bpe", "qwen3"])
def tokenizer(request):
    if request.param == "byte":
        return build_byte_tokenizer()
    if request.param == "bpe":
        return build_bpe_tokenizer(TITLES, 300)
    return AutoTokenizer.from_pretrained(request.getfixturevalue("qwen3_tokenizer_dir"))


def test_byte_tokenizer_is_one_token_per_byte():
    tokenizer = build_byte_tokenizer()
    text = "Shampoo, naïve ☕\t<b>"
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text.encode()) and max(ids) < 256
    assert tokenizer.decode(ids) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (256, 257, None)


def test_bpe_tokenizer_reads_titles_in_few_tokens_and_any_text_at_all():
    tokenizer, byte_tokenizer = build_bpe_tokenizer(TITLES, 300), build_byte_tokenizer()
    assert len(tokenizer) == 300 and tokenizer.bos_token_id is None
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (298, 299)
    vocabulary, bytes_ = tokenizer.get_vocab(), byte_tokenizer.get_vocab()
    assert all(vocabulary[token] == index for token, index in bytes_.items() if index < 256)
    for text in [*TITLES, *TRICKY, "Ωμέγα never seen"]:
        ids = tokenizer(text, split_special_tokens=True).input_ids
        assert tokenizer.decode(ids) == text
    assert sum(map(len, tokenizer(TITLES).input_ids)) < 0.4 * sum(map(len, byte_tokenizer(TITLES).input_ids))


def test_bpe_tokenizer_is_the_same_each_time_and_stops_where_nothing_occurs_twice():
    one, two = build_bpe_tokenizer(TITLES, 300), build_bpe_tokenizer(iter(TITLES), 300)
    assert one.backend_tokenizer.to_str() == two.backend_tokenizer.to_str()
    assert build_bpe_tokenizer(["abc", "abd"], 1000).tokenize("abcd") == ["ab", "c", "d"]
    assert len(build_bpe_tokenizer(["abc", "abd"], 1000)) == 259


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"), [(TITLES, 257, "257.*258"), ([], 300, "no text"), (["", ""], 300, "no text")]
)
def test_bpe_tokenizer_names_what_is_missing(texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        build_bpe_tokenizer(texts, vocab_size)


@pytest.mark.parametrize("model_type", ["qwen2_latentrec", "qwen3_latentrec", "llama_latentrec"])
@pytest.mark.parametrize(
    "build", [build_byte_tokenizer, partial(build_bpe_tokenizer, TITLES, 300)], ids=["byte", "bpe"]
)
def test_tokenizers_reload_next_to_our_config(tmp_path, build, model_type):
    tokenizer = build()
    add_item_tokens(tokenizer, CODES)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Soap <a_9><b_3> <|endoftext|>" + THOUGHT_TOKEN
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == "Soap <a_9><b_3> "
    assert thought_token_ids(loaded) == thought_token_ids(tokenizer)


def test_codes_are_one_range_by_level_then_number(tokenizer):
    size = len(tokenizer)
    codes = add_item_tokens(tokenizer, CODES)
    assert codes == range(size, size + 4)
    assert tokenizer.convert_ids_to_tokens(list(codes)) == ["<a_9>", "<a_10>", "<b_0>", "<b_3>"]
    markers = [START_THOUGHT_TOKEN, THOUGHT_TOKEN, END_THOUGHT_TOKEN]
    assert tokenizer.convert_ids_to_tokens([size + 4, size + 5, size + 6]) == markers
    assert list(thought_token_ids(tokenizer).values()) == [size + 4, size + 5, size + 6]
    assert len(tokenizer) == size + 7


def test_codes_are_plain_and_markers_special(tokenizer):
    add_item_tokens(tokenizer, CODES)
    ids = tokenizer("<a_9> <b_3>" + THOUGHT_TOKEN, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<a_9> <b_3>"  # no space is swallowed


def test_second_call_changes_nothing(tokenizer):
    first = add_item_tokens(tokenizer, CODES)
    vocabulary = tokenizer.get_vocab()
    assert add_item_tokens(tokenizer, CODES) == first
    assert tokenizer.get_vocab() == vocabulary


def test_codes_that_cannot_be_one_range_are_refused_and_nothing_is_added():
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, CODES)
    vocabulary = tokenizer.get_vocab()
    with pytest.raises(ValueError, match="holds 4 of the 5 code tokens already, from id 258 to 261"):
        add_item_tokens(tokenizer, [*CODES, ["<a_11>", "<b_3>"]])
    assert tokenizer.get_vocab() == vocabulary


def test_all_tokens_of_the_levels_are_added_whether_an_item_has_them_or_not(tokenizer):
    size = len(tokenizer)
    levels = [[f"<a_{code}>" for code in range(11)], [f"<b_{code}>" for code in range(4)]]
    codes = add_item_tokens(tokenizer, CODES, levels)
    assert codes == range(size, size + 15)
    assert tokenizer.convert_ids_to_tokens(list(codes)) == levels[0] + levels[1]
    assert add_item_tokens(tokenizer, CODES, levels) == codes and len(tokenizer) == size + 18


def test_a_code_outside_of_its_level_is_refused_and_nothing_is_added():
    tokenizer = build_byte_tokenizer()
    for levels in ([["<a_9>", "<a_10>"], ["<b_0>"]], [["<b_3>", "<a_9>", "<a_10>"], ["<b_0>"]]):
        with pytest.raises(ValueError, match=r"\['<a_10>', '<b_3>'\] hold '<b_3>' at level 1.*same semantic IDs"):
            add_item_tokens(tokenizer, CODES, levels)
    assert len(tokenizer) == 258


def test_markers_without_codes():
    tokenizer = build_byte_tokenizer()
    assert thought_token_ids(tokenizer) == dict.fromkeys(
        ["start_thought_token_id", "thought_token_id", "end_thought_token_id"]
    )
    assert len(add_item_tokens(tokenizer)) == 0
    assert thought_token_ids(tokenizer)["start_thought_token_id"] == 258


def test_plain_text_holds_no_added_token(tokenizer):
    base = len(tokenizer) if tokenizer.pad_token_id > 256 else 256
    lowest_added = min(min(tokenizer.added_tokens_decoder), base)
    add_item_tokens(tokenizer, CODES)
    for text, ids in zip(TRICKY, encode_plain_text(tokenizer, TRICKY), strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert max(ids) < lowest_added
        assert THOUGHT_TOKEN not in tokenizer.convert_ids_to_tokens(ids)


def test_plain_text_is_ordinary_tokenization_of_ordinary_text(tokenizer):
    titles = ["The Best of Nina Simone (2 CD)", "Vis-à-vis", "it's  two  spaces", "日本"]
    assert encode_plain_text(tokenizer, titles) == tokenizer(titles, add_special_tokens=False).input_ids
