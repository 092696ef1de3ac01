from __future__ import annotations

import math

import pytest

from hf_latentrec.evaluation import format_metric_table, format_seed_table, ranking_metrics


ROWS = {
    "stage 1, full": ranking_metrics([1, 3, 0, 12]),
    "after GRPO, seen items excluded": ranking_metrics([2, 0, 0, 7]),
}


def test_plain_table_is_aligned_and_fits_a_terminal():
    header, rule, *rows = format_metric_table(ROWS).splitlines()
    assert header.split() == ["checkpoint", "HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"]
    assert set(rule) == {"-"} and {len(header), len(rule)} == {len(row) for row in rows} and len(header) <= 100
    for row, (label, metrics) in zip(rows, ROWS.items(), strict=True):
        assert row.startswith(label + " ")
        assert row[len(label) :].split() == [f"{metrics[name]:.4f}" for name in header.split()[1:]]


def test_the_longest_label_promised_fits_100_characters():
    assert len(format_metric_table({"x" * 46: ROWS["stage 1, full"]}).splitlines()[0]) <= 100


def test_markdown_table():
    lines = format_metric_table({"a|b": {"HR@10": 0.5}}, columns=["HR@10"], markdown=True).splitlines()
    assert lines == ["| checkpoint |  HR@10 |", "|------------|-------:|", "| a\\|b       | 0.5000 |"]


def test_a_row_without_a_column_is_named():
    with pytest.raises(ValueError, match=r"row 'b' lacks \['NDCG@10'\]"):
        format_metric_table({"a": {"HR@10": 0.1, "NDCG@10": 0.1}, "b": {"HR@10": 0.1}}, columns=["HR@10", "NDCG@10"])


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        format_metric_table({})


SEEDS = {
    "SFT": [{"HR@10": 0.1, "NDCG@10": 0.05}, {"HR@10": 0.4, "NDCG@10": 0.07}],
    "one": [{"HR@10": 1, "NDCG@10": 0}],
}


def test_seeds_are_shown_by_mean_and_sample_deviation():
    lines = format_seed_table(SEEDS, markdown=True).splitlines()
    spread = math.sqrt(((0.1 - 0.25) ** 2 + (0.4 - 0.25) ** 2) / (2 - 1))
    assert lines == [
        "| method |           HR@10 |         NDCG@10 |",
        "|--------|----------------:|----------------:|",
        f"| SFT    | 0.2500 ± {spread:.4f} | 0.0600 ± 0.0141 |",
        "| one    |          1.0000 |          0.0000 |",
    ]
    plain = format_seed_table(SEEDS, columns=["NDCG@10"], row_header="run").splitlines()
    assert plain == ["run          NDCG@10", "-" * 20, "SFT  0.0600 ± 0.0141", "one           0.0000"]


def test_seeds_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="format_seed_table: row 'SFT' has no seeds"):
        format_seed_table({**SEEDS, "SFT": []})
    with pytest.raises(ValueError, match=r"format_seed_table: row 'SFT' lacks \['HR@10'\]"):
        format_seed_table({"SFT": [*SEEDS["SFT"], {"NDCG@10": 0.1}]})
    with pytest.raises(ValueError, match="format_seed_table: no rows"):
        format_seed_table({})
