from __future__ import annotations

import html
import random
import re
import unicodedata

import polars as pl
import pytest

from hf_latentrec.data.sources.text_cleaning import clean_text


def clean(*texts) -> list[str | None]:
    frame = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    return frame.select(clean_text(pl.col("text")))["text"].to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("R&amp;amp;B", "R&B"),
        ("&amp;lt;b&amp;gt;Tea&amp;lt;/b&amp;gt;", "Tea"),
        ("&quot;Tea&quot; &#39;n&#x27; Milk&nbsp;&eacute;", "\"Tea\" 'n' Milk é"),
        ("AT&T AT&LTD Q&A; B&COPY", "AT&T AT&LTD Q&A; B&COPY"),
        ("no &such; entity &#; &;", "no &such; entity &#; &;"),
        ('<span id="productTitle" class="a-size-large">\n  Tea\n</span>', "Tea"),
        ("Te<b>a</b>, <i>hot</i>", "Tea, hot"),
        ("Tea<br>Milk<BR />Sugar<p>Cup</p>", "Tea Milk Sugar Cup"),
        ("<img src='a.png' alt=\"x\"/>Tea<a href='x'>link</a>", "Tealink"),
        ("a <b and c> d, x<y, <3, <Untitled>, -> <-, <I Love You>", None),
        ("<!-- a > b\n -->Tea<style>b {x: 1}</style><script type='x'>if (a < b) {}</script>Milk", "Tea Milk"),
        ("Te\x00a\x07 Mi\u200blk\ufeff \x9f", "Tea Milk"),
        ("  Tea \t\r\n\x0b\u00a0\u3000\u2028 Milk\x85", "Tea Milk"),
        ("日本語 👩‍👩‍👧 ﻿", "日本語 👩‍👩‍👧"),
        ("", ""),
        (" <br> ", ""),
    ],
)
def test_one_text(text, expected):
    assert clean(text) == [text if expected is None else expected]


def test_null_stays_null_and_order_stays():
    assert clean("b &amp; c", None, "a", "b &amp; c") == ["b & c", None, "a", "b & c"]
    assert clean(None) == [None]
    assert clean() == []


def test_entities_and_white_space_like_a_slow_loop():
    pieces = [
        "Tea",
        "é",
        "&amp;",
        "&amp;amp;",
        "&lt;",
        "&#233;",
        "&#x2F;",
        "&nbsp;",
        " ",
        "\t",
        "\n",
        "&hellip;",
        "\x01",
    ]
    draw = random.Random(0)
    texts = ["".join(draw.choices(pieces, k=draw.randrange(9))) for _ in range(500)]
    expected = []
    for text in texts:
        plain = html.unescape(html.unescape(text))
        spaced = ["" if unicodedata.category(c) == "Cc" and not c.isspace() else c for c in plain]
        expected.append(" ".join("".join(spaced).split()))
    assert clean(*texts) == expected


def test_tags_like_a_slow_loop():
    pieces = ["Tea", " ", "<b>", "</b>", "<br/>", "<p>", "</p>", "<font color='red'>", "<3", "a < b", "<unknown>"]
    draw = random.Random(0)
    texts = ["".join(draw.choices(pieces, k=draw.randrange(9))) for _ in range(500)]
    expected = []
    for text in texts:
        for tag, blank in (("<b>", ""), ("</b>", ""), ("<font color='red'>", "")):
            text = text.replace(tag, blank)
        expected.append(re.sub(r"\s+", " ", re.sub("<br/>|</?p>", " ", text)).strip())
    assert clean(*texts) == expected


def test_lists_and_lazy_streaming():
    frame = pl.LazyFrame({"c": [["A &amp; B", " x "], [], None], "t": ["<i>a</i>", None, "b"]})
    lists = pl.col("c").list.eval(clean_text(pl.element()))
    rows = frame.select(lists, clean_text(pl.col("t"))).collect(engine="streaming").rows()
    assert rows == [(["A & B", "x"], "a"), ([], None), (None, "b")]
