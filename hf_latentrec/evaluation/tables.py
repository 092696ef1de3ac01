"""Metric tables for people: aligned plain text for a terminal, markdown for a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


_COLUMNS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20")


def format_metric_table(
    rows: Mapping[str, Mapping[str, float]],
    *,
    columns: Sequence[str] = _COLUMNS,
    row_header: str = "checkpoint",
    markdown: bool = False,
) -> str:
    """
    One row per checkpoint and protocol, one column per metric, four decimals.

    Args:
        rows (`Mapping[str, Mapping[str, float]]`):
            Metrics by row label, in the order to print. A plain-text table fits 100 characters with labels up to 46.
        columns (`Sequence[str]`, *optional*, defaults to HR and NDCG at 5, 10 and 20):
            Metrics to print, in order.
        row_header (`str`, *optional*, defaults to `"checkpoint"`):
            Heading of the label column.
        markdown (`bool`, *optional*, defaults to `False`):
            Write a markdown table in place of plain text.

    Returns:
        `str`: the table, without a trailing newline.

    Raises:
        `ValueError`: no rows, or a row lacks a column.

    Example:
        >>> print(format_metric_table({"stage 1": {"HR@10": 0.0563, "NDCG@10": 0.0303}}, columns=["HR@10", "NDCG@10"]))
        checkpoint   HR@10  NDCG@10
        ---------------------------
        stage 1     0.0563   0.0303
    """
    if not rows:
        raise ValueError("format_metric_table: no rows; give at least one checkpoint's metrics")
    for label, metrics in rows.items():
        missing = [column for column in columns if column not in metrics]
        if missing:
            raise ValueError(
                f"format_metric_table: row {label!r} lacks {missing} (it has {sorted(metrics)}); "
                "compute them with ranking_metrics(ranks, ks=...) or name fewer columns"
            )
    table = [[row_header, *columns]]
    table += [[label, *(f"{metrics[column]:.4f}" for column in columns)] for label, metrics in rows.items()]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return _markdown(table, widths) if markdown else _plain(table, widths)


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _plain(table: list[list[str]], widths: list[int]) -> str:
    lines = ["  ".join(_aligned(row, widths)) for row in table]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _markdown(table: list[list[str]], widths: list[int]) -> str:
    # A pipe in a label would open a new column.
    table = [[cell.replace("|", "\\|") for cell in row] for row in table]
    widths = [max(len(row[i]) for row in table) for i in range(len(widths))]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in table]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


__all__ = ["format_metric_table"]
