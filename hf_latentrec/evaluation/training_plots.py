"""A picture of a run of reinforcement learning, from what it logged. Needs the extra `plots`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "hf_latentrec.evaluation.training_plots draws with matplotlib, which is not installed; "
        "pip install 'hf_latentrec[plots]'"
    ) from error


DPI = 150
WIDTH, HEIGHT = 4.2, 2.8  # inches, of a panel
MAX_COLUMNS = 3
DEPTH_SHARE = re.compile(r"depth/share_(\d+)")
LOSS = "loss/"
LINE_COLOR = "#0072B2"
MARKED_STEPS = 40  # more points than these are a line alone

# What is drawn of one number a step: title, name in the log.
LINES = {
    "Mean reward of a group": "reward",
    "Share of groups without a hit": "frac_no_hit",
    "Diversity of candidates": "candidate_diversity",
    "Mean depth": "depth/mean",
}


def plot_training(log_history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """
    Draws what a run of reinforcement learning logged, against its steps: reward, share of groups without a hit,
    diversity of candidates, mean depth and the distribution of depths, and each term of the loss. What was not logged
    has no panel.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.
        path (`str` or `Path`): of the picture, whose suffix says its format; its folder is made.

    Returns:
        `Path`: of the picture.

    Raises:
        ValueError: where nothing was logged that can be drawn.

    Example:
        >>> import tempfile
        >>> history = [{"step": 10, "reward": 0.1, "loss/kl": 0.2}, {"step": 20, "reward": 0.2, "loss/kl": 0.3}]
        >>> plot_training(history, Path(tempfile.mkdtemp()) / "training.png").name
        'training.png'
    """
    panels = training_panels(log_history)
    if not panels:
        names = sorted({name for row in log_history for name in row})
        raise ValueError(
            f"plot_training: nothing to draw in {len(log_history)} logged rows (they hold {names}); pass the "
            "log_history of a GRPO run, with logging_steps small enough that something was logged"
        )
    columns = min(MAX_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, draw) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        draw(axes)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def training_panels(log_history: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Axes], None]]:
    """
    What there is to draw of a run of reinforcement learning.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.

    Returns:
        `dict[str, Callable[[Axes], None]]`: what draws each panel, by its title; none where nothing of it was logged.
    """
    names = {name for row in log_history for name in row}
    depths = sorted(int(match[1]) for match in map(DEPTH_SHARE.fullmatch, names) if match)
    losses = sorted(name for name in names if name.startswith(LOSS))
    panels: dict[str, Callable[[Axes], None]] = {
        title: partial(draw_line, curve_of(log_history, name)) for title, name in LINES.items() if name in names
    }
    if depths:
        panels["Distribution of depths"] = partial(_draw_shares, log_history, depths)
    for name in losses:
        panels[f"Loss: {name.removeprefix(LOSS).replace('_', ' ')}"] = partial(draw_line, curve_of(log_history, name))
    return panels


def curve_of(log_history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Steps and values [P, 2] of the rows that hold a name."""
    return np.array([(row["step"], row[name]) for row in log_history if name in row], dtype=float).reshape(-1, 2)


def draw_line(curve_P2: np.ndarray, axes: Axes) -> None:
    axes.plot(*curve_P2.T, color=LINE_COLOR, marker="o" if len(curve_P2) <= MARKED_STEPS else "", markersize=3)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
    axes.yaxis.get_offset_text().set_fontsize(8)


def _draw_shares(log_history: Sequence[Mapping[str, Any]], depths: Sequence[int], axes: Axes) -> None:
    """Stacked areas, the shallowest below; a legend beside them."""
    curves = [curve_of(log_history, f"depth/share_{depth}") for depth in depths]
    colors = colormaps["viridis"](np.linspace(0, 1, len(depths)))
    axes.stackplot(curves[0][:, 0], [curve[:, 1] for curve in curves], colors=colors, labels=list(map(str, depths)))
    axes.set_ylim(0, 1)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(  # from top to bottom as the areas lie
        handles[::-1], labels[::-1], title="N", fontsize=7, title_fontsize=8, loc="center left",
        bbox_to_anchor=(1.0, 0.5), frameon=False,
    )  # fmt: skip


__all__ = ["curve_of", "draw_line", "plot_training", "training_panels"]
