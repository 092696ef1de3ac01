"""Metric tables for people: aligned plain text for a terminal, markdown for a card."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
    return _format("format_metric_table", rows, _cell, columns, row_header, markdown)


def format_seed_table(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    columns: Sequence[str] = ("HR@10", "NDCG@10"),
    row_header: str = "method",
    markdown: bool = False,
) -> str:
    """
    One row per method, with mean and spread over seeds in each cell: `0.0563 ± 0.0012`.

    The spread is the sample standard deviation (`n - 1` in the denominator). A row of one seed shows its value alone.

    Args:
        rows (`Mapping[str, Sequence[Mapping[str, float]]]`):
            By row label, in the order to print: the metrics of every seed.
        columns (`Sequence[str]`, *optional*, defaults to HR and NDCG at 10):
            Metrics to print, in order.
        row_header (`str`, *optional*, defaults to `"method"`):
            Heading of the label column.
        markdown (`bool`, *optional*, defaults to `False`):
            Write a markdown table in place of plain text.

    Returns:
        `str`: the table, without a trailing newline.

    Raises:
        `ValueError`: no rows, a row without seeds, or a seed that lacks a column.

    Example:
        >>> seeds = [{"NDCG@10": 0.030}, {"NDCG@10": 0.034}, {"NDCG@10": 0.032}]
        >>> print(format_seed_table({"SFT": seeds, "+ LR-GRPO": seeds[:1]}, columns=["NDCG@10"]))
        method             NDCG@10
        --------------------------
        SFT        0.0320 ± 0.0020
        + LR-GRPO           0.0300
    """
    for label, seeds in rows.items():
        if len(seeds) == 0:
            raise ValueError(f"format_seed_table: row {label!r} has no seeds; give the metrics of one at least")
    values = {
        label: {name: [seed[name] for seed in seeds] for name in columns if all(name in seed for seed in seeds)}
        for label, seeds in rows.items()
    }
    return _format("format_seed_table", values, _mean_and_spread, columns, row_header, markdown)


def _cell(value: float) -> str:
    return f"{value:.4f}"


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = _cell(statistics.fmean(values))
    return f"{mean} ± {_cell(statistics.stdev(values))}" if len(values) > 1 else mean


def _format(
    caller: str,
    rows: Mapping[str, Mapping[str, Any]],
    to_cell: Callable[[Any], str],
    columns: Sequence[str],
    row_header: str,
    markdown: bool,
) -> str:
    """The table of what `to_cell` makes of every value."""
    if not rows:
        raise ValueError(f"{caller}: no rows; give at least one checkpoint's metrics")
    for label, metrics in rows.items():
        missing = [column for column in columns if column not in metrics]
        if missing:
            raise ValueError(
                f"{caller}: row {label!r} lacks {missing} (it has {sorted(metrics)}); "
                "compute them with ranking_metrics(ranks, ks=...) or name fewer columns"
            )
    table = [[row_header, *columns]]
    table += [[label, *(to_cell(metrics[column]) for column in columns)] for label, metrics in rows.items()]
    return format_table(table, markdown)


def format_table(table: list[list[str]], markdown: bool = False) -> str:
    """
    Any table: the first row is its heading, the first column stands to the left and the others to the right.

    Args:
        table (`list[list[str]]`): rows of equally many cells.
        markdown (`bool`, *optional*, defaults to `False`): a markdown table in place of plain text.

    Returns:
        `str`: the table, without a trailing newline.

    Example:
        >>> print(format_table([["metric", "p"], ["HR@10", "0.03"]]))
        metric     p
        ------------
        HR@10   0.03
    """
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


__all__ = ["format_metric_table", "format_seed_table", "format_table"]
