"""Two models on the same users: who is paired with whom, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hf_latentrec.evaluation import (
    RankFile,
    bootstrap_interval,
    check_comparable,
    compare_ranks,
    correct_p_values,
    metric_values,
    paired_t_test,
    ranking_metrics,
    wilcoxon_test,
)


METRICS = ("HR@5", "NDCG@10", "MRR")


def rank_file(ranks, users=None, split="s1", protocol="nothing filtered", num_beams=None, **metadata) -> RankFile:
    users = [f"u{i}" for i in range(len(ranks))] if users is None else users
    metadata |= {"split_fingerprint": split, "protocol": protocol, "num_beams": num_beams}
    return RankFile(users, np.asarray(ranks), metadata)


def random_ranks(seed: int, num_users: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 12, num_users)


def test_a_comparison_holds_metrics_tests_and_intervals():
    a, b = random_ranks(0), random_ranks(1)
    found = compare_ranks({"A": rank_file(a)}, {"B": rank_file(b)}, METRICS, "bonferroni", num_samples=300, seed=5)
    assert [row.metric for row in found] == list(METRICS)
    assert found[0].a == ranking_metrics(a, (5,))["HR@5"]
    for row in found:
        difference = np.round(metric_values(b, row.metric) - metric_values(a, row.metric), 12)
        assert row.difference == pytest.approx(difference.mean()) == row.b - row.a
        assert row.interval == bootstrap_interval(difference, 300, seed=5)
        assert row.t_test == paired_t_test(difference) and row.wilcoxon == wilcoxon_test(difference)
        assert row.num_users == row.num_examples == 80
    for test in ("t_test", "wilcoxon"):
        p_values = [getattr(row, test) for row in found]
        assert [getattr(row, f"{test}_corrected") for row in found] == correct_p_values(p_values, "bonferroni")


def test_users_are_paired_by_id_whatever_their_order():
    a, b = random_ranks(0), random_ranks(1)
    order = np.random.default_rng(2).permutation(80)
    shuffled = rank_file(b[order], [f"u{i}" for i in order])
    assert compare_ranks({"A": rank_file(a)}, {"B": shuffled}) == compare_ranks(
        {"A": rank_file(a)}, {"B": rank_file(b)}
    )


def test_examples_of_a_user_are_not_counted_as_users():
    """Every user twice over: as sure as once. Users with unequal numbers: as by hand."""
    a, b = random_ranks(0), random_ranks(1)
    users = [f"u{i}" for i in range(80)]

    def twice(ranks):
        file = rank_file(np.tile(ranks, 2), users + [f"{user}#2" for user in users])
        return replace(file, columns={"user": np.array(users * 2)})

    (once,) = compare_ranks({"A": rank_file(a)}, {"B": rank_file(b)}, ["NDCG@10"])
    (both,) = compare_ranks({"A": twice(a)}, {"B": twice(b)}, ["NDCG@10"])
    assert (both.num_users, both.num_examples) == (80, 160)
    for name in ("difference", "t_test", "wilcoxon"):
        assert getattr(both, name) == pytest.approx(getattr(once, name))

    owners = np.array(["ann"] * 3 + ["bob"] + ["cy"] * 2)
    a, b = (replace(rank_file(random_ranks(seed, 6)), columns={"user": owners}) for seed in (4, 5))
    (found,) = compare_ranks({"A": a}, {"B": b}, ["MRR"])
    difference = metric_values(b.ranks, "MRR") - metric_values(a.ranks, "MRR")
    by_hand = [3 / 6 * difference[rows].sum() for rows in ([0, 1, 2], [3], [4, 5])]
    assert found.difference == pytest.approx(np.mean(by_hand))
    assert found.t_test == pytest.approx(paired_t_test(by_hand))


def test_a_user_has_the_mean_over_seeds():
    a, b = [random_ranks(seed) for seed in (0, 1)], [random_ranks(seed) for seed in (2, 3)]
    files = [{f"{name}{seed}": rank_file(ranks) for seed, ranks in enumerate(of)} for name, of in (("A", a), ("B", b))]
    (found,) = compare_ranks(*files, metrics=["NDCG@10"])
    a_U, b_U = (np.mean([metric_values(ranks, "NDCG@10") for ranks in of], axis=0) for of in (a, b))
    assert (found.a, found.b) == (a_U.mean(), b_U.mean())
    assert found.t_test == pytest.approx(paired_t_test(b_U - a_U))


def test_the_same_seeds_in_another_order_do_not_differ():
    files = [rank_file(random_ranks(seed)) for seed in range(3)]
    a, b = {str(i): files[i] for i in (0, 1, 2)}, {str(i): files[i] for i in (2, 1, 0)}
    (found,) = compare_ranks(a, b, metrics=["NDCG@10"])
    assert found.t_test == found.wilcoxon == 1 and found.interval == (0, 0)


def test_a_model_against_itself_does_not_differ():
    run = {"A": rank_file(random_ranks(0))}
    for row in compare_ranks(run, run):
        assert (row.difference, row.t_test, row.wilcoxon, row.t_test_corrected) == (0, 1, 1, 1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"split": "s2"}, "A has split_fingerprint 's1', but B has 's2'; ranks on different splits"),
        ({"protocol": "seen items excluded"}, "A has protocol 'nothing filtered', but B has 'seen items excluded'"),
        (
            {"split": "s2", "examples_fingerprint": "e2"},
            "A has split_fingerprint 's1', but B has 's2'; ranks on different splits",
        ),
        ({"match": "title"}, "A has match 'item', but B has 'title'"),
        (
            {"users": ["u0", "x1", "x2", "x3", "x4"]},
            r"B lacks 4 \('u1', 'u2', 'u3', ...\) of the 5 users of A and has 4 \('x1', 'x2', 'x3', ...\) that",
        ),
    ],
)
def test_what_is_not_comparable_is_refused(other, message):
    a, b = rank_file([1, 2, 3, 4, 5]), rank_file([1, 2, 3, 4, 5], **other)
    with pytest.raises(ValueError, match=message):
        compare_ranks({"A": a}, {"B": b})
    with pytest.raises(ValueError, match=message):
        check_comparable({"A": a, "B": b})
    with pytest.raises(ValueError, match=message.replace("B", "B2")):
        compare_ranks({"A": a}, {"B": a, "B2": b})


def test_missing_users_alone_are_refused():
    a, b = rank_file([1, 2, 3]), rank_file([1, 2])
    with pytest.raises(ValueError, match=r"B lacks 1 \('u2'\) of the 3 users of A and has none that A lacks"):
        compare_ranks({"A": a}, {"B": b})
    with pytest.raises(ValueError, match=r"B lacks none of the 2 users of A and has 1 \('u2'\) that A lacks"):
        compare_ranks({"A": b}, {"B": a})


def test_a_cutoff_beyond_the_beams_of_one_model_is_refused(caplog):
    few, all_items = rank_file([1, 2], num_beams=10), rank_file([1, 2])
    assert compare_ranks({"A": few}, {"B": all_items}, ["HR@10"])[0].difference == 0
    for metric in ("HR@11", "MRR"):
        with pytest.raises(ValueError, match=f"{metric} looks beyond the 10 items per user that A ranked"):
            compare_ranks({"A": few}, {"B": all_items}, [metric])
    with pytest.raises(ValueError, match="HR@30 looks beyond the 10 items per user that B ranked"):
        compare_ranks({"A": rank_file([1, 2], num_beams=20)}, {"B": few}, ["HR@30"])
    assert not caplog.records
    compare_ranks({"A": few}, {"B": few}, ["HR@11", "MRR"])
    assert [record.getMessage() for record in caplog.records] == [
        "All models ranked 10 items per user; HR@11 counts no more"
    ]


def test_bad_arguments_are_named():
    run = {"A": rank_file([1, 2])}
    for metrics in ([], ["HR@5", "HR@5"]):
        with pytest.raises(ValueError, match="name one at least, and each once"):
            compare_ranks(run, run, metrics)
    with pytest.raises(ValueError, match="'AUC' is unknown"):
        compare_ranks(run, run, ["AUC"])
    with pytest.raises(ValueError, match="0 rank files of A and 1 of B"):
        compare_ranks({}, run)
    with pytest.raises(ValueError, match=r"shape \[1\]; a paired test takes"):
        compare_ranks({"A": rank_file([1])}, {"B": rank_file([2])})


def test_what_was_tested_counts_more_than_how_training_was_cut():
    a = rank_file([1, 2], split="windows of 10", examples_fingerprint="e1")
    check_comparable({"A": a, "B": rank_file([2, 1], split="windows of 1", examples_fingerprint="e1")})
    with pytest.raises(ValueError, match="A has examples_fingerprint 'e1', but B has 'e2'"):
        check_comparable({"A": a, "B": rank_file([2, 1], split="windows of 10", examples_fingerprint="e2")})
