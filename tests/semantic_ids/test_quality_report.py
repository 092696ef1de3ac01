"""The page needs no other file, says what was measured, and titles are text in it."""

from __future__ import annotations

import importlib.util
import json

import polars as pl
import pytest

from hf_latentrec.semantic_ids.quality import quality_of_codes
from hf_latentrec.semantic_ids.quality_report import describe, write_quality_report

from ..evaluation.pages import parse, rows_of
from .quality_cases import make_quality


HOSTILE = '"><script>alert("x")</script> <b>&amp;'


@pytest.fixture(scope="module")
def quality():
    return make_quality()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quality):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("quality") / "new"
    assert write_quality_report(folder, quality, HOSTILE) == folder / "quality.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return parse((folder / "quality.html").read_text(encoding="utf-8"))


def tables_of(page) -> dict[str, list[list[str]]]:
    return {table.find("caption")[0].text: rows_of(table) for table in page.find("table")}


def test_sections_stand_in_order(page):
    assert [heading.text for heading in page.find("h2")] == [
        "Summary", "Collisions", "Use of the codes", "Reconstruction", "Categories", "Purchases", "Prefixes",
    ]  # fmt: skip
    assert page.find("title")[0].text == f"{HOSTILE}: quality of semantic IDs"


def test_titles_and_names_are_text(page, folder):
    assert page.find("h1")[0].text == HOSTILE
    assert not page.find("script", "b")
    examples = " ".join(row[-1] for row in tables_of(page)["Biggest prefixes of 1 code"])
    assert "title <b>" in examples
    text = (folder / "quality.html").read_text(encoding="utf-8")
    assert "<b>model</b>" not in text and "&lt;b&gt;model&lt;/b&gt;" in text


def test_the_page_needs_nothing_else(page, folder):
    sources = [image.attributes["src"] for image in page.find("img")]
    assert len(sources) == 6 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not page.find("link", "iframe")
    assert sorted(path.name for path in folder.iterdir()) == [
        "quality-categories.png", "quality-collisions.png", "quality-error.png", "quality-prefix-sizes.png",
        "quality-purchases.png", "quality-use.png", "quality.html", "quality.json",
    ]  # fmt: skip


def test_tables_hold_the_figures(page, quality):
    tables = tables_of(page)
    before, after = tables["Collisions"][1:]
    assert before[1:] == [str(quality.before.num_colliding), f"{quality.before.rate:.2%}",
                          str(quality.before.num_codes), str(quality.before.biggest)]  # fmt: skip
    assert after[1:] == ["0", "0.00%", "60", "1"]
    levels = tables["Use of the codes by level"][1:]
    assert [row[0] for row in levels] == ["a", "b"]
    assert [row[4] for row in levels] == [f"{level.entropy:.2f}" for level in quality.levels]
    pairs = tables["Pairs with the same brand"]
    assert [row[3] for row in pairs[1:]] == [f"{one.share:.2%}" for one in quality.categories[1].agreements]
    bought = tables["Bought by the same users"]
    one = quality.co_purchases.co_purchases[1]
    assert bought[2][:3] == ["1 code", str(one.num_pairs), str(one.num_co_purchases)]
    assert bought[2][4] == f"{one.lift:.2f} ± {one.lift * one.relative_error:.2f}"
    biggest = tables["Biggest prefixes of 2 codes"]
    assert biggest[1][:2] == ["".join(quality.biggest[2][0].tokens), str(quality.biggest[2][0].num_items)]
    assert "Biggest prefixes of 3 codes" not in tables  # no two items share all codes


def test_the_json_file_holds_all(folder, quality):
    figures = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    assert figures == quality.to_dict() and figures["after"]["num_items"] == 60


def test_the_same_figures_are_the_same_bytes(folder, quality, tmp_path):
    write_quality_report(tmp_path, make_quality(), HOSTILE)
    for name in ("quality.html", "quality.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_warnings_are_shown(tmp_path):
    codes = pl.DataFrame({"item_id": ["x", "y"], "semantic_id": [["<a_0>"], ["<a_0>"]]})
    quality = quality_of_codes(codes, items=pl.DataFrame({"item_id": ["x", "y"], "categories": ["tea", "tea"]}))
    page = parse(write_quality_report(tmp_path, quality).read_text(encoding="utf-8"))
    paragraphs = [node.text for node in page.find("p")]
    assert quality.warnings and all(warning in paragraphs for warning in quality.warnings)
    assert all(f"WARNING: {warning}" in describe(quality) for warning in quality.warnings)
    assert "categories: fewer than two items have one, but for tea, which more than half have." in paragraphs
    notes = " ".join(paragraphs)
    assert "Sizes of the codebooks are not known" in notes


def test_without_matplotlib_the_page_says_what_is_missing(tmp_path, quality, monkeypatch, folder):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    (tmp_path / "quality-use.png").write_bytes(b"of an older report")
    page = parse(write_quality_report(tmp_path, quality).read_text(encoding="utf-8"))
    assert not page.find("img") and sorted(path.name for path in tmp_path.iterdir()) == [
        "quality.html",
        "quality.json",
    ]
    assert "Pictures are missing: matplotlib is not installed" in page.find("section")[0].text
    with_pictures = parse((folder / "quality.html").read_text(encoding="utf-8"))
    assert tables_of(page) == tables_of(with_pictures)


def test_the_text_has_every_table(quality):
    text = describe(quality)
    for caption in (
        "Collisions",
        "Use of the codes by level",
        "Pairs with the same brand",
        "Bought by the same users",
    ):
        assert f"{caption} " in text
    assert max(map(len, text.splitlines())) < 120
