"""The figures of an evaluated model, each where it belongs and of the users it should be of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hf_latentrec.evaluation import (
    METRICS,
    EvaluatedItems,
    EvaluationRun,
    RankFile,
    Recommendations,
    intra_list_diversity,
    metrics_of_lists,
    mrr,
    ranking_metrics,
    summarize,
    title_vectors,
)


FULL = "nothing filtered"
KS = (1, 5)
USERS = [f"u{i}" for i in range(6)]
RANKS = np.array([1, 2, 0, 4, 9, 1])


def make_run() -> EvaluationRun:
    """Ten items, of which the two most popular ones are i7 and i3; i0 is cold."""
    popularity = np.array([0, 1, 2, 8, 1, 1, 1, 9, 1, 1])
    items = EvaluatedItems([f"i{i}" for i in range(10)], [f"word{i % 3} all" for i in range(10)], popularity)
    targets = np.array(["i7", "i0", "i3", "i2", "i7", "i9"], dtype=object)
    columns = {
        "target": targets,
        "target_popularity": np.array([popularity[int(target[1:])] for target in targets]),
        "history_length": np.array([1, 3, 4, 30, 21, 2]),
    }
    metadata = {"split_fingerprint": "s1", "protocol": FULL, "num_beams": None}
    ranks = RankFile(USERS, RANKS, metadata, np.array([4, 2, 10, 4, 2, 2]), columns)
    lists = np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [7, 8, -1, -1, -1]] * 2)
    return EvaluationRun(
        "LASAR", {"split_fingerprint": "s1"}, items, {FULL: ranks}, {FULL: Recommendations(USERS, lists)}
    )


def test_every_figure_is_of_the_users_that_it_names():
    run = make_run()
    summary = summarize(run, FULL, KS)
    assert list(summary) == ["num_users", "all", "lists", "groups", "mean_depth"]
    assert summary["num_users"] == 6 and summary["mean_depth"] == 4.0
    assert summary["all"] == ranking_metrics(RANKS, KS, METRICS) | {"MRR": mrr(RANKS)}
    members = {
        "popularity": {"popular": [0, 2, 4], "long-tail": [1, 3, 5]},
        "history length": {"1-3": [0, 1, 5], "4-5": [2], "21+": [3, 4]},
        "cold start": {"cold": [1], "warm": [0, 2, 3, 4, 5]},
        "depth": {"2": [1, 4, 5], "4": [0, 3], "10": [2]},
    }
    expected = {
        name: {
            label: {"num_users": len(users), "metrics": ranking_metrics(RANKS[users], KS)}
            for label, users in groups.items()
        }
        for name, groups in members.items()
    }
    assert summary["groups"] == expected
    assert {name: list(groups) for name, groups in summary["groups"].items()} == {
        name: list(groups) for name, groups in members.items()
    }


def test_lists_are_measured_by_titles_or_by_given_vectors():
    run = make_run()
    rows, items = run.recommendations[FULL].item_rows, run.items
    by_titles = metrics_of_lists(rows, items.popularity, KS, title_vectors(items.titles))
    assert summarize(run, FULL, KS)["lists"] == by_titles and "intra_list_diversity@5" in by_titles
    vectors = np.random.default_rng(0).normal(size=(10, 3))
    found = summarize(run, FULL, KS, vectors)["lists"]["intra_list_diversity@5"]
    assert found == intra_list_diversity(rows, vectors, 5) != by_titles["intra_list_diversity@5"]
    assert "coverage@10" not in summarize(run, FULL, (5, 10))["lists"]  # lists of five


def test_json_holds_it_and_what_a_run_does_not_tell_is_left_out():
    run = make_run()
    assert json.loads(json.dumps(summarize(run, FULL, KS), allow_nan=False)) == summarize(run, FULL, KS)
    bare = replace(run, ranks={FULL: replace(run.ranks[FULL], columns={}, num_thoughts=None)}, recommendations={})
    summary = summarize(bare, FULL, KS)
    assert (summary["lists"], summary["groups"], summary["mean_depth"]) == ({}, {}, None)
    unknown = replace(run, items=EvaluatedItems(run.items.item_ids, [None] * 10, np.zeros(10, dtype=int)))
    summary = summarize(unknown, FULL, KS)
    assert "popularity" not in summary["groups"]
    assert list(summary["lists"]) == ["coverage@1", "gini@1", "coverage@5", "gini@5"]


def test_a_cutoff_beyond_the_beams_is_warned_of(caplog):
    run = make_run()
    ranks = run.ranks[FULL]
    beams = replace(run, ranks={FULL: replace(ranks, metadata=ranks.metadata | {"num_beams": 5})})
    summarize(beams, FULL, (5,))
    assert not caplog.records
    summarize(beams, FULL, (5, 10))
    assert "LASAR ranked 5 items per user; metrics at 10" in caplog.text


def test_bad_runs_are_named():
    run = make_run()
    with pytest.raises(ValueError, match=r"LASAR has no ranks of 'full'; it has those of \['nothing filtered'\]"):
        summarize(run, "full")
    columns = run.ranks[FULL].columns | {"target": np.array(["i1", "i2", "x", "i3", "i4", "i5"], dtype=object)}
    with pytest.raises(ValueError, match="target 'x' of user_id 'u2' is not among the 10 items"):
        summarize(replace(run, ranks={FULL: replace(run.ranks[FULL], columns=columns)}), FULL)
