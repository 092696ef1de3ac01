"""Stars stand for a paired t-test over the same users, whatever their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats


pytest.importorskip("matplotlib")

from hf_latentrec.evaluation.report_parts import Evaluated  # noqa: E402
from hf_latentrec.evaluation.report_quality import difference_note, quality_section  # noqa: E402

from .report_runs import FULL, make_run  # noqa: E402


def evaluated(run) -> Evaluated:
    return Evaluated(run.label, run, {})


def test_stars_are_those_of_a_paired_t_test():
    baseline, seen = make_run("SASRec", 0.1, seed=8), set()
    file, order = baseline.ranks[FULL], np.random.default_rng(0).permutation(200)
    shuffled = replace(file, user_ids=[file.user_ids[row] for row in order], ranks=file.ranks[order])
    shuffled = replace(baseline, ranks={FULL: shuffled})
    for share in np.linspace(0, 0.2, 11):
        # Far better for some users, a little worse for the others: only the pairs tell that.
        draw = np.random.default_rng(0).random(200)
        ranks = np.where(draw < share, 1, np.where(file.ranks > 0, file.ranks + (draw > 0.7), 0))
        run = replace(baseline, ranks={FULL: replace(file, ranks=ranks)})
        gains = [
            [1 / np.log2(rank + 1) if 0 < rank <= 10 else 0.0 for rank in of.ranks[FULL].ranks]
            for of in (run, baseline)
        ]
        p_value = stats.ttest_rel(*gains).pvalue
        stars = "*" * sum(p_value < level for level in (0.05, 0.01, 0.001))
        assert difference_note(evaluated(run), evaluated(baseline), FULL, "NDCG@10") == stars
        assert difference_note(evaluated(run), evaluated(shuffled), FULL, "NDCG@10") == stars
        seen.add(stars)
    assert seen == {"", "*", "**", "***"}


def test_one_user_says_nothing():
    run = make_run("LARES", 0.5, num_users=1)
    assert difference_note(evaluated(run), evaluated(make_run("SASRec", 0.01, num_users=1)), FULL, "HR@10") == ""


def test_a_change_from_nothing_is_no_number():
    run = make_run("LARES", 0.1)
    metrics = {"HR@10": 0.2, "NDCG@10": 0.1}
    summaries = {"a": {"all": dict.fromkeys(metrics, 0.0)}, "b": {"all": metrics}}
    section = quality_section([Evaluated("LARES", run, summaries)], [10])
    (table,) = next(part.tables for part in section.parts if part.title == "What the protocol changes")
    assert table.columns == ["a", "b"] and [part.title for part in section.parts] == ["", "What the protocol changes"]
