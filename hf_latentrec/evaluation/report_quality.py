"""How good the models of a report are over all users, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .metrics import metric_values
from .ranks import USER_COLUMN
from .report_parts import Evaluated, Part, Picture, Section, Table, enumerate_names, number_table, title_of
from .report_plots import bar_chart
from .significance import differences_of_users, paired_t_test


CHANGE = "change"
SIGNIFICANCE_LEVELS = {0.001: "***", 0.01: "**", 0.05: "*"}


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
    if any(table.groups[""] for table in more):
        text = "With one relevant item per user Recall is the same as HR, and MAP the same as MRR."
        parts.append(Part("More metrics", [text], tables=more))
    return Section("Ranking quality", parts)


def difference_note(model: Evaluated, baseline: Evaluated, protocol: str, metric: str) -> str:
    """
    Stars where two models differ over the users, by a paired t-test.

    Args:
        model (`Evaluated`): the evaluated one.
        baseline (`Evaluated`): with ranks of the same users.
        protocol (`str`): of both.
        metric (`str`): such as `"NDCG@10"`.

    Returns:
        `str`: up to three stars; none where the difference may be chance, or there is one user only.
    """
    mine, theirs = model.run.ranks[protocol], baseline.run.ranks[protocol]
    row_of = {user_id: row for row, user_id in enumerate(theirs.user_ids)}
    rows = np.array([row_of[user_id] for user_id in mine.user_ids])
    differences = metric_values(mine.ranks, metric) - metric_values(theirs.ranks, metric)[rows]
    differences_U = differences_of_users(differences, mine.columns.get(USER_COLUMN))
    if len(differences_U) < 2:
        return ""
    p_value = paired_t_test(differences_U)
    return next((stars for level, stars in SIGNIFICANCE_LEVELS.items() if p_value < level), "")


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
            f"Stars: differs from {models[0].label} by a paired t-test over the users ({levels}), not corrected for "
            "the number of metrics; recipes/compare.py does that."
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


__all__ = ["difference_note", "headline_metrics", "quality_section"]
