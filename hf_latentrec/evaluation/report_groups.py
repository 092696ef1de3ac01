"""How the models of a report do for groups of users, and what their recommendations are like as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .report_parts import (
    Evaluated,
    Part,
    Picture,
    Section,
    Table,
    enumerate_names,
    grouped_table,
    name_group,
    number_table,
    text_table,
    title_of,
)
from .report_plots import bar_chart
from .report_quality import headline_metrics
from .shortening import shorten


if TYPE_CHECKING:
    from .run import EvaluatedItems


MOST_RECOMMENDED = 10  # items
TITLE_WIDTH = 70  # letters
GROUPS = {
    "popularity": (
        "Popular and long-tail targets",
        "Users by the item that they turned to next: the most frequent fifth of the items is popular, all others are "
        "the long tail.",
        "",
    ),
    "history length": (
        "Length of the history",
        "Users by the number of items before the one that they turned to next; a model reads the newest, up to its "
        "longest history.",
        "items in the history",
    ),
    "cold start": (
        "Cold items",
        "Users by whether the item that they turned to next was ever seen in training.",
        "",
    ),
}
LISTS = (
    "Coverage is the share of the catalog that somebody is recommended. Gini is 0 where all items are recommended "
    "equally often, 1 where it is always the same ones. Novelty is the mean surprise of an item in bits, higher for "
    "less popular items. Intra-list diversity is the mean distance between two items of one list. None of them says "
    "that recommendations are good, so no best is marked."
)


def group_section(models: Sequence[Evaluated], ks: Sequence[int]) -> Section | None:
    """
    The two headline metrics by group of users, a part for each way to group them that tells users apart.

    Args:
        models (`list[Evaluated]`): the evaluated one, then the baselines.
        ks (`Sequence[int]`): cutoffs.
    """
    parts = [_group_part(models, kind, headline_metrics(ks)) for kind in GROUPS]
    parts = [part for part in parts if part is not None]
    return Section("Groups of users", parts) if parts else None


def _group_part(models: Sequence[Evaluated], kind: str, metrics: tuple[str, str]) -> Part | None:
    title, text, ylabel = GROUPS[kind]
    pictures, tables = [], []
    for protocol, summary in models[0].summaries.items():
        groups = summary["groups"].get(kind, {})
        if len(groups) < 2:
            continue
        values = {metric: _values_of_groups(models, protocol, kind, metric) for metric in metrics}
        labels = dict.fromkeys(label for row in values[metrics[1]].values() for label in row)
        names = {group: name_group(group, content) for group, content in groups.items()}
        pictures.append(
            Picture(
                f"{kind} {protocol}",
                bar_chart(values[metrics[1]], metrics[1], ylabel=ylabel),
                f"{metrics[1]}, {protocol}.",
                f"Bars: {metrics[1]} of {enumerate_names(labels)} for the groups {enumerate_names(names.values())}, "
                f"{protocol}; the table below has the numbers.",
            )
        )
        if len(labels) == 1:
            rows = {names[group]: {metric: groups[group]["metrics"][metric] for metric in metrics} for group in groups}
            tables.append(number_table(title_of(protocol), "Group", rows))
        else:
            stacked = {metric: {names[group]: row for group, row in of.items()} for metric, of in values.items()}
            table = grouped_table(title_of(protocol), "Group", stacked, mark="row")
            tables.append(replace(table, notes=["Bold: the best of its row."]))
    return Part(title, [text], pictures=pictures, tables=tables) if tables else None


def _values_of_groups(
    models: Sequence[Evaluated], protocol: str, kind: str, metric: str
) -> dict[str, dict[str, float]]:
    """A metric by group, and by model that has such a group."""
    groups_of = {
        model.label: model.summaries[protocol]["groups"].get(kind, {})
        for model in models
        if protocol in model.summaries
    }
    return {
        group: {label: groups[group]["metrics"][metric] for label, groups in groups_of.items() if group in groups}
        for group in groups_of[models[0].label]
    }


def list_section(models: Sequence[Evaluated]) -> Section | None:
    """
    What the recommendations of all users are like together, and which items are recommended most.

    Args:
        models (`list[Evaluated]`): the evaluated one, then the baselines.
    """
    tables = []
    for protocol in models[0].summaries:
        lists = {model.label: model.summaries.get(protocol, {}).get("lists", {}) for model in models}
        names = dict.fromkeys(name for metrics in lists.values() for name in metrics)
        rows = {
            name.replace("_", " "): {
                label: (name, metrics[name]) for label, metrics in lists.items() if name in metrics
            }
            for name in names
        }
        if rows:
            tables.append(number_table(title_of(protocol), "Metric", rows, write=_write_list_metric))
    parts = [Part(text=[LISTS], tables=tables)] if tables else []
    if popular := [_most_recommended(models[0], protocol) for protocol in models[0].run.recommendations]:
        parts.append(Part("Most recommended items", tables=popular))
    return Section("Recommendations as a whole", parts) if parts else None


def _write_list_metric(column: str, metric: tuple[str, float]) -> str:
    name, value = metric
    return f"{value:.2f}" if name.startswith("novelty") else f"{value:.4f}"


def _most_recommended(model: Evaluated, protocol: str) -> Table:
    items, rows_UK = model.run.items, model.run.recommendations[protocol].item_rows
    counts_I = np.bincount(rows_UK[rows_UK >= 0], minlength=len(items.item_ids))
    top = np.argsort(-counts_I, kind="stable")[:MOST_RECOMMENDED]
    rows = {
        f"{place}.": [
            _name_item(items, row),
            f"{counts_I[row] / len(rows_UK):.1%}",
            f"{items.popularity[row]:,}",
        ]
        for place, row in enumerate(top[counts_I[top] > 0].tolist(), start=1)
    }
    columns = ["Item", f"Users with it among {rows_UK.shape[1]}", "Interactions in training"]
    return text_table(title_of(protocol), "Place", columns, rows, numbers=columns[1:])


def _name_item(items: EvaluatedItems, row: int) -> str:
    """Title and id: several items may have the same title."""
    item_id = shorten(items.item_ids[row], TITLE_WIDTH)
    title = shorten(items.titles[row] or "", TITLE_WIDTH)
    return f"{title} ({item_id})" if title else item_id


__all__ = ["group_section", "list_section"]
