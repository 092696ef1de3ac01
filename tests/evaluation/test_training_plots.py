"""The picture of a run: a panel for each thing that was logged, with the values that were logged."""

from __future__ import annotations

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from matplotlib.figure import Figure  # noqa: E402

from hf_latentrec.evaluation.training_plots import plot_training  # noqa: E402


def logged(num_steps: int = 6, num_depths: int = 3) -> list[dict]:
    rows = []
    for index in range(num_steps):
        shares = np.arange(1, num_depths + 1) ** (index / 2.0)
        shares = dict(zip((f"depth/share_{n + 1}" for n in range(num_depths)), shares / shares.sum(), strict=True))
        rows.append(
            {
                "step": 10 * (index + 1), "loss": 0.1, "reward": 0.01 * index, "frac_no_hit": 1 - 0.1 * index,
                "candidate_diversity": 0.5, "depth/mean": 3 - 0.2 * index, **shares, "loss/policy": 1e-5 * index,
                "loss/kl": 1e-3, "loss/reinforce": -0.001,
            }
        )  # fmt: skip
        rows.append({"step": 10 * (index + 1), "eval_NDCG@10": 0.1})
    return [*rows, {"step": 60, "train_runtime": 1.0}]


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: figures.append(self) or save(self, path))
    return figures


def test_every_curve_is_there_with_its_values(drawn, tmp_path):
    path = plot_training(logged(), tmp_path / "new" / "training.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert list(panels) == [
        "Mean reward of a group", "Share of groups without a hit", "Diversity of candidates", "Mean depth",
        "Distribution of depths", "Loss: kl", "Loss: policy", "Loss: reinforce",
    ]  # fmt: skip
    (line,) = panels["Mean depth"].lines
    assert line.get_xdata().tolist() == [10, 20, 30, 40, 50, 60]
    assert line.get_ydata() == pytest.approx([3, 2.8, 2.6, 2.4, 2.2, 2.0])
    areas = panels["Distribution of depths"].collections
    tops = [max(area.get_paths()[0].vertices[:, 1]) for area in areas]
    assert [area.get_label() for area in areas] == ["1", "2", "3"] and tops[-1] == pytest.approx(1)


def test_what_was_not_logged_has_no_panel(drawn, tmp_path):
    plot_training([{"step": 1, "reward": 0.5}, {"step": 2, "loss": 0.1}], tmp_path / "training.png")
    assert [axes.get_title() for axes in drawn[0].axes] == ["Mean reward of a group"]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to draw in 1 logged rows \(they hold \['loss', 'step'\]\)"):
        plot_training([{"step": 1, "loss": 0.1}], tmp_path / "training.png")
    assert not (tmp_path / "training.png").exists()
