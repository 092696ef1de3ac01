"""What a report says of one model's thinking, its cost and its training, as far as the run has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .report_parts import (
    Evaluated,
    Part,
    Picture,
    Section,
    enumerate_names,
    grouped_table,
    name_group,
    number_table,
    title_of,
)
from .report_plots import (
    STAGES,
    bar_chart,
    depth_chart,
    factor_charts,
    stage_chart,
    thinking_of,
    throughput_chart,
    training_charts,
)
from .report_quality import headline_metrics


RATE = "users per second"


def depth_section(model: Evaluated, ks: Sequence[int]) -> Section | None:
    """
    How many thoughts users had, and how good the recommendations are after each number.

    Args:
        model (`Evaluated`): the evaluated one.
        ks (`Sequence[int]`): cutoffs.
    """
    depths = {name: file.num_thoughts for name, file in model.run.ranks.items() if file.num_thoughts is not None}
    if not depths:
        return None
    protocol, depths_U = next(iter(depths.items()))
    numbers, counts = np.unique(depths_U, return_counts=True)
    if len(numbers) == 1:
        text = f"Every user has {numbers[0]} thoughts." if numbers[0] != 1 else "Every user has one thought."
        return Section("Depth", [Part(text=[text])])
    shares = {str(number): {"users": count / len(depths_U)} for number, count in zip(numbers, counts, strict=True)}
    pictures = [
        Picture(
            "depth",
            bar_chart(shares, "share of users", text="{:.1%}", ylabel="thoughts"),
            f"Number of thoughts, {protocol}.",
            "Bars: share of users by number of thoughts, "
            + enumerate_names(f"{number}: {share['users']:.1%}" for number, share in shares.items())
            + ".",
        )
    ]
    text = [f"The model gives each user a number of thoughts of its own, {depths_U.mean():.2f} on average."]
    rows = {}
    metrics = headline_metrics(ks)
    groups = {name: summary["groups"].get("depth", {}) for name, summary in model.summaries.items()}
    groups = {name: of_depth for name, of_depth in groups.items() if of_depth}
    for name, of_depth in groups.items():
        rows[title_of(name)] = {
            name_group(depth, group): {metric: group["metrics"][metric] for metric in metrics}
            for depth, group in of_depth.items()
        }
    if groups:
        text.append(
            "Users who are given more thoughts are other users: the quality of a group does not say what more "
            "thoughts would do to the same users."
        )
        values = {
            depth: {
                name: of_depth[depth]["metrics"][metrics[1]] for name, of_depth in groups.items() if depth in of_depth
            }
            for depth in next(iter(groups.values()))
        }
        pictures.append(
            Picture(
                "quality by depth",
                bar_chart(values, metrics[1], ylabel="thoughts"),
                f"{metrics[1]} of the users with each number of thoughts.",
                f"Bars: {metrics[1]} by number of thoughts; the table below has the numbers.",
            )
        )
    tables = [grouped_table("Quality by number of thoughts", "Thoughts", rows)] if rows else []
    return Section("Depth", [Part(text=text, pictures=pictures, tables=tables)])


def step_section(models: Sequence[Evaluated], ks: Sequence[int]) -> Section | None:
    """
    The same weights after other numbers of reasoning steps; baselines that were tested so are drawn, too.

    Args:
        models (`list[Evaluated]`): the evaluated one, then the baselines.
        ks (`Sequence[int]`): cutoffs.
    """
    if not (steps := models[0].run.steps):
        return None
    pictures, rows = [], {}
    metric = headline_metrics(ks)[1]
    for protocol, of_number in steps.items():
        curves = {model.label: _curve(model, protocol, metric) for model in models}
        curves = {label: curve for label, curve in curves.items() if curve}
        if len(curves.get(models[0].label, {})) > 1:
            alt = f"Lines: {metric} of {enumerate_names(curves)} against the number of reasoning steps, {protocol}."
            picture = depth_chart(curves, metric)
            pictures.append(Picture(f"steps {protocol}", picture, f"{metric} by reasoning steps, {protocol}.", alt))
        rows[title_of(protocol)] = {
            number: {name: _mean_and_spread(values) for name, values in of_number[number].items()}
            for number in sorted(of_number, key=int)
        }
    seeds = max(len(values) for of in steps.values() for metrics in of.values() for values in metrics.values())
    text = "The same weights, made to take each number of steps."
    if seeds > 1:
        text += f" Mean and sample standard deviation over {seeds} seeds; the band is one deviation wide on each side."
    caption = f"{models[0].label} by number of steps"
    table = grouped_table(caption, "Steps", rows, mark="column", write=_write_spread)
    return Section("Reasoning steps", [Part(text=[text], pictures=pictures, tables=[table])])


def _curve(model: Evaluated, protocol: str, metric: str) -> dict[int, list[float]]:
    """A metric of each seed by number of steps, where the model was tested so."""
    of_number = (model.run.steps or {}).get(protocol, {})
    return {int(number): metrics[metric] for number, metrics in of_number.items() if metric in metrics}


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _write_spread(column: str, value: tuple[float, float | None]) -> str:
    mean, spread = value
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def factor_section(model: Evaluated) -> Section | None:
    """
    How different the factors of a thought are, and how they are weighed.

    Args:
        model (`Evaluated`): the evaluated one.
    """
    if not (factors := model.run.factors):
        return None
    charts = factor_charts(factors)
    gates = enumerate_names(f"{gate:.2f}" for gate in factors["gates"])
    captions = {
        "correlation": ("Mean cosine between the factors.", "Heat map of the mean cosine between every two factors."),
        "gates": ("Mean gate of each factor.", f"Bars: mean gate of each factor, {gates}."),
    }
    pictures = [Picture(f"factors {name}", chart, *captions[name]) for name, chart in charts.items()]
    facts = {
        "Disentanglement Score": f"{factors['disentanglement_score']:.3f} (0 to 1, higher is more apart)",
        "Entropy of the gates": f"{factors['gate_entropy']:.3f} nats, "
        f"of {np.log(factors['num_factors']):.3f} where all are equal",
    }
    if factors["mean_abs_correlation"] is not None:
        facts["Mean |correlation|"] = f"{factors['mean_abs_correlation']:.3f} over users"
        facts["|Mean correlation|"] = f"{factors['abs_mean_correlation']:.3f} of the mean matrix"
    facts["Users"] = f"{factors['num_users']:,}"
    rows = {
        f"factor {number}": {"mean gate": gate, "share of users led by it": share}
        for number, (gate, share) in enumerate(zip(factors["gates"], factors["dominant"], strict=True), start=1)
    }
    table = number_table("Gates", "Factor", rows, write=lambda column, value: f"{value:.3f}")
    return Section("Factors of the thought", [Part(facts=facts, pictures=pictures, tables=[table])])


def latency_section(model: Evaluated) -> Section | None:
    """
    Time per user, by stage and batch size, thinking and not.

    Args:
        model (`Evaluated`): the evaluated one.
    """
    if not (rows := model.run.latency):
        return None
    pictures = []
    if (chart := stage_chart(rows)) is not None:
        alt = "Stacked bars: milliseconds per user to encode, think and decode; the table below has the numbers."
        pictures.append(Picture("latency", chart, "Time per user, by stage.", alt))
    if (chart := throughput_chart(rows)) is not None:
        alt = "Lines: users per second against the batch size; the table below has the numbers."
        pictures.append(Picture("throughput", chart, "Throughput; both axes are logarithmic.", alt))
    names = thinking_of(rows)
    by_setting = {how: _milliseconds([row for row in rows if row["thinking"] == how]) for how in names}
    table = grouped_table(
        "Milliseconds per user, and users per second",
        "Batch size",
        {title_of(names[how]): of_size for how, of_size in by_setting.items()},
        write=lambda column, value: f"{value:.1f}" if column == RATE else f"{value:.2f}",
    )
    return Section("Latency", [Part(text=_overhead(by_setting), pictures=pictures, tables=[table])])


def _milliseconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By batch size and stage, in the order in which a user goes through the stages; and users per second."""
    by_size: dict[str, dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: (row["batch_size"], (*STAGES, "total").index(row["stage"]))):
        cells = by_size.setdefault(str(row["batch_size"]), {})
        cells[row["stage"]] = 1000 * row["seconds_per_user"]
        if row["stage"] == "total":
            cells[RATE] = row["users_per_second"]
    return by_size


def _overhead(by_setting: Mapping[Any, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """What thinking adds at the smallest and the largest batch."""
    on, off = by_setting.get(True, {}), by_setting.get(False, {})
    sizes = [size for size in on if "total" in on[size] and "total" in off.get(size, {})]
    if not sizes:
        return []
    ends = dict.fromkeys((sizes[0], sizes[-1]))
    shares = (f"{on[size]['total'] / off[size]['total'] - 1:+.1%} at batch size {size}" for size in ends)
    return [f"Time per user with thinking, against none: {enumerate_names(shares)}."]


def training_section(model: Evaluated) -> Section | None:
    """
    What the training logged.

    Args:
        model (`Evaluated`): the evaluated one.
    """
    charts = training_charts(model.run.log_history or [])
    pictures = [
        Picture(f"training {title}", figure, "", f"{title} against the step{_ends(figure)}.")
        for title, figure in charts.items()
    ]
    return Section("Training", [Part(pictures=pictures)]) if pictures else None


def _ends(figure: Any) -> str:
    """From where to where a curve goes."""
    lines = figure.axes[0].lines
    if len(lines) != 1 or len(lines[0].get_ydata()) < 2:
        return ""
    first, *_, last = zip(lines[0].get_xdata(), lines[0].get_ydata(), strict=True)
    return f": {first[1]:.4g} at step {first[0]:.0f}, {last[1]:.4g} at step {last[0]:.0f}"


__all__ = ["depth_section", "factor_section", "latency_section", "step_section", "training_section"]
