"""How good recommendations are after each number of reasoning steps, as a picture. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "hf_latentrec.evaluation.depth_plot draws with matplotlib, which is not installed; "
        "pip install 'hf_latentrec[plots]'"
    ) from error


DPI = 150
WIDTH, HEIGHT = 5.0, 3.4  # inches
# Readers with colour-blindness can tell these apart, too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plot_depths(
    curves: Mapping[str, Mapping[int, Sequence[float]]], path: str | Path, metric: str = "NDCG@10"
) -> Path:
    """
    Draws a metric against the number of reasoning steps, LARES Fig. 3: a line through the means over seeds, and their
    sample standard deviation as a band where there are several.

    Args:
        curves (`Mapping[str, Mapping[int, Sequence[float]]]`): by model and number of steps, the metric of each seed.
        path (`str` or `Path`): of the picture, whose suffix says its format; its folder is made.
        metric (`str`, *optional*, defaults to `"NDCG@10"`): what it is called.

    Returns:
        `Path`: of the picture.

    Raises:
        ValueError: where there is nothing to draw.

    Example:
        >>> import tempfile
        >>> curves = {"LARES": {1: [0.030, 0.031], 2: [0.034, 0.033]}}
        >>> plot_depths(curves, Path(tempfile.mkdtemp()) / "depths.png").name
        'depths.png'
    """
    if not any(curves.values()):
        raise ValueError("plot_depths: no depths to draw; give the metric of one number of steps at least")
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_depths(curves, axes, metric)
    axes.legend(frameon=False, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def draw_depths(curves: Mapping[str, Mapping[int, Sequence[float]]], axes: Axes, metric: str) -> None:
    """
    The lines and bands of [`plot_depths`], with no legend.

    Args:
        curves (`Mapping[str, Mapping[int, Sequence[float]]]`): by model and number of steps, the metric of each seed.
        axes (`matplotlib.axes.Axes`): where to draw.
        metric (`str`): what it is called.
    """
    for index, (label, by_depth) in enumerate(curves.items()):
        depths = sorted(by_depth)
        means = np.array([np.mean(by_depth[depth]) for depth in depths])
        spreads = np.array([np.std(by_depth[depth], ddof=1) if len(by_depth[depth]) > 1 else 0.0 for depth in depths])
        color = COLORS[index % len(COLORS)]
        axes.plot(depths, means, color=color, marker="o", markersize=3, label=label)
        axes.fill_between(depths, means - spreads, means + spreads, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("reasoning steps")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


__all__ = ["draw_depths", "plot_depths"]
