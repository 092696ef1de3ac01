"""The pictures of a report, each narrow enough that a phone shows it whole. Needs the extra `plots`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .depth_plot import COLORS, draw_depths
from .plots import draw_correlation, draw_gates
from .report_style import BAR, GAP, HEIGHT, MARKERS, add_legend, legend_height, name_rows, new_chart
from .training_plots import curve_of, draw_line, training_panels


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 200  # twice the pixels of a page: phones have more of them, too
STAGES = ("encode", "think", "decode")
THINKING = {True: "thinking", False: "no thinking", "explicit_cot": "explicit CoT"}
EVALUATED = re.compile(r"eval_([^@]*?)(@\d+)?")
REWARD = re.compile(r"rewards/(.+)/mean")
# What an evaluation during training logs beside metrics.
TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def bar_chart(
    values: Mapping[str, Mapping[str, float]], xlabel: str, text: str = "{:.4f}", ylabel: str = ""
) -> Figure:
    """
    Horizontal bars in groups, from top to bottom as they are given; the value stands at the end of each.

    Args:
        values (`Mapping[str, Mapping[str, float]]`): by group and series; a series may be absent from a group.
        xlabel (`str`): what the values are.
        text (`str`, *optional*, defaults to `"{:.4f}"`): how values are written.
        ylabel (`str`, *optional*): what the groups are.

    Returns:
        `Figure`: with a legend where there are several series.
    """
    series = list(dict.fromkeys(name for group in values.values() for name in group))
    place, ticks, bars = 0.0, [], []
    for group in values.values():
        places = [place + index * BAR for index in range(len(group))]
        bars += [(where, series.index(name), group[name]) for where, name in zip(places, group, strict=True)]
        ticks.append((places[0] + places[-1]) / 2)
        place = places[-1] + BAR + GAP
    with new_chart(place + 0.75 + legend_height(series)) as (figure, axes):
        for index in range(len(series)):
            of_series = [(where, value) for where, which, value in bars if which == index]
            drawn = axes.barh(*zip(*of_series, strict=True), height=0.9 * BAR, color=COLORS[index % len(COLORS)])
            axes.bar_label(drawn, [text.format(value) for _, value in of_series], padding=2, fontsize=7.5)
        name_rows(axes, ticks, list(values))
        axes.set_ylim(place - GAP - BAR / 2, -BAR)
        axes.margins(x=0.15)  # for the values
        axes.set_xlabel(xlabel, fontsize=8)
        axes.set_ylabel(ylabel, fontsize=8)
        add_legend(figure, axes.containers, series)
    return figure


def depth_chart(curves: Mapping[str, Mapping[int, Sequence[float]]], metric: str) -> Figure:
    """A line per model through its means over seeds, with their spread as a band; see [`draw_depths`]."""
    with new_chart(HEIGHT + legend_height(curves)) as (figure, axes):
        draw_depths(curves, axes, metric)
        axes.set_xlabel("reasoning steps", fontsize=8)
        axes.set_ylabel(metric, fontsize=8)
        add_legend(figure, axes.lines, list(curves))
    return figure


def stage_chart(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """
    Milliseconds per user: a bar per batch size, thinking or not, stacked of its stages.

    Args:
        rows (`list[dict]`): `run.latency`.

    Returns:
        `Figure`, or None where no stage was measured apart.
    """
    seconds = {(row["batch_size"], row["thinking"], row["stage"]): row["seconds_per_user"] for row in rows}
    bars = dict.fromkeys((size, how) for size, how, stage in seconds if stage in STAGES and isinstance(how, bool))
    if not bars:
        return None
    bars = sorted(bars, key=lambda bar: (bar[0], not bar[1]))
    places, place = [], 0.0
    for index, (size, _) in enumerate(bars):
        place += 0.0 if index == 0 else BAR + GAP * (size != bars[index - 1][0])
        places.append(place)
    with new_chart(place + 1.0 + legend_height(STAGES)) as (figure, axes):
        left = np.zeros(len(bars))
        for color, stage in zip(COLORS, STAGES, strict=False):
            widths = 1000 * np.array([seconds.get((*bar, stage), 0.0) for bar in bars])
            drawn = axes.barh(places, widths, left=left, height=0.9 * BAR, color=color)
            left += widths
        axes.bar_label(drawn, [f"{total:.3g}" for total in left], padding=2, fontsize=7.5)
        name_rows(axes, places, [f"{size}, {THINKING[how]}" for size, how in bars])
        axes.set_ylim(place + BAR, -BAR)
        axes.margins(x=0.12)
        axes.set_xlabel("milliseconds per user", fontsize=8)
        axes.set_ylabel("batch size", fontsize=8)
        add_legend(figure, axes.containers, STAGES)
    return figure


def thinking_of(rows: Sequence[Mapping[str, Any]]) -> dict[bool | str, str]:
    """What to call the ways to think that were timed, in the order to show; those not usual are names."""
    timed = dict.fromkeys(row["thinking"] for row in rows)
    ways = [*(how for how in THINKING if how in timed), *(how for how in timed if how not in THINKING)]
    return {how: THINKING.get(how, str(how)) for how in ways}


def throughput_chart(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """
    Users per second against the batch size, both logarithmic, a line for each way to think.

    Args:
        rows (`list[dict]`): `run.latency`.

    Returns:
        `Figure`, or None where there is one batch size.
    """
    totals = sorted((row for row in rows if row["stage"] == "total"), key=lambda row: row["batch_size"])
    lines = {
        name: [(row["batch_size"], row["users_per_second"]) for row in totals if row["thinking"] == how]
        for how, name in thinking_of(rows).items()
    }
    lines = {name: points for name, points in lines.items() if points}
    sizes = sorted({size for points in lines.values() for size, _ in points})
    if len(sizes) < 2:
        return None
    with new_chart(HEIGHT + legend_height(lines)) as (figure, axes):
        for index, points in enumerate(lines.values()):
            color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            axes.loglog(*zip(*points, strict=True), color=color, marker=marker, markersize=4)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        low, high = axes.get_ylim()
        rates = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
        rates = [rate for rate in rates if low <= rate <= high]
        axes.set_yticks(rates, [f"{rate:,g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("batch size", fontsize=8)
        axes.set_ylabel("users per second", fontsize=8)
        axes.grid(axis="y", color="0.9")
        add_legend(figure, axes.lines, list(lines))
    return figure


@dataclass(frozen=True)
class FactorMeans:
    """What the pictures of one user's explanation need, of many users: names [R], cosines [R, R], gates [1, R]."""

    rows: list[str]
    correlation: np.ndarray
    gates: np.ndarray


def factor_charts(factors: Mapping[str, Any]) -> dict[str, Figure]:
    """
    The mean correlation of a model's factors, where it has several, and their mean gates.

    Args:
        factors (`dict`): [`FactorStatistics`] as plain values.
    """
    rows = [f"factor {number + 1}" for number in range(factors["num_factors"])]
    means = FactorMeans(rows, np.array(factors["correlation"]), np.array([factors["gates"]]))
    more = 0.3 * max(len(rows) - 4, 0)
    figures = {}
    if len(rows) > 1:
        with new_chart(HEIGHT + more, frame=False) as (figures["correlation"], axes):
            draw_correlation(means, axes)
    with new_chart(1.1 + 0.28 * len(rows)) as (figures["gates"], axes):
        draw_gates(means, axes)
    return figures


def training_charts(log_history: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """
    What a training logged, against its steps, by title: the loss, metrics on the validation users, rewards, and the
    panels of [`training_panels`]. What was not logged has no picture.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.
    """
    names = dict.fromkeys(name for row in log_history for name in row)
    evaluated: dict[str, dict[str, str]] = {}
    for match in filter(None, map(EVALUATED.fullmatch, names)):
        if match[1] not in TIMES:
            evaluated.setdefault(f"Validation {match[1]}", {})[match[2] or match[1]] = match[0]
    panels = {"Training loss": {"loss": "loss"}} if "loss" in names else {}
    panels |= evaluated
    if rewards := {match[1].replace("_", " "): match[0] for match in filter(None, map(REWARD.fullmatch, names))}:
        panels["Rewards"] = rewards
    charts = {}
    for title, lines in panels.items():
        curves = {label: curve_of(log_history, name) for label, name in lines.items()}
        charts[title] = _training_chart(title, partial(_draw_lines, curves), curves)
    for title, draw in training_panels(log_history).items():
        charts[title] = _training_chart(title, draw)
    return charts


def to_png(figure: Figure) -> bytes:
    """
    The picture as a file.

    Example:
        >>> to_png(bar_chart({"SASRec": {"NDCG@10": 0.03}}, "NDCG@10"))[1:4]
        b'PNG'
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _draw_lines(curves: Mapping[str, np.ndarray], axes: Axes) -> None:
    for index, curve_P2 in enumerate(curves.values()):
        draw_line(curve_P2, axes)
        axes.lines[-1].set_color(COLORS[index % len(COLORS)])


def _training_chart(title: str, draw: Callable[[Axes], None], lines: Mapping[str, Any] | None = None) -> Figure:
    with new_chart(HEIGHT - 0.4 + legend_height(lines or [])) as (figure, axes):
        draw(axes)
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_xlabel("step", fontsize=8)
        if lines:
            add_legend(figure, axes.lines, list(lines))
    return figure


__all__ = [
    "bar_chart",
    "depth_chart",
    "factor_charts",
    "stage_chart",
    "thinking_of",
    "throughput_chart",
    "to_png",
    "training_charts",
]
