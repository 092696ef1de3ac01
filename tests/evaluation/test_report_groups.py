"""Groups of users, and the items that are recommended most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from hf_latentrec.evaluation.recommendation_files import Recommendations  # noqa: E402
from hf_latentrec.evaluation.report_groups import group_section, list_section  # noqa: E402
from hf_latentrec.evaluation.report_parts import Evaluated  # noqa: E402

from .report_runs import FULL, make_run  # noqa: E402


def evaluated(label: str, **kinds: dict[str, float]) -> Evaluated:
    """With the same HR and NDCG for every group."""
    groups = {
        kind.replace("_", " "): {
            name: {"num_users": 7, "metrics": {"HR@10": value, "NDCG@10": value}} for name, value in of_kind.items()
        }
        for kind, of_kind in kinds.items()
    }
    return Evaluated(label, make_run(label, 0.1), {FULL: {"groups": groups, "lists": {}}})


def test_one_group_alone_is_not_shown():
    model = evaluated("LARES", popularity={"popular": 0.2, "long-tail": 0.1}, cold_start={"warm": 0.1})
    (part,) = group_section([model], [10]).parts
    assert part.title == "Popular and long-tail targets" and len(part.pictures) == len(part.tables) == 1
    assert group_section([evaluated("LARES", cold_start={"warm": 0.1})], [10]) is None


def test_a_model_alone_has_metrics_side_by_side_and_several_have_each_other():
    model = evaluated("LARES", popularity={"popular": 0.2, "long-tail": 0.1})
    other = evaluated("SASRec", popularity={"popular": 0.3, "long-tail": 0.05})
    (alone,) = group_section([model], [10]).parts[0].tables
    assert alone.columns == ["HR@10", "NDCG@10"] and alone.notes == []
    (table,) = group_section([model, other], [10]).parts[0].tables
    assert table.columns == ["LARES", "SASRec"] and list(table.groups) == ["HR@10", "NDCG@10"]
    cells = table.groups["NDCG@10"]
    assert [[cell.best for cell in row] for row in cells.values()] == [[False, True], [True, False]]
    assert list(cells) == ["popular (7\u00a0users)", "long-tail (7\u00a0users)"]


def test_most_recommended_items_are_counted():
    model = evaluated("LARES")
    rows = np.array([[3, 5, -1], [5, 3, 10], [5, 9, -1], [5, 9, -1]])
    run = replace(model.run, recommendations={FULL: Recommendations(list("abcd"), rows)})
    (part,) = list_section([replace(model, run=run)]).parts
    table = part.tables[0]
    shown = [[cell.text for cell in cells] for cells in table.groups[""].values()]
    popularity = run.items.popularity
    assert [row[:2] for row in shown] == [
        ["<script>alert(1)</script> (B0005)", "100.0%"],
        ["Soap 🧼 (B0003)", "50.0%"],
        ["B0009", "50.0%"],
        ["Item number 10 (B0010)", "25.0%"],
    ]
    assert [row[2] for row in shown] == [f"{popularity[row]:,}" for row in (5, 3, 9, 10)]
    assert table.columns[1] == "Users with it among 3"
    assert list_section([replace(model, run=replace(run, recommendations={}))]) is None
