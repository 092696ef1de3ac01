"""Pictures of explanations: what stands where, that all of it is inside, and that nothing covers anything else."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from hf_latentrec.data import load_data
from hf_latentrec.evaluation import Explanation, plots
from hf_latentrec.evaluation.plots import caption, combined_figure, draw_attention, save_plots, shorten


TITLES = [
    "Tape", "a $5 tape and a $6 tape", "two\nlines\tand a tab", None, "x" * 200, '<b>12"</b> _ruler_ ^2 \\frac{1}{2}',
    "Widget, W-SERIES WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW", "Crème brûlée — 50 %",
]  # fmt: skip


def make_explanation(num_rows=4, num_items=6, factors=True, titles=TITLES):
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.full(num_items + 1, 0.5), size=(2, num_rows))
    vectors = rng.normal(size=(num_rows, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Explanation(
        reasoner="factorized_attention" if factors else "feedback",
        rows=[f"{'factor' if factors else 'thought'} {row + 1}" for row in range(num_rows)],
        item_ids=[f"B{item}" for item in range(num_items)],
        titles=[titles[item % len(titles)] for item in range(num_items)],
        attentions=attention[..., :-1],
        elsewhere=attention[..., -1],
        gates=rng.dirichlet(np.ones(num_rows), size=2) if factors else None,
        correlation=vectors @ vectors.T,
        mean_abs_correlation=0.123 if num_rows > 1 else None,
        disentanglement_score=0.456,
    )


def drawn(draw, explanation):
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.add_subplot()
    draw(explanation, axes)
    return axes


def texts_of(figure):
    """All visible texts of a figure, drawn now, and the box [left, bottom, right, top] that each takes, in pixels."""
    FigureCanvasAgg(figure).draw()
    found = figure.findobj(Text, include_self=False)
    found = {id(text): text for text in found if text.get_visible() and text.get_text().strip()}.values()
    boxes = [text.get_window_extent(figure.canvas.get_renderer()).extents for text in found]
    return [text.get_text() for text in found], np.array(boxes)


def test_titles_stand_on_the_axis_the_newest_last():
    axes = drawn(draw_attention, make_explanation(num_items=8))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:4] == ["Tape", "a $5 tape and a $6 tape", "two lines and a tab", "B3"]
    assert labels[4] == "x" * 47 + "…" and labels[7] == "Crème brûlée — 50 %"
    assert labels[8] == "other text and thoughts"
    bottom, top = axes.get_ylim()
    assert bottom > top  # row 0, the oldest, is at the top
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())  # "$5 tape and a $" is no formula


def test_cells_hold_the_last_iteration_in_percent():
    explanation = make_explanation(num_rows=3, num_items=4)
    axes = drawn(draw_attention, explanation)
    cells = {(round(x), y): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
    for (row, item), share in np.ndenumerate(explanation.attentions[-1]):
        assert cells[row, item] == f"{100 * share:.1f}"
    assert [cells[row, 4.25] for row in range(3)] == [f"{100 * share:.1f}" for share in explanation.elsewhere[-1]]
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(explanation.attentions[-1].T)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]


def test_gates_and_correlation_show_their_values():
    explanation = make_explanation(num_rows=3)
    axes = drawn(plots.draw_gates, explanation)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(explanation.gates[-1])
    assert [text.get_text() for text in axes.texts] == [f"{gate:.2f}" for gate in explanation.gates[-1]]
    axes = drawn(plots.draw_correlation, explanation)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["factor 1", "factor 2", "factor 3"]
    assert axes.images[0].get_clim() == (-1, 1)
    assert axes.texts[1].get_text() == f"{explanation.correlation[0, 1]:.2f}"


@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize(("num_rows", "num_items"), [(1, 1), (1, 20), (2, 3), (8, 1), (8, 20)])
def test_nothing_is_cut_off_or_covered(num_rows, num_items, factors):
    check_layout(make_explanation(num_rows, num_items, factors))


def test_real_titles_fit(real_data_dir):
    titles = load_data(real_data_dir("amazon_scientific_2018")).items["title"]
    longest = sorted((title or "" for title in titles), key=len)[-20:]
    widest = sorted(longest, key=lambda title: sum(letter.isupper() for letter in title[: plots.TITLE_WIDTH]))
    check_layout(make_explanation(4, 20, titles=widest))


def check_layout(explanation):
    figure = combined_figure(explanation)
    figure.supxlabel(caption(explanation))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is one
        texts, boxes = texts_of(figure)
    assert len(texts) > explanation.attentions[-1].size and (boxes[:, :2] >= -1).all()
    assert (boxes[:, 2:] <= np.array(figure.canvas.get_width_height()) + 1).all()
    shared = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    covered = np.argwhere(np.triu((shared > 1).all(-1), k=1))
    assert not len(covered), [(texts[i], texts[j]) for i, j in covered]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["attention.png", "correlation.png", "gates.png", "explanation.png"]),
        ({"num_rows": 1}, ["attention.png", "gates.png", "explanation.png"]),
        ({"factors": False}, ["attention.png", "correlation.png", "explanation.png"]),
        ({"num_rows": 1, "factors": False, "num_items": 1}, ["attention.png", "explanation.png"]),
    ],
)
def test_every_panel_is_a_picture_and_all_are_one(tmp_path, settings, names):
    paths = save_plots(make_explanation(**settings), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == names
    for path in paths:
        pixels = imread(path)[..., :3]
        assert pixels.shape[0] > 100 and pixels.shape[1] > 300 and 0.0 <= pixels.min() < 0.5 and pixels.max() == 1.0


def test_captions_say_what_the_figures_mean():
    assert caption(make_explanation()) == "Disentanglement Score 0.456   ·   mean |correlation| 0.123"
    assert caption(make_explanation(num_rows=1), "\n").endswith("\none factor: score 0 by definition")
    assert caption(make_explanation(num_items=1)).endswith("one item: score 0 by definition")


def test_titles_are_shortened_by_their_width():
    assert shorten("short", 5) == "short" and shorten("longer", 5) == "long…"
    assert shorten("a, b", 3) == "a…"  # no comma is left hanging
    assert shorten("日本語日本語", 7) == "日本語…" and shorten("日本語", 6) == "日本語"
    assert shorten(" \u200b two\n \x07lines ", 20) == "two lines" and shorten("", 4) == ""


def test_letters_without_a_glyph_are_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(plots, "label_fonts", lambda: ["DejaVu Sans"])
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        save_plots(make_explanation(titles=["日本語", "plain"]), tmp_path)
    assert len(caplog.records) == 1 and "3 letters of the titles are in no font" in caplog.text


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    spec = importlib.util.spec_from_file_location("hf_latentrec.evaluation.plots_again", plots.__file__)
    with pytest.raises(ImportError, match=r"pip install 'hf_latentrec\[plots\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_pyplot_is_left_alone(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    save_plots(make_explanation(), tmp_path)
    assert ("matplotlib.pyplot" in sys.modules) == before
