"""Texts of items against a slow loop, and what is said of those that are empty or the same."""

from __future__ import annotations

import logging
import unicodedata

import numpy as np
import polars as pl
import pytest

from hf_latentrec.semantic_ids.item_text import item_texts, report_texts


def slow_text(values, max_characters=2000):
    parts = []
    for value in values:
        if isinstance(value, list):
            value = ", ".join(word for word in value if word is not None and has_words(word))
        part = " ".join(str("" if value is None else value).split()).rstrip(". ")
        if has_words(part):
            parts.append(part)
    return ". ".join(parts)[:max_characters].rstrip()


def has_words(text):
    return any(unicodedata.category(letter)[0] in "LNS" for letter in text)


PARTS = ["Desk  lamp", " a\tb\n", "", None, "[]", "-", "...", "Acme Inc.", "÷", "日本 ランプ", "9", "é.. "]


def random_items(seed, num_items=200):
    rng = np.random.default_rng(seed)

    def draw():
        return PARTS[rng.integers(len(PARTS))]

    return pl.DataFrame(
        {
            "item_id": [str(number) for number in range(num_items)],
            "description": [draw() for _ in range(num_items)],
            "title": [draw() for _ in range(num_items)],
            "categories": [
                None if rng.random() < 0.1 else [draw() for _ in range(rng.integers(4))] for _ in range(num_items)
            ],
            "year": [None if rng.random() < 0.2 else int(rng.integers(1990, 2000)) for _ in range(num_items)],
        },
        schema_overrides={"categories": pl.List(pl.String)},
    )


@pytest.mark.parametrize("fields", [None, ["description", "year"], ["categories"]])
@pytest.mark.parametrize("max_characters", [2000, 12])
def test_texts_are_those_of_a_loop(fields, max_characters):
    items = random_items(0)
    used = fields or ["title", "categories", "description"]
    expected = [slow_text([row[field] for field in used], max_characters) for row in items.iter_rows(named=True)]
    expected = [text or item_id for text, item_id in zip(expected, items["item_id"], strict=True)]
    assert item_texts(items, fields, max_characters=max_characters, on_empty="id") == expected
    assert max(map(len, expected)) <= max_characters


def test_columns_without_a_value():
    items = pl.DataFrame({"item_id": [3], "title": ["Lamp"], "brand": [None], "categories": [[]]})
    assert items.schema["brand"] == pl.Null and items.schema["categories"] == pl.List(pl.Null)
    assert item_texts(items) == ["Lamp"]
    with pytest.raises(ValueError, match="1 of 1 items have no text in brand, first '3'"):
        item_texts(items, ["brand"])


def test_items_without_text_are_named():
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d", "e"], "title": ["Lamp", "", None, "[]", "..."]})
    message = r"4 of 5 items have no text in title, first 'b', 'c', 'd'; .* on_empty=\"id\""
    with pytest.raises(ValueError, match=message):
        item_texts(items)
    assert item_texts(items, on_empty="id") == ["Lamp", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {"title": ["x"], "genre": ["y"]},
            {"fields": ["title", "brand"]},
            "no column 'brand'; there are item_id, title",
        ),
        ({"genre": ["y"]}, {}, "no column 'title', 'brand', 'categories', 'description'; there are item_id, genre"),
        ({"title": ["x"]}, {"fields": []}, "no field is named"),
        ({"title": [True]}, {}, "column 'title' holds Boolean"),
        ({"title": [[1]]}, {}, r"column 'title' holds List\(Int64\)"),
        ({"title": ["x"]}, {"max_characters": 0}, "max_characters=0"),
        ({"title": ["x"]}, {"on_empty": "skip"}, "on_empty='skip'"),
    ],
)
def test_bad_input(columns, settings, message):
    with pytest.raises(ValueError, match=message):
        item_texts(pl.DataFrame({"item_id": ["1"], **columns}), **settings)


def test_no_items():
    with pytest.raises(ValueError, match="no items"):
        item_texts(pl.DataFrame({"item_id": [], "title": []}))
    with pytest.raises(ValueError, match="no texts"):
        report_texts([])


def test_items_without_ids():
    with pytest.raises(ValueError, match="no column 'item_id'"):
        item_texts(pl.DataFrame({"title": ["x"]}))


@pytest.mark.parametrize(
    ("repeats", "warned", "honest"), [(1, False, False), (2, False, False), (3, True, False), (100, True, True)]
)
def test_a_text_of_many_items_is_warned_of(caplog, repeats, warned, honest):
    texts = [f"Item {number}" for number in range(200 - repeats)] + ["Gift card"] * repeats
    with caplog.at_level(logging.WARNING):
        report = report_texts(texts)
    assert (report.num_texts, report.num_distinct) == (200, 201 - repeats)
    assert report.num_most_frequent == repeats and report.share == repeats / 200
    assert report.most_frequent == ("Item 0" if repeats == 1 else "Gift card")
    assert (f"{repeats} of 200 items ({repeats / 200:.1%}) have the same text 'Gift card'" in caplog.text) == warned
    assert ("do not train on them" in caplog.text) == honest


def test_a_small_catalog_is_not_warned_of_what_is_unique(caplog):
    with caplog.at_level(logging.WARNING):
        report_texts(["a", "b"])
    assert not caplog.records
