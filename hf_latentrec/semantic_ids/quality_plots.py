"""The pictures of a catalog's semantic IDs, in the style of the evaluation's report. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.depth_plot import COLORS
from ..evaluation.report_plots import bar_chart
from ..evaluation.report_style import (
    BAR,
    GAP,
    HEIGHT,
    MARKERS,
    add_legend,
    legend_height,
    name_rows,
    new_chart,
)
from .quality import IdQuality
from .quality_rows import prefix_name


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def use_chart(quality: IdQuality) -> Figure:
    """
    Items of every code, most first, a curve per level; where a curve ends, the rest of the codebook is not in use.
    The grey line is where all codes would be used alike.

    Args:
        quality ([`IdQuality`]): of a catalog.
    """
    names = [f"level {level.name}" for level in quality.levels]
    with new_chart(HEIGHT + legend_height(names)) as (figure, axes):
        for index, level in enumerate(quality.levels):
            _draw_curve(axes, np.arange(1, level.used + 1), np.array(level.counts), index)
        lines = list(axes.lines)
        for even in {quality.num_items / level.reachable for level in quality.levels}:
            axes.axhline(even, color="0.6", linewidth=0.8, zorder=0)
        axes.set_yscale("log")
        most = max(level.reachable for level in quality.levels)
        axes.set_xlim(1 - 0.03 * most, 1.03 * most)
        axes.locator_params(axis="x", integer=True)
        _plain_ticks(axes, "y")
        axes.set_xlabel("code, most frequent first", fontsize=8)
        axes.set_ylabel("items with this code", fontsize=8)
        add_legend(figure, lines, names)
    return figure


def collision_chart(quality: IdQuality) -> Figure | None:
    """How many items share their code, before and after the collision policy; `None` where one is not known."""
    if quality.before is None:
        return None
    measured = {"before the policy": quality.before, "after it": quality.after}
    values = {name: {"items": 100 * collisions.rate} for name, collisions in measured.items()}
    return bar_chart(values, "items that share their code (%)", text="{:.2f}")


def category_chart(quality: IdQuality) -> Figure | None:
    """How often two items have a category in common, by the codes that they share; `None` without categories."""
    judged = [categories for categories in quality.categories if len(categories.agreements) > 1]
    lengths = sorted({agreement.length for categories in judged for agreement in categories.agreements})
    if not judged:
        return None
    values = {
        prefix_name(length): {
            f"same {categories.column}": 100 * agreement.share
            for categories in judged
            for agreement in categories.agreements
            if agreement.length == length
        }
        for length in lengths
    }
    what = judged[0].column if len(judged) == 1 else "category"
    return bar_chart(values, f"pairs of items with the same {what} (%)", text="{:.1f}", ylabel="codes in common")


def lift_chart(quality: IdQuality) -> Figure | None:
    """
    How many times as often the same users buy two items, by the codes that they share, with 95 % intervals; `None`
    without histories. The axis is logarithmic, its line stands at 1: as often as any two items.
    """
    if quality.co_purchases is None:
        return None
    found = [one for one in quality.co_purchases.co_purchases if one.length]
    series = {
        "against any two items": [one.lift for one in found],
        "against equally popular": [one.lift_same_popularity for one in found],
    }
    if not any(np.isfinite(lift) and lift > 0 for lifts in series.values() for lift in lifts):
        return None
    step = len(series) * 1.4 * BAR + GAP
    places = np.arange(len(found)) * step
    with new_chart(len(found) * step + 0.75 + legend_height(series)) as (figure, axes):
        drawn = []
        for index, lifts in enumerate(series.values()):
            drawn.append(_draw_lifts(axes, places + index * 1.4 * BAR, lifts, found, index))
        axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.margins(x=0.18)  # for the values
        _plain_ticks(axes, "x")
        name_rows(axes, list(places + 0.7 * BAR), [prefix_name(one.length) for one in found])
        axes.set_ylim(places[-1] + 2.4 * BAR, -BAR)
        axes.set_xlabel("times as often bought by the same users", fontsize=8)
        axes.set_ylabel("codes in common", fontsize=8)
        add_legend(figure, drawn, list(series))
    return figure


def prefix_size_chart(quality: IdQuality) -> Figure:
    """
    Items of every prefix, most first, a curve per length, without lengths that no two items share; both axes are
    logarithmic.
    """
    shown = [prefixes for prefixes in quality.prefixes if prefixes.length == 1 or prefixes.biggest > 1]
    names = [prefix_name(prefixes.length) for prefixes in shown]
    with new_chart(HEIGHT + legend_height(names)) as (figure, axes):
        for index, prefixes in enumerate(shown):
            _draw_curve(axes, *_steps(prefixes.num_prefixes_by_size), index)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_ticks(axes, "x")
        _plain_ticks(axes, "y")
        axes.set_xlabel("prefix, biggest first", fontsize=8)
        axes.set_ylabel("items with this prefix", fontsize=8)
        add_legend(figure, axes.lines, names)
    return figure


def error_chart(quality: IdQuality) -> Figure | None:
    """What the first codes leave of the embeddings' variance; `None` without embeddings."""
    if not quality.errors:
        return None
    curves = {"before the policy": quality.errors_before, "after it": quality.errors}
    if quality.errors_before in ((), quality.errors):
        del curves["before the policy"]
    values = {
        prefix_name(length): {name: errors[length - 1].relative for name, errors in curves.items()}
        for length in range(1, len(quality.errors) + 1)
    }
    return bar_chart(values, "squared error over variance", text="{:.3f}", ylabel="codes added up")


def quality_charts(quality: IdQuality) -> dict[str, Figure]:
    """
    All pictures of what was measured, by name.

    Args:
        quality ([`IdQuality`]): of a catalog.
    """
    charts = {
        "use": use_chart(quality),
        "prefix sizes": prefix_size_chart(quality),
        "collisions": collision_chart(quality),
        "error": error_chart(quality),
        "categories": category_chart(quality),
        "purchases": lift_chart(quality),
    }
    return {name: figure for name, figure in charts.items() if figure is not None}


def _draw_curve(axes: Axes, ranks: np.ndarray, items: np.ndarray, index: int) -> None:
    """A line whose end is marked."""
    color, line = COLORS[index % len(COLORS)], LINES[index % len(LINES)]
    axes.plot(
        ranks, items, color=color, linestyle=line, marker=MARKERS[index % len(MARKERS)], markevery=[-1], markersize=4
    )


def _draw_lifts(axes: Axes, places: np.ndarray, lifts: list[float], found: list, index: int) -> object:
    """Points with intervals, and their values beside them; a lift of 0 has no place on the axis."""
    shown = [row for row, lift in enumerate(lifts) if np.isfinite(lift) and lift > 0]
    values = np.array([lifts[row] for row in shown])
    # On a logarithmic axis an interval of +- 1.96 relative errors stays positive.
    factors = np.exp(1.96 * np.array([found[row].relative_error for row in shown]))
    bars = axes.errorbar(
        values, places[shown], xerr=[values - values / factors, values * factors - values],
        fmt=MARKERS[index], color=COLORS[index], markersize=4, elinewidth=1,
    )  # fmt: skip
    for place, value, factor in zip(places[shown], values, factors, strict=True):
        axes.annotate(
            f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
            (value * factor, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    return bars


def _steps(num_prefixes_by_size: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and sizes of the first and the last prefix of each size."""
    sizes, numbers = np.array(list(num_prefixes_by_size.items())).T
    last = np.cumsum(numbers)
    return np.stack([last - numbers + 1, last], axis=1).ravel(), np.repeat(sizes, 2)


def _plain_ticks(axes: Axes, which: str) -> None:
    """1, 10, 100 in place of powers of ten, and numbers between them on a short axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    subs = (1,) if high > 200 * low else (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs) if high > 3 * low else MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


__all__ = [
    "category_chart",
    "collision_chart",
    "error_chart",
    "lift_chart",
    "prefix_size_chart",
    "quality_charts",
    "use_chart",
]
