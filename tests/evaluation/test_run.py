"""The folder of an evaluated model gives back what was put into it, and says what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hf_latentrec.evaluation.ranks import RankFile
from hf_latentrec.evaluation.recommendation_files import Recommendations, load_recommendations, save_recommendations
from hf_latentrec.evaluation.run import EvaluatedItems, EvaluationRun


FULL = "nothing filtered"
USERS = ["u1", "u2", "u3"]


def make_run() -> EvaluationRun:
    items = EvaluatedItems(["a", "b", "c"], ["Apple", None, 'Cat, "grey"'], np.array([5, 0, 2]))
    columns = {
        "target": np.array(["a", "c", "b"], dtype=object),
        "target_popularity": np.array([5, 2, 0]),
        "history_length": np.array([3, 1, 9]),
    }
    metadata = {"split_fingerprint": "s1", "protocol": FULL, "num_beams": None}
    ranks = RankFile(USERS, np.array([1, 2, 0]), metadata, np.array([4, 2, 4]), columns)
    recommendations = Recommendations(USERS, np.array([[0, 2], [1, 2], [2, -1]]))
    return EvaluationRun(
        "LASAR",
        {"split_fingerprint": "s1", "seed": 3},
        items,
        {FULL: ranks},
        {FULL: recommendations},
        steps={FULL: {"1": {"NDCG@10": [0.1, 0.2]}}},
    )


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    run = make_run()
    run.save(tmp_path)
    loaded = EvaluationRun.load(tmp_path)
    assert (loaded.label, loaded.details, loaded.steps, loaded.latency) == ("LASAR", run.details, run.steps, None)
    assert loaded.items.titles == run.items.titles and loaded.items.popularity.tolist() == [5, 0, 2]
    ranks = loaded.ranks[FULL]
    assert (ranks.user_ids, ranks.ranks.tolist(), ranks.num_thoughts.tolist()) == (USERS, [1, 2, 0], [4, 2, 4])
    assert {name: column.tolist() for name, column in ranks.columns.items()} == {
        "target": ["a", "c", "b"],
        "target_popularity": [5, 2, 0],
        "history_length": [3, 1, 9],
    }
    assert loaded.recommendations[FULL].item_rows.tolist() == [[0, 2], [1, 2], [2, -1]]


def test_a_save_that_was_cut_leaves_no_run(tmp_path, monkeypatch):
    """The ranks of the new run under the label of the old one would be taken for the old run's."""
    make_run().save(tmp_path)
    monkeypatch.setattr("hf_latentrec.evaluation.run.save_recommendations", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace(make_run(), label="another").save(tmp_path)
    with pytest.raises(ValueError, match="no run.json"):
        EvaluationRun.load(tmp_path)


def test_extras_of_an_older_run_do_not_stay(tmp_path):
    make_run().save(tmp_path)
    replace(make_run(), steps=None).save(tmp_path)
    assert EvaluationRun.load(tmp_path).steps is None


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run.json"):
        EvaluationRun.load(tmp_path)


def test_ranks_of_another_split_are_refused(tmp_path):
    make_run().save(tmp_path)
    described = json.loads((tmp_path / "run.json").read_text())
    described["details"]["split_fingerprint"] = "s2"
    (tmp_path / "run.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"of split s1, but run.json names s2"):
        EvaluationRun.load(tmp_path)


def test_recommendations_follow_the_order_of_the_items(tmp_path):
    path = tmp_path / "new" / "recommendations.parquet"
    save_recommendations(path, Recommendations(["u1", "u2"], np.array([[2, 0, 1], [-1, -1, -1]])), ["a", "b", "c"])
    loaded = load_recommendations(path, ["c", "b", "a"])
    assert loaded.item_rows.tolist() == [[0, 2, 1], [-1, -1, -1]]
    with pytest.raises(ValueError, match=r"recommends 'b', which is not among the 2 items"):
        load_recommendations(path, ["c", "a"])


@pytest.mark.parametrize(
    ("users", "rows", "match"), [(["u1"], [[0], [1]], "1 user_ids but 2 rankings"), (["u1"], [[7]], "row 7 is beyond")]
)
def test_bad_recommendations_are_refused(tmp_path, users, rows, match):
    with pytest.raises(ValueError, match=match):
        save_recommendations(tmp_path / "r.parquet", Recommendations(users, np.array(rows)), ["a", "b"])


def test_an_unreadable_recommendation_file_is_named(tmp_path):
    (tmp_path / "r.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        load_recommendations(tmp_path / "r.parquet", ["a"])
