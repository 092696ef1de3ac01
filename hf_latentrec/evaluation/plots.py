"""Pictures of an [`Explanation`]: correlation and attention as heat maps, gates as bars. Needs the extra `plots`.

Nothing here touches pyplot's global state, so pictures can be drawn in threads, servers and notebooks alike.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from .explanation import Explanation
from .shortening import shorten


try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager
except ImportError as error:
    raise ImportError(
        "hf_latentrec.evaluation.plots draws with matplotlib, which is not installed; "
        "pip install 'hf_latentrec[plots]'"
    ) from error


logger = logging.getLogger(__name__)

# Readers with colour-blindness can tell these apart, too.
SHARES, SIGNED = "Blues", "RdBu_r"
BAR_COLOR = "#0072B2"
TITLE_WIDTH = 48  # letters of a title that are shown
DPI = 150
CELL, CELL_HEIGHT = 0.62, 0.3  # inches
SIDE = 3.4  # inches: of a panel beside the attention, names of the rows included
LABELS_WIDTH = 4.2  # inches: of the longest title
# For scripts that matplotlib's own font does not have; those that are installed are used.
MORE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Hiragino Sans", "PingFang SC", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "WenQuanYi Zen Hei", "Noto Emoji", "Segoe UI Symbol",
)  # fmt: skip


def draw_attention(explanation: Explanation, axes: Axes) -> None:
    """
    Attention of the last iteration: a row per history item, the newest last, and one for everything else; a column per
    factor (or thought). Colours span the items alone, so that they show what lies between them.

    Args:
        explanation (`Explanation`): of one user.
        axes (`matplotlib.axes.Axes`): where to draw.
    """
    attention_IR = explanation.attentions[-1].T
    num_items = len(attention_IR)
    image = axes.imshow(attention_IR, cmap=SHARES, vmin=0, aspect="auto")
    _write_cells(axes, 100 * attention_IR, "{:.1f}", image)
    for column, share in enumerate(explanation.elsewhere[-1]):
        axes.text(column, num_items + 0.25, f"{100 * share:.1f}", ha="center", va="center", fontsize=8, color="0.35")
    axes.set_ylim(num_items + 0.75, -0.5)
    axes.axhline(num_items - 0.5, color="black", linewidth=0.8)
    titles = [shorten(label, TITLE_WIDTH) for label in explanation.labels]
    # Without parse_math a title with two dollar signs would turn into a formula.
    axes.set_yticks(
        [*range(num_items), num_items + 0.25],
        [*titles, "other text and thoughts"],
        parse_math=False,
        fontfamily=label_fonts(),
        fontsize=8,
    )
    axes.get_yticklabels()[-1].set(color="0.35", fontstyle="italic")
    _name_columns(axes, explanation)
    axes.set_title("Attention (%)", fontsize=10)
    if num_items > 1:
        axes.set_ylabel("oldest  →  newest", fontsize=8, rotation=270, labelpad=12)  # the arrow points down
    axes.spines[:].set_visible(False)


def draw_correlation(explanation: Explanation, axes: Axes) -> None:
    """
    Cosines between the factors of the last iteration (or between the embeddings of the thoughts).

    Args:
        explanation (`Explanation`): of one user.
        axes (`matplotlib.axes.Axes`): where to draw.
    """
    correlation_RR = explanation.correlation
    image = axes.imshow(correlation_RR, cmap=SIGNED, vmin=-1, vmax=1, aspect="equal")
    _write_cells(axes, correlation_RR, "{:.2f}", image)
    axes.set_yticks(range(len(correlation_RR)), explanation.rows, fontsize=8)
    _name_columns(axes, explanation)
    axes.set_title("Correlation (cosine)", fontsize=10)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-1, 0, 1])
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def draw_gates(explanation: Explanation, axes: Axes) -> None:
    """
    The weight of each factor in the last iteration.

    Args:
        explanation (`Explanation`): of one user; it has gates.
        axes (`matplotlib.axes.Axes`): where to draw.
    """
    gates_R = explanation.gates[-1]
    bars = axes.barh(range(len(gates_R)), gates_R, color=BAR_COLOR, height=0.6)
    axes.bar_label(bars, labels=[f"{gate:.2f}" for gate in gates_R], padding=3, fontsize=8)
    axes.set_yticks(range(len(gates_R)), explanation.rows, fontsize=8)
    axes.set_ylim(len(gates_R) - 0.4, -0.6)
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8)
    axes.set_title("Gates", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def caption(explanation: Explanation, separator: str = "   ·   ") -> str:
    """The figures of an explanation, in one line by default."""
    parts = [f"Disentanglement Score {explanation.disentanglement_score:.3f}"]
    if explanation.mean_abs_correlation is not None:
        parts.append(f"mean |correlation| {explanation.mean_abs_correlation:.3f}")
    for one in (explanation.rows, explanation.item_ids):
        if len(one) == 1:
            parts.append(f"one {_kind(explanation) if one is explanation.rows else 'item'}: score 0 by definition")
            break
    return separator.join(parts)


def save_plots(explanation: Explanation, folder: str | Path) -> list[Path]:
    """
    Draws `attention.png`; `correlation.png`, where there are two rows to compare; `gates.png`, where there are gates;
    and all of them in `explanation.png`.

    Args:
        explanation (`Explanation`): of one user.
        folder (`str` or `Path`): made where it does not exist.

    Returns:
        `list[Path]`: the pictures, all in one last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    panels = {"attention": draw_attention, **_side_panels(explanation)}
    paths = []
    with missing_glyphs_as_one_warning(folder):
        for name, draw in panels.items():
            figure = new_figure(*_panel_size(explanation, name))
            draw(explanation, figure.add_subplot())
            paths.append(_save(figure, explanation, folder / f"{name}.png"))
        paths.append(_save(combined_figure(explanation), explanation, folder / "explanation.png"))
    return paths


def combined_figure(explanation: Explanation) -> Figure:
    """Attention, and beside it correlation over gates, as far as the explanation has them."""
    columns = [{"attention": draw_attention}, _side_panels(explanation)]
    columns = [panels for panels in columns if panels]
    sizes = [[_panel_size(explanation, name) for name in panels] for panels in columns]
    widths = [max(width for width, _ in column) for column in sizes]
    heights = [sum(height for _, height in column) for column in sizes]
    figure = new_figure(sum(widths), max(heights))
    parts = figure.subfigures(1, len(columns), width_ratios=widths, squeeze=False)[0]
    for part, panels, column, height in zip(parts, columns, sizes, heights, strict=True):
        # The shorter column leaves room below, so that its panels keep their shape.
        rest = [max(heights) - height] if height < max(heights) else []
        ratios = [height for _, height in column] + rest
        grid = part.add_gridspec(len(ratios), 1, height_ratios=ratios)
        for row, draw in enumerate(panels.values()):
            draw(explanation, part.add_subplot(grid[row]))
    return figure


def _side_panels(explanation: Explanation) -> dict[str, Callable[[Explanation, Axes], None]]:
    panels = {}
    if len(explanation.rows) > 1:
        panels["correlation"] = draw_correlation
    if explanation.gates is not None:
        panels["gates"] = draw_gates
    return panels


def _panel_size(explanation: Explanation, name: str) -> tuple[float, float]:
    """Width and height in inches."""
    num_items, R = len(explanation.item_ids), len(explanation.rows)
    return {
        "attention": (LABELS_WIDTH + max(CELL * R, 2.2), CELL_HEIGHT * (num_items + 1) + 1.4),
        "correlation": (SIDE + 0.35 * max(R - 4, 0), 2.8 + 0.35 * max(R - 4, 0)),
        "gates": (SIDE, 1.1 + 0.28 * R),
    }[name]


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, explanation: Explanation, path: Path) -> Path:
    narrow = figure.get_figwidth() < 5
    figure.supxlabel(caption(explanation, "\n" if narrow else "   ·   "), fontsize=9)
    figure.savefig(path)
    return path


@contextmanager
def missing_glyphs_as_one_warning(folder: Path) -> Iterator[None]:
    """matplotlib warns of every single letter; all other warnings go on as they are."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="Glyph")
        yield
    missing = {str(warning.message) for warning in caught if str(warning.message).startswith("Glyph")}
    for warning in caught:
        if str(warning.message) not in missing:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        logger.warning(
            "%s: %d letters of the titles are in no font found here and show as boxes; install one that has them, "
            "such as Noto Sans CJK (%s)",
            folder,
            len(missing),
            min(missing),
        )


def _kind(explanation: Explanation) -> str:
    return explanation.rows[0].split()[0]


def _name_columns(axes: Axes, explanation: Explanation) -> None:
    """Numbers above the columns: names would not fit beside each other."""
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(explanation.rows)), [name.split()[1] for name in explanation.rows], fontsize=8)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(_kind(explanation), fontsize=8)
    axes.tick_params(length=0)


def _write_cells(axes: Axes, values: np.ndarray, text: str, image) -> None:
    """Each value in its cell, black or white, as its colour lets it be read."""
    red, green, blue = np.moveaxis(image.to_rgba(image.get_array())[..., :3], -1, 0)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
    for (row, column), value in np.ndenumerate(values):
        color = "black" if bright[row, column] else "white"
        axes.text(column, row, text.format(value), ha="center", va="center", fontsize=8, color=color)


@cache
def label_fonts() -> list[str]:
    """matplotlib's own font, then those that fill its gaps."""
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(font for font in MORE_FONTS if font in installed)]


__all__ = ["caption", "combined_figure", "draw_attention", "draw_correlation", "draw_gates", "save_plots"]
