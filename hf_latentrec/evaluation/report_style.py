"""What the pictures of reports have in common: size, names of rows, legends. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .plots import label_fonts, new_figure
from .shortening import shorten


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH, HEIGHT = 4.2, 2.8  # inches; on a phone letters of 8 points are then still 9 pixels high
BAR, GAP = 0.17, 0.12  # inches: a bar, and what is between two groups of bars
LABEL_WIDTH = 26  # letters of a name that are shown
MARKERS = "osD^v"


@contextmanager
def new_chart(height: float, frame: bool = True) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its only axes, made alike at the end."""
    figure = new_figure(WIDTH, height)
    axes = figure.add_subplot()
    yield figure, axes
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"] if frame else ["top", "right", "bottom", "left"]].set_visible(False)


def name_rows(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """Names, cut where they are long, instead of numbers on the vertical axis."""
    # Without parse_math a name with two dollar signs would turn into a formula.
    names = [shorten(name, LABEL_WIDTH) for name in names]
    axes.set_yticks(places, names, parse_math=False, fontfamily=label_fonts())
    axes.tick_params(axis="y", length=0)


def legend_height(names: Sequence[str] | Mapping[str, Any]) -> float:
    """Inches that [`add_legend`] takes: two names share a line."""
    return 0.2 * -(-len(names) // 2) if len(names) > 1 else 0.0


def add_legend(figure: Figure, drawn: Sequence[Any], names: Sequence[str]) -> None:
    """Above the axes, where there is more than one name."""
    if len(names) < 2:
        return
    # The names are put in afterwards: matplotlib takes one that begins with "_" for a thing not to be named.
    legend = figure.legend(
        list(drawn), [str(number) for number in range(len(names))], loc="outside upper left", ncols=2,
        frameon=False, prop={"family": label_fonts(), "size": 8}, columnspacing=1.0, handlelength=1.2,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=shorten(name, LABEL_WIDTH), parse_math=False)


__all__ = ["add_legend", "legend_height", "name_rows", "new_chart"]
