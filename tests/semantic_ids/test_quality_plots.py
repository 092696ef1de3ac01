"""The pictures show what was measured, readable and without overlaps."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import polars as pl
import pytest


pytest.importorskip("matplotlib")

from hf_latentrec.evaluation.report_plots import to_png  # noqa: E402
from hf_latentrec.semantic_ids.quality import quality_of_codes, quality_of_ids  # noqa: E402
from hf_latentrec.semantic_ids.quality_plots import (  # noqa: E402
    category_chart,
    collision_chart,
    error_chart,
    lift_chart,
    prefix_size_chart,
    quality_charts,
    use_chart,
)

from .quality_cases import make_case, make_quality  # noqa: E402


@pytest.fixture(scope="module")
def quality():
    return make_quality()


def bare(codes: list[list[int]]):
    """Codes without anything to judge them by."""
    tokens = [[f"<{'abc'[level]}_{code}>" for level, code in enumerate(row)] for row in codes]
    return quality_of_codes(pl.DataFrame({"item_id": [str(row) for row in range(len(codes))], "semantic_id": tokens}))


def legend_of(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def bars_of(figure) -> list[list[float]]:
    return [[bar.get_width() for bar in container] for container in figure.axes[0].containers]


def texts_of(figure) -> list:
    """All text that is seen."""
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = sorted(axes.get_xlim())
    ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    low, high = sorted(axes.get_ylim())
    ticks += [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    legend = [text for one in figure.legends for text in one.get_texts()]
    return [text for text in [*axes.texts, *ticks, axes.xaxis.label, axes.yaxis.label, *legend] if text.get_text()]


def test_curves_of_use_are_the_counts(quality):
    figure = use_chart(quality)
    for level, line in zip(quality.levels, figure.axes[0].lines, strict=False):
        assert line.get_xdata().tolist() == [1, 2, 3, 4] and tuple(line.get_ydata()) == level.counts
    assert figure.axes[0].lines[2].get_ydata() == [15, 15]  # 60 items over 4 codes
    assert legend_of(figure) == ["level a", "level b"] and figure.axes[0].get_yscale() == "log"


def test_a_codebook_of_one_used_code_is_seen():
    figure = use_chart(bare([[0, 0], [0, 1], [0, 2]]))
    line = figure.axes[0].lines[0]
    assert line.get_marker() != "None" and line.get_markevery() == [-1]


def test_curves_of_prefixes_are_their_sizes(quality):
    figure = prefix_size_chart(quality)
    assert legend_of(figure) == ["1 code", "2 codes"]  # no two items share three
    for prefixes, line in zip(quality.prefixes, figure.axes[0].lines, strict=False):
        sizes = [size for size, number in prefixes.num_prefixes_by_size.items() for _ in range(number)]
        for rank, size in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert sizes[rank - 1] == size
        assert (line.get_xdata().min(), line.get_xdata().max()) == (1, prefixes.num_prefixes)


def test_bars_are_the_shares(quality):
    assert bars_of(collision_chart(quality)) == [[100 * quality.before.rate, 0.0]]
    shares = [[100 * one.share for one in categories.agreements] for categories in quality.categories]
    figure = category_chart(quality)
    assert bars_of(figure) == shares and legend_of(figure) == ["same categories", "same brand"]
    assert bars_of(error_chart(quality)) == [[error.relative for error in quality.errors]]


def test_errors_before_and_after_are_shown_where_they_differ():
    case = make_case()
    ids = case["semantic_ids"]
    ids.codes_IL, ids.level_sizes, ids.policy = ids.raw_codes_IL[:, ::-1].copy(), (4, 4), "nearest_free"
    figure = error_chart(quality_of_ids(ids, case["embeddings_ID"]))
    assert legend_of(figure) == ["before the policy", "after it"]


def test_points_are_the_lifts_with_their_intervals(quality):
    figure = lift_chart(quality)
    found = [one for one in quality.co_purchases.co_purchases if one.length]
    for name, container in zip(("lift", "lift_same_popularity"), figure.axes[0].containers, strict=True):
        points, _, (interval,) = container.lines
        lifts = np.array([getattr(one, name) for one in found])
        assert points.get_xdata().tolist() == lifts.tolist()
        factors = np.exp([1.96 * one.relative_error for one in found])
        ends = np.array([segment[:, 0] for segment in interval.get_segments()])
        assert np.allclose(ends, np.stack([lifts / factors, lifts * factors], axis=1))
    assert figure.axes[0].get_xscale() == "log" and 1 in figure.axes[0].get_xticks()


def test_what_was_not_measured_has_no_picture():
    quality = bare([[0, 1], [1, 0], [1, 1]])
    assert category_chart(quality) is lift_chart(quality) is error_chart(quality) is collision_chart(quality) is None
    assert list(quality_charts(quality)) == ["use", "prefix sizes"]


def test_a_lift_of_zero_has_no_picture():
    codes = pl.DataFrame({"item_id": ["x", "y", "z"], "semantic_id": [["<a_0>"], ["<a_1>"], ["<a_1>"]]})
    interactions = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["x", "y"]})
    assert lift_chart(quality_of_codes(codes, interactions=interactions)) is None


@pytest.mark.parametrize("name", ["use", "prefix sizes", "collisions", "error", "categories", "purchases"])
@pytest.mark.parametrize("size", [4, 40])
def test_no_text_lies_over_another(name, size):
    figure = quality_charts(make_quality(**make_case(num_items=200, size=size, L=3)))[name]
    texts = texts_of(figure)
    boxes = [text.get_window_extent() for text in texts]
    assert len(texts) > 5
    for (one, first), (two, second) in combinations(zip(texts, boxes, strict=True), 2):
        assert not first.overlaps(second), f"{one.get_text()!r} lies over {two.get_text()!r}"
    width, height = figure.canvas.get_width_height()
    assert all(0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("codes", [[[0]], [[0], [0]], [[0, 0]] * 30, [[row % 30] for row in range(3000)]])
def test_odd_catalogs_are_drawn(codes, recwarn):
    for figure in quality_charts(bare(codes)).values():
        assert to_png(figure)[1:4] == b"PNG"
    assert not recwarn.list


def test_pyplot_is_left_alone(quality):
    before = "matplotlib.pyplot" in sys.modules
    quality_charts(quality)
    assert ("matplotlib.pyplot" in sys.modules) == before
