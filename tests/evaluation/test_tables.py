from __future__ import annotations

import pytest

from hf_latentrec.evaluation import format_metric_table, ranking_metrics


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
