"""The pictures of a report show the values that they are given, and letters as they are."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from hf_latentrec.evaluation import report_plots, report_style  # noqa: E402
from hf_latentrec.evaluation.report_plots import (  # noqa: E402
    bar_chart,
    depth_chart,
    factor_charts,
    stage_chart,
    throughput_chart,
    to_png,
    training_charts,
)

from .report_runs import factors, latency, logged  # noqa: E402


def legend_of(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_bars_have_their_values_and_do_not_overlap():
    values = {"popular": {"_A $x$": 0.3, "B": 0.1}, "long-tail": {"B": 0.2}, "third": {"_A $x$": 0.0, "B": 0.4}}
    figure = bar_chart(values, "NDCG@10", ylabel="group")
    (axes,) = figure.axes
    first, second = axes.containers
    assert [bar.get_width() for bar in first] == [0.3, 0.0] and [bar.get_width() for bar in second] == [0.1, 0.2, 0.4]
    assert sorted(text.get_text() for text in axes.texts) == ["0.0000", "0.1000", "0.2000", "0.3000", "0.4000"]
    bars = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in [*first, *second])
    assert all(end < start for (_, end), (start, _) in zip(bars[:-1], bars[1:], strict=True))
    bottom, top = axes.get_ylim()
    assert bottom > bars[-1][1] and top < bars[0][0]
    assert legend_of(figure) == ["_A $x$", "B"] and not any(
        text.get_parse_math() for text in figure.legends[0].get_texts()
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["popular", "long-tail", "third"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("NDCG@10", "group")


def test_one_series_has_no_legend_and_names_are_no_formulas():
    figure = bar_chart({"$x^2$ <b>": {"users": 0.25}}, "share", text="{:.1%}")
    assert legend_of(figure) == [] and figure.axes[0].texts[0].get_text() == "25.0%"
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text() == "$x^2$ <b>" and not label.get_parse_math()


def test_pictures_are_as_wide_as_a_phone_shows(monkeypatch):
    monkeypatch.setattr(report_plots, "DPI", 50)
    figure = bar_chart({"A": {"x": 1.0}}, "x")
    image = Image.open(io.BytesIO(to_png(figure)))
    assert image.format == "PNG" and image.size[0] == 50 * report_style.WIDTH


def test_depths_of_several_models_are_named():
    figure = depth_chart({"_LARES": {1: [0.1, 0.2], 2: [0.3, 0.3]}, "LASAR": {1: [0.4]}}, "NDCG@10")
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata() == pytest.approx([0.15, 0.3]) and legend_of(figure) == ["_LARES", "LASAR"]


def test_stages_add_up_to_the_time_of_a_user():
    rows = latency()
    figure = stage_chart(rows)
    (axes,) = figure.axes
    assert legend_of(figure) == ["encode", "think", "decode"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["1, thinking", "1, no thinking", "4, thinking"] and len(names) == 8
    totals = np.sum([[bar.get_width() for bar in stage] for stage in axes.containers], axis=0)
    expected = [
        1000 * row["seconds_per_user"] for row in rows if row["stage"] == "total" and row["thinking"] != "explicit_cot"
    ]
    assert totals == pytest.approx(expected)
    decode = axes.containers[2][0]
    assert decode.get_x() == pytest.approx(28.0) and decode.get_width() == pytest.approx(90.0)
    assert stage_chart([row for row in rows if row["stage"] == "total"]) is None


def test_throughput_has_a_line_for_each_way_to_think():
    figure = throughput_chart(latency())
    (axes,) = figure.axes
    assert legend_of(figure) == ["thinking", "no thinking", "explicit CoT"]
    assert axes.lines[1].get_xdata().tolist() == [1, 4, 16, 64]
    assert axes.lines[1].get_ydata()[0] == pytest.approx(1 / 0.11)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "5", "10", "20", "50", "100"]
    assert throughput_chart([row for row in latency() if row["batch_size"] == 4]) is None


def test_factors_are_a_map_and_bars():
    charts = factor_charts(factors())
    assert list(charts) == ["correlation", "gates"]
    assert charts["correlation"].axes[0].images[0].get_array().tolist() == factors()["correlation"]
    (bars,) = charts["gates"].axes[0].containers
    assert [bar.get_width() for bar in bars] == [0.4, 0.3, 0.2, 0.1]


def test_training_shows_what_was_logged():
    charts = training_charts(logged())
    assert list(charts) == [
        "Training loss", "Validation HR", "Validation NDCG", "Rewards", "Mean reward of a group", "Mean depth",
        "Distribution of depths", "Loss: kl",
    ]  # fmt: skip
    (line,) = charts["Training loss"].axes[0].lines
    assert line.get_xdata().tolist() == list(range(10, 130, 10)) and line.get_ydata()[1] == 5.5
    assert legend_of(charts["Validation HR"]) == ["@5", "@10", "@20"]
    lines = charts["Validation NDCG"].axes[0].lines
    assert lines[1].get_ydata()[0] == pytest.approx(0.005 * 10**0.3)
    assert len({line.get_color() for line in lines}) == 3
    assert legend_of(charts["Rewards"]) == ["ndcg reward", "rule reward"]
    assert charts["Mean depth"].axes[0].get_title() == "Mean depth"
    assert training_charts([]) == {} and list(training_charts([{"step": 1, "eval_loss": 0.5}])) == ["Validation loss"]


def test_pyplot_is_left_alone():
    before = "matplotlib.pyplot" in sys.modules
    to_png(bar_chart({"A": {"x": 1.0}}, "x"))
    assert ("matplotlib.pyplot" in sys.modules) == before
