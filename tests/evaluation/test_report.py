"""The report is one file that needs no other; it says what the run holds, and nothing that it does not."""

from __future__ import annotations

import base64
import importlib
import io
import re
import sys
from dataclasses import replace

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from hf_latentrec.evaluation import report_plots, report_quality  # noqa: E402
from hf_latentrec.evaluation.metrics import ranking_metrics  # noqa: E402
from hf_latentrec.evaluation.report import check_baselines, write_report  # noqa: E402

from .pages import parse, rows_of  # noqa: E402
from .report_runs import FULL, UNSEEN, make_run, minimal_run, thinking_run  # noqa: E402


HOSTILE = '"><script>alert("x")</script> _$x$ 石鹸 & <b>'
RUN = replace(thinking_run(HOSTILE), details=thinking_run("").details | {"note": "<img src=x onerror=alert(1)>"})
BASELINES = [make_run("SASRec", 0.1, seed=1), make_run("SASRec", 0.12, seed=2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "report-of-last-year.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plots, "DPI", 40)
        assert write_report(folder, RUN, BASELINES) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return parse((folder / "report.html").read_text(encoding="utf-8"))


def table_of(page, section: str, caption: str):
    (section,) = [node for node in page.find("section") if node.find("h2")[0].text == section]
    return next(table for table in section.find("table") if table.find("caption")[0].text == caption)


def test_sections_stand_in_order_and_are_linked(page):
    titles = [
        "What was evaluated", "Ranking quality", "Groups of users", "Depth", "Reasoning steps",
        "Factors of the thought", "Recommendations as a whole", "Latency", "Training",
    ]  # fmt: skip
    assert [heading.text for heading in page.find("h2")] == titles
    assert [link.text for link in page.find("nav")[0].find("a")] == titles
    anchors = {node.attributes["id"] for node in page.find("h2")}
    assert {link.attributes["href"] for link in page.find("a")} == {f"#{anchor}" for anchor in anchors}


def test_labels_and_details_are_text_and_nothing_else(page):
    assert page.find("h1")[0].text == HOSTILE and HOSTILE in page.find("title")[0].text
    assert not page.find("script", "b", "iframe", "object", "link", "form")
    facts = dict(zip([node.text for node in page.find("dt")], [node.text for node in page.find("dd")], strict=True))
    assert facts["Note"] == "<img src=x onerror=alert(1)>"
    assert not any(name.startswith("on") for node in page.find() for name in node.attributes)


def test_details_are_written_for_people(page):
    facts = dict(zip([node.text for node in page.find("dt")], [node.text for node in page.find("dd")], strict=True))
    expected = {
        "Users": "200", "Items": "40", "Protocols": "nothing filtered, seen items excluded", "Parameters": "1,234,567",
        "Seed": "2026", "Split fingerprint": "5ab1e0c4", "Versions": "torch 2.13.0, transformers 5.23.0",
        "Cutoffs": "5, 10, 20", "Compiled": "no",
    }  # fmt: skip
    assert facts | expected == facts and "Revision" not in facts


def test_the_page_loads_nothing(page):
    for node in page.find():
        for name in ("src", "href", "srcset", "action", "data"):
            assert (node.attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    (style,) = page.find("style")
    assert "url(" not in style.text and "@import" not in style.text
    policy = [node.attributes["content"] for node in page.find("meta") if "http-equiv" in node.attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_pictures_are_there_twice_and_tell_what_they_show(page, folder):
    files = {path.read_bytes(): path.name for path in folder.glob("*.png")}
    images = page.find("img")
    assert len(files) == len(images) > 15 and "report-of-last-year.png" not in files.values()
    for image in images:
        content = base64.b64decode(image.attributes["src"].partition(",")[2])
        assert content in files
        width, height = Image.open(io.BytesIO(content)).size
        assert width / height == pytest.approx(
            int(image.attributes["width"]) / int(image.attributes["height"]), rel=0.02
        )
        assert len(image.attributes["alt"]) > 20
    names = set(files.values())
    assert {"report-quality.png", "report-steps-seen-items-excluded.png", "report-factors-correlation.png"} <= names


def test_tables_are_whole_and_their_headings_have_a_scope(page):
    for table in page.find("table"):
        assert table.find("caption")[0].text
        assert {cell.attributes["scope"] for cell in table.find("th")} <= {"col", "row", "rowgroup"}
        width = len(table.find("thead")[0].find("th"))
        for row in table.find("tr"):
            cells = row.find("th", "td")
            assert sum(int(cell.attributes.get("colspan") or 1) for cell in cells) == width


@pytest.mark.parametrize("protocol", [FULL, UNSEEN])
def test_metrics_are_those_of_the_ranks_and_the_best_is_marked(page, protocol):
    header, *rows = table_of(page, "Ranking quality", protocol.capitalize()).find("tr")
    columns = [cell.text for cell in header.find("th")][1:]
    assert columns == ["HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"]
    expected = [ranking_metrics(run.ranks[protocol].ranks) for run in (RUN, *BASELINES)]
    assert [row.find("th")[0].text for row in rows] == [HOSTILE, "SASRec", "SASRec (2)"]
    for row, metrics in zip(rows, expected, strict=True):
        for cell, name in zip(row.find("td"), columns, strict=True):
            assert cell.text.startswith(f"{metrics[name]:.4f}")
            best = max(f"{other[name]:.4f}" for other in expected)
            is_best = f"{metrics[name]:.4f}" == best
            assert (cell.text[6:11] == " best") == bool(cell.find("strong")) == is_best


def test_in_what_the_models_differ(page):
    rows = rows_of(table_of(page, "What was evaluated", "In what the models differ"))
    assert rows[0][:3] == ["Label", "model class", "data"] and "seed" not in rows[0] and "parameters" not in rows[0]
    assert [row[:3] for row in rows[1:]] == [
        [HOSTILE, "Qwen3ForLatentReasoning", "amazon_beauty_2014"],
        ["SASRec", "SASRec", "–"],
        ["SASRec (2)", "SASRec", "–"],
    ]


def test_what_the_protocol_changes(page):
    rows = rows_of(table_of(page, "Ranking quality", f"{HOSTILE} under both protocols"))
    first, second = (ranking_metrics(RUN.ranks[protocol].ranks)["NDCG@10"] for protocol in (FULL, UNSEEN))
    assert ["NDCG@10", f"{first:.4f}", f"{second:.4f}", f"{100 * (second / first - 1):+.1f}%"] in rows


def test_stars_are_explained_where_there_are_any(page):
    table = table_of(page, "Ranking quality", "Nothing filtered")
    stars = [node.text for node in table.find("span") if "stars" in (node.attributes.get("class") or "")]
    assert stars and set(stars) <= {"*", "**", "***"}
    assert "paired t-test over the users (* p < 0.05, ** p < 0.01, *** p < 0.001)" in page.text


def test_what_a_run_does_not_have_has_no_section(tmp_path):
    page = parse(write_report(tmp_path / "new", minimal_run()).read_text(encoding="utf-8"))
    assert [heading.text for heading in page.find("h2")] == ["What was evaluated", "Ranking quality"]
    assert not page.find("img") and not list((tmp_path / "new").glob("*.png")) and not page.find("strong")


def test_half_a_letter_is_left_out(tmp_path):
    page = parse(write_report(tmp_path, minimal_run("a\ud800b\x00 \u202ec")).read_text(encoding="utf-8"))
    assert page.find("h1")[0].text == "a b c"
    page = parse(write_report(tmp_path, minimal_run("\u200b")).read_text(encoding="utf-8"))
    assert page.find("h1")[0].text == "unnamed"


def test_in_what_a_baseline_differs_is_named(tmp_path, monkeypatch):
    run, baseline = minimal_run("LARES"), minimal_run("Item-KNN")
    run = replace(run, ranks=run.ranks | {UNSEEN: run.ranks[FULL]})
    items = replace(
        baseline.items,
        item_ids=baseline.items.item_ids[:-1],
        titles=baseline.items.titles[:-1],
        popularity=baseline.items.popularity[:-1],
    )
    ranks = replace(baseline.ranks[FULL], metadata=baseline.ranks[FULL].metadata | {"num_beams": 20})
    monkeypatch.setattr(report_plots, "DPI", 40)
    page = parse(
        write_report(tmp_path, run, [replace(baseline, items=items, ranks={FULL: ranks})]).read_text(encoding="utf-8")
    )
    assert (
        "Item-KNN ranks 39 items, LARES 40; was not evaluated with seen items excluded; searches with 20 beams, "
        "beyond which all is a miss, LARES ranks every item." in page.text
    )
    assert len(table_of(page, "Ranking quality", "Seen items excluded").find("tr")) == 2


def test_baselines_of_another_split_or_of_other_users_are_refused():
    run, other = minimal_run("LARES"), minimal_run("SASRec")
    file = other.ranks[FULL]
    split = replace(other, ranks={FULL: replace(file, metadata=file.metadata | {"split_fingerprint": "0dd"})})
    message = "'LARES' has split_fingerprint '5ab1e0c4', but the baseline 'SASRec' has '0dd'"
    with pytest.raises(ValueError, match=message):
        check_baselines(run, [split])
    with pytest.raises(ValueError, match=message.replace("SASRec", "LARES")):
        check_baselines(run, [replace(split, label="LARES")])
    fewer = replace(other, ranks={FULL: replace(file, user_ids=[*file.user_ids[:-2], "new", "u198"])})
    with pytest.raises(
        ValueError, match=r"'SASRec' lacks 1 \('u199'\) of the 200 users of 'LARES' and has 1 \('new'\)"
    ):
        check_baselines(run, [fewer])
    with pytest.raises(ValueError, match=r"'SASRec' was evaluated with \['seen items excluded'\], 'LARES' with"):
        check_baselines(run, [replace(other, ranks={UNSEEN: file})])
    ours = replace(run, ranks={FULL: replace(file, metadata=file.metadata | {"part": "test"})})
    theirs = replace(other, ranks={FULL: replace(file, metadata=file.metadata | {"part": "validation"})})
    with pytest.raises(ValueError, match="'SASRec' was evaluated on the part 'validation', 'LARES' on 'test'"):
        check_baselines(ours, [other, theirs])
    titles = replace(other, ranks={FULL: replace(file, metadata=file.metadata | {"match": "title"})})
    with pytest.raises(ValueError, match="'LARES' has match 'item', but the baseline 'SASRec' has 'title'"):
        check_baselines(run, [titles])
    with pytest.raises(ValueError, match="'LARES' holds no ranks"):
        check_baselines(replace(run, ranks={}), [])
    order = np.random.default_rng(0).permutation(len(file.user_ids)).tolist()
    check_baselines(run, [replace(other, ranks={FULL: replace(file, user_ids=[file.user_ids[i] for i in order])})])


def test_a_cutoff_beyond_the_catalog_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the cutoff 50 is above the size of the catalog, 40 items"):
        write_report(tmp_path, minimal_run(), ks=(5, 50))


def test_the_smallest_cutoff_stands_in_for_ten(tmp_path):
    page = parse(write_report(tmp_path, minimal_run(), ks=(20, 3, 20)).read_text(encoding="utf-8"))
    header = rows_of(table_of(page, "Ranking quality", "Nothing filtered"))[0]
    assert header == ["Model", "HR@3", "NDCG@3", "HR@20", "NDCG@20"]
    assert report_quality.headline_metrics([3, 20]) == ("HR@3", "NDCG@3")
    assert report_quality.headline_metrics([5, 10]) == ("HR@10", "NDCG@10")


def test_the_page_can_be_printed_and_read_on_a_phone(page):
    (style,) = page.find("style")
    assert re.search(r"@media print \{.*break-before: page", style.text) and "@media (max-width" in style.text
    viewport = [node.attributes["content"] for node in page.find("meta") if node.attributes.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]
    boxes = [node for node in page.find("div") if node.attributes.get("class") == "box"]
    assert len(boxes) == len(page.find("table")) and all(node.attributes["tabindex"] == "0" for node in boxes)


def test_a_missing_matplotlib_is_named(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("hf_latentrec.evaluation") and ("plot" in name or "report" in name):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_latentrec\[plots\]'"):
        importlib.import_module("hf_latentrec.evaluation.report")
