"""What is said of thinking: numbers and sentences, with nothing made up where a run says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest


pytest.importorskip("matplotlib")

from hf_latentrec.evaluation.report_parts import Evaluated  # noqa: E402
from hf_latentrec.evaluation.report_thinking import (  # noqa: E402
    depth_section,
    factor_section,
    latency_section,
    step_section,
    training_section,
)

from .report_runs import FULL, make_run, thinking_run  # noqa: E402


@pytest.fixture(scope="module")
def run():
    return thinking_run("LASAR", num_users=50)


def evaluated(run, groups: dict | None = None) -> Evaluated:
    return Evaluated(run.label, run, {protocol: {"groups": groups or {}} for protocol in run.ranks})


def texts(cells) -> list[str]:
    return [cell.text for cell in cells]


def test_a_run_without_thoughts_has_none_of_it():
    model = evaluated(make_run("SASRec", 0.1))
    assert depth_section(model, [10]) is step_section([model], [10]) is factor_section(model) is None
    assert latency_section(model) is training_section(model) is None


def test_depths_are_counted(run):
    file = replace(run.ranks[FULL], num_thoughts=np.array([2] * 30 + [1] * 15 + [4] * 5))
    group = {"num_users": 30, "metrics": {"HR@10": 0.2, "NDCG@10": 0.1}}
    model = evaluated(replace(run, ranks={FULL: file}), {"depth": {"2": group}})
    (part,) = depth_section(model, [5, 10]).parts
    assert part.text[0] == "The model gives each user a number of thoughts of its own, 1.90 on average."
    assert part.pictures[0].alt == "Bars: share of users by number of thoughts, 1: 30.0%, 2: 60.0% and 4: 10.0%."
    ((row, cells),) = part.tables[0].groups["Nothing filtered"].items()
    assert row == "2 (30\u00a0users)" and texts(cells) == ["0.2000", "0.1000"]


@pytest.mark.parametrize(("depth", "text"), [(4, "Every user has 4 thoughts."), (1, "Every user has one thought.")])
def test_one_depth_is_a_sentence(run, depth, text):
    file = replace(run.ranks[FULL], num_thoughts=np.full(50, depth))
    (part,) = depth_section(evaluated(replace(run, ranks={FULL: file})), [10]).parts
    assert part.text == [text] and not part.pictures


def test_steps_have_means_and_spreads(run):
    steps = {FULL: {"10": {"HR@10": [0.4], "NDCG@10": [0.3]}, "2": {"HR@10": [0.1], "NDCG@10": [0.1, 0.2]}}}
    model = evaluated(replace(run, steps=steps))
    (part,) = step_section([model, evaluated(make_run("SASRec", 0.1))], [10]).parts
    rows = part.tables[0].groups["Nothing filtered"]
    assert list(rows) == ["2", "10"]
    assert texts(rows["2"]) == ["0.1000", "0.1500 ± 0.0707"] and texts(rows["10"]) == ["0.4000", "0.3000"]
    assert [cell.best for cell in rows["10"]] == [True, True]
    assert "over 2 seeds" in part.text[0] and len(part.pictures) == 1
    one = {FULL: {"1": {"HR@10": [0.4], "NDCG@10": [0.3]}}}
    (part,) = step_section([evaluated(replace(run, steps=one))], [10]).parts
    assert not part.pictures and "seeds" not in part.text[0]


def test_steps_at_other_cutoffs_are_a_table_without_a_picture(run):
    steps = {FULL: {"1": {"NDCG@5": [0.4]}, "2": {"NDCG@5": [0.5]}}}
    (part,) = step_section([evaluated(replace(run, steps=steps))], [10]).parts
    assert not part.pictures and part.tables[0].columns == ["NDCG@5"]


def test_baselines_with_steps_are_drawn_beside(run):
    other = replace(make_run("LARES", 0.1), steps=run.steps)
    pictures = step_section([evaluated(run), evaluated(other)], [10]).parts[0].pictures
    assert [len(picture.figure.axes[0].lines) for picture in pictures] == [2, 2]
    assert pictures[0].alt.startswith("Lines: NDCG@10 of LASAR and LARES")


def test_latency_in_milliseconds_with_what_thinking_adds(run):
    (part,) = latency_section(evaluated(run)).parts
    (table,) = part.tables
    assert table.columns == ["encode", "think", "decode", "total", "users per second"]
    assert texts(table.groups["Thinking"]["1"]) == ["20.00", "8.00", "90.00", "118.00", "8.5"]
    assert texts(table.groups["No thinking"]["1"]) == ["20.00", "–", "90.00", "110.00", "9.1"]
    assert texts(table.groups["Explicit CoT"]["1"])[:3] == ["–"] * 3
    assert part.text == [
        "Time per user with thinking, against none: +7.3% at batch size 1 and +7.3% at batch size 64."
    ]


def test_latency_of_a_model_without_stages(run):
    rows = [{"stage": "total", "thinking": False, "batch_size": 8, "seconds_per_user": 0.001, "users_per_second": 1e3}]
    (part,) = latency_section(evaluated(replace(run, latency=rows))).parts
    assert part.tables[0].columns == ["total", "users per second"] and not part.pictures and not part.text


def test_latency_after_numbers_of_steps(run):
    row = {"stage": "total", "batch_size": 8, "seconds_per_user": 0.001, "users_per_second": 1e3}
    rows = [row | {"thinking": how} for how in ("4 steps", "8 steps", True)]
    (part,) = latency_section(evaluated(replace(run, latency=rows))).parts
    assert list(part.tables[0].groups) == ["Thinking", "4 steps", "8 steps"]


def test_one_factor_has_no_correlation(run):
    factors = run.factors | {"num_factors": 1, "correlation": [[1.0]], "gates": [1.0], "dominant": [1.0]}
    factors |= {"mean_abs_correlation": None, "abs_mean_correlation": None, "gate_entropy": 0.0}
    (part,) = factor_section(evaluated(replace(run, factors=factors))).parts
    assert [picture.name for picture in part.pictures] == ["factors gates"]
    assert not any("correlation" in name.lower() for name in part.facts)
    assert part.facts["Entropy of the gates"] == "0.000 nats, of 0.000 where all are equal"


def test_a_curve_says_from_where_to_where(run):
    (part,) = training_section(evaluated(run)).parts
    alts = {picture.name: picture.alt for picture in part.pictures}
    assert alts["training Training loss"] == "Training loss against the step: 11 at step 10, 0.9167 at step 120."
    assert alts["training Validation HR"] == "Validation HR against the step."
