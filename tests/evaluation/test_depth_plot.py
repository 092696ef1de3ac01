"""The picture of depths: a line and a band per model, with the values that were given."""

from __future__ import annotations

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from matplotlib.figure import Figure  # noqa: E402

from hf_latentrec.evaluation.depth_plot import plot_depths  # noqa: E402


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: figures.append(self) or save(self, path))
    return figures


def test_lines_are_means_and_bands_are_spreads(drawn, tmp_path):
    curves = {"SPT": {4: [0.3, 0.5], 1: [0.1, 0.2], 2: [0.2, 0.2]}, "LARES": {1: [0.4], 3: [0.6]}}
    path = plot_depths(curves, tmp_path / "new" / "depths.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    first, second = axes.lines
    assert [line.get_label() for line in axes.lines] == ["SPT", "LARES"]
    assert first.get_xdata().tolist() == [1, 2, 4] and first.get_ydata() == pytest.approx([0.15, 0.2, 0.4])
    assert second.get_xdata().tolist() == [1, 3] and second.get_ydata() == pytest.approx([0.4, 0.6])
    band = axes.collections[0].get_paths()[0].vertices
    spread = np.std([0.3, 0.5], ddof=1)
    assert band[band[:, 0] == 4, 1].min() == pytest.approx(0.4 - spread)
    assert band[band[:, 0] == 4, 1].max() == pytest.approx(0.4 + spread)
    assert axes.get_ylabel() == "NDCG@10" and axes.get_legend() is not None


@pytest.mark.parametrize("curves", [{}, {"SPT": {}}])
def test_nothing_to_draw_is_an_error(tmp_path, curves):
    with pytest.raises(ValueError, match="no depths to draw"):
        plot_depths(curves, tmp_path / "depths.png")
