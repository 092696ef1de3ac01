"""How good the models of a report are: metrics, groups of users, and what the recommendations are like as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .plots import shorten
from .report_parts import (
    Evaluated,
    Part,
    Picture,
    Section,
    Table,
    enumerate_names,
    name_group,
    grouped_table,
    number_table,
    text_table,
    title_of,
)
from .report_plots import bar_chart


if TYPE_CHECKING:
    from .run import EvaluatedItems


CHANGE = "change"
MOST_RECOMMENDED = 10  # items
TITLE_WIDTH = 70  # letters
SIGNIFICANCE_LEVELS = {0.001: "***", 0.01: "**", 0.05: "*"}
GROUPS = {
    "popularity": (
        "Popular and long-tail targets",
        "Users by the item that they turned to next: the most frequent fifth of the items is popular, all others are "
        "the long tail.",
        "",
    ),
    "history length": (
        "Length of the history",
        "Users by the number of items that the model could see of them.",
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


def headline_metrics(ks: Sequence[int]) -> tuple[str, str]:
    """The two metrics that pictures and groups show: at 10 where it is among the cutoffs, else at the smallest."""
    k = 10 if 10 in ks else min(ks)
    return f"HR@{k}", f"NDCG@{k}"


def quality_section(models: Sequence[Evaluated], ks: Sequence[int]) -> Section:
    """
    Metrics of all users: a table per protocol, what the protocol changes, and the metrics that say less.

    Args:
        models (`list[Evaluated]`): the evaluated one, then the baselines.
        ks (`Sequence[int]`): cutoffs.
    """
    main = [f"{name}@{k}" for k in ks for name in ("HR", "NDCG")]
    metric, protocols = headline_metrics(ks)[1], list(models[0].summaries)
    values = {
        model.label: {name: model.summaries[name]["all"][metric] for name in protocols if name in model.summaries}
        for model in models
    }
    picture = Picture(
        "quality",
        bar_chart(values, metric),
        f"{metric} of every model.",
        f"Bars: {metric} of {enumerate_names(values)}, {enumerate_names(protocols)}; the tables have the numbers.",
    )
    tables = [_metric_table(models, protocol, main) for protocol in protocols]
    parts = [Part(pictures=[picture] if len(values) * len(protocols) > 1 else [], tables=tables)]
    if len(protocols) == 2:
        parts.append(_protocol_part(models[0], protocols, main))
    more = [_more_metrics(models, protocol, main) for protocol in protocols]
    if any(table.columns for table in more):
        parts.append(Part("More metrics", tables=more))
    return Section("Ranking quality", parts)


def difference_note(model: Evaluated, baseline: Evaluated, protocol: str, metric: str) -> str:
    """Stars where the two differ over the users by a paired t-test."""
    return ""


def _metric_table(models: Sequence[Evaluated], protocol: str, names: Sequence[str]) -> Table:
    ranked = {model.label: model for model in models if protocol in model.summaries}

    def note_of(label: str, metric: str) -> str:
        return "" if label == models[0].label else difference_note(models[0], ranked[label], protocol, metric)

    rows = {label: {name: model.summaries[protocol]["all"][name] for name in names} for label, model in ranked.items()}
    table = number_table(title_of(protocol), "Model", rows, mark="column", note_of=note_of)
    notes = ["Bold: the best of its column."] if len(rows) > 1 else []
    if any(cell.note for row in table.groups[""].values() for cell in row):
        levels = ", ".join(f"{stars} p < {level}" for level, stars in reversed(SIGNIFICANCE_LEVELS.items()))
        notes.append(
            f"Stars: the users of this model and of {models[0].label} differ by a paired t-test ({levels}), not "
            "corrected for the number of metrics; recipes/compare.py does that."
        )
    return replace(table, notes=notes)


def _protocol_part(model: Evaluated, protocols: Sequence[str], names: Sequence[str]) -> Part:
    """What the other protocol alone does to the same model."""
    first, second = ({name: model.summaries[protocol]["all"][name] for name in names} for protocol in protocols)
    rows = {name: {protocols[0]: first[name], protocols[1]: second[name]} for name in names}
    for name, row in rows.items():
        if first[name] > 0:
            row[CHANGE] = second[name] / first[name] - 1
    table = number_table(
        f"{model.label} under both protocols",
        "Metric",
        rows,
        write=lambda column, value: f"{value:+.1%}" if column == CHANGE else f"{value:.4f}",
    )
    text = "The same model; only that the items of each user's history are left out of the ranking, or not."
    return Part("What the protocol changes", [text], tables=[table])


def _more_metrics(models: Sequence[Evaluated], protocol: str, shown: Sequence[str]) -> Table:
    """Metrics as rows, because they are many."""
    ranked = [model for model in models if protocol in model.summaries]
    names = [name for name in models[0].summaries[protocol]["all"] if name not in shown]
    rows = {name: {model.label: model.summaries[protocol]["all"][name] for model in ranked} for name in names}
    return number_table(title_of(protocol), "Metric", rows, mark="row")


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
        of_model = {model.label: _groups_of(model, protocol, kind) for model in models if protocol in model.summaries}
        values = {
            metric: {
                group: {
                    label: groups[group]["metrics"][metric] for label, groups in of_model.items() if group in groups
                }
                for group in groups
            }
            for metric in metrics
        }
        names = {group: name_group(group, content) for group, content in groups.items()}
        pictures.append(
            Picture(
                f"{kind} {protocol}",
                bar_chart(values[metrics[1]], metrics[1], ylabel=ylabel),
                f"{metrics[1]}, {protocol}.",
                f"Bars: {metrics[1]} of {enumerate_names(of_model)} for the groups {enumerate_names(names.values())}, "
                f"{protocol}; the table below has the numbers.",
            )
        )
        rows = {metric: {names[group]: row for group, row in of_group.items()} for metric, of_group in values.items()}
        table = grouped_table(title_of(protocol), "Group", rows, mark="row")
        tables.append(replace(table, notes=["Bold: the best of its row."] if len(of_model) > 1 else []))
    return Part(title, [text], pictures=pictures, tables=tables) if tables else None


def _groups_of(model: Evaluated, protocol: str, kind: str) -> dict[str, dict]:
    return model.summaries[protocol]["groups"].get(kind, {})


def list_section(models: Sequence[Evaluated]) -> Section | None:
    """
    What the recommendations of all users are like together, and which items are recommended most.

    Args:
        models (`list[Evaluated]`): the evaluated one, then the baselines.
    """
    tables = []
    for protocol in models[0].summaries:
        rows = {model.label: model.summaries.get(protocol, {}).get("lists", {}) for model in models}
        rows = {label: _spelled_out(row) for label, row in rows.items() if row}
        if rows:
            tables.append(number_table(title_of(protocol), "Model", rows, write=_write_list_metric))
    parts = [Part(text=[LISTS], tables=tables)] if tables else []
    if popular := [_most_recommended(models[0], protocol) for protocol in models[0].run.recommendations]:
        parts.append(Part("Most recommended items", tables=popular))
    return Section("Recommendations as a whole", parts) if parts else None


def _spelled_out(row: dict[str, float]) -> dict[str, float]:
    return {name.replace("_", " "): value for name, value in row.items()}


def _write_list_metric(name: str, value: float) -> str:
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


__all__ = ["difference_note", "group_section", "headline_metrics", "list_section", "quality_section"]
