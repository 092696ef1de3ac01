"""One page that shows an evaluated model, beside the baselines of the same split. Needs the extra `plots`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparison import check_comparable
from .metrics import check_cutoffs
from .report_groups import group_section, list_section
from .report_page import write_page
from .report_parts import NOTHING, Evaluated, Part, Section, Table, enumerate_names, text_table, title_of
from .report_quality import quality_section
from .report_thinking import depth_section, factor_section, latency_section, step_section, training_section
from .run import EvaluationRun
from .shortening import shorten
from .summary import summarize


REPORT_FILE = "report.html"
LABEL_WIDTH, CELL_WIDTH, FACT_WIDTH = 60, 160, 600  # letters


def write_report(
    folder: str | Path, run: EvaluationRun, baselines: Sequence[EvaluationRun] = (), ks: Sequence[int] = (5, 10, 20)
) -> Path:
    """
    Writes `report.html`, which needs no other file, no network and no scripts, and its pictures `report-*.png` beside
    it; those of an older report are replaced. What a run does not have has no section.

    Args:
        folder (`str` or `Path`): made where it does not exist.
        run ([`EvaluationRun`]): the evaluated model.
        baselines (`Sequence[EvaluationRun]`, *optional*): evaluated on the same users of the same split.
        ks (`Sequence[int]`, *optional*, defaults to `(5, 10, 20)`): cutoffs.

    Returns:
        `Path`: of `report.html`.

    Raises:
        ValueError: baselines of another split, of other users, or of other protocols; nothing was ranked; or a cutoff
            beyond the number of items.
    """
    check_baselines(run, baselines)
    ks = sorted(set(ks))
    models = _evaluate([run, *baselines], ks)
    sections = [
        _facts_section(models),
        quality_section(models, ks),
        group_section(models, ks),
        depth_section(models[0], ks),
        step_section(models, ks),
        factor_section(models[0]),
        list_section(models),
        latency_section(models[0]),
        training_section(models[0]),
    ]
    sections = [section for section in sections if section is not None]
    path = Path(folder) / REPORT_FILE
    write_page(path, models[0].label, "Evaluation report", sections)
    return path


def check_baselines(run: EvaluationRun, baselines: Sequence[EvaluationRun]) -> None:
    """
    Raises where a baseline says nothing about the run.

    Args:
        run ([`EvaluationRun`]): the evaluated model.
        baselines (`Sequence[EvaluationRun]`): what it is to be compared with.

    Raises:
        ValueError: on another split (both fingerprints are named), of other users, with no protocol in common, or
            with another part or kind of match.
    """
    if not run.ranks:
        raise ValueError(f"write_report: {run.label!r} holds no ranks; evaluate it with one protocol at least")
    for baseline in baselines:
        common = [protocol for protocol in run.ranks if protocol in baseline.ranks]
        if not common:
            raise ValueError(
                f"write_report: {baseline.label!r} was evaluated with {list(baseline.ranks)}, {run.label!r} with "
                f"{list(run.ranks)}; evaluate both with the same protocol"
            )
        for protocol in common:
            ours, theirs = run.ranks[protocol], baseline.ranks[protocol]
            check_comparable({repr(run.label): ours, f"the baseline {baseline.label!r}": theirs})
            part, other = (file.metadata.get("part") for file in (ours, theirs))
            if None not in (part, other) and part != other:
                raise ValueError(
                    f"write_report: {baseline.label!r} was evaluated on the part {other!r}, {run.label!r} on {part!r};"
                    " evaluate both on the same one"
                )


def _evaluate(runs: Sequence[EvaluationRun], ks: Sequence[int]) -> list[Evaluated]:
    """All models with their metrics, and labels that tell them apart."""
    models: dict[str, Evaluated] = {}
    for run in runs:
        check_cutoffs(ks, len(run.items.item_ids))
        name = shorten(run.label, LABEL_WIDTH) or "unnamed"
        same = sum(re.fullmatch(rf"{re.escape(name)}( \(\d+\))?", label) is not None for label in models)
        label = f"{name} ({same + 1})" if same else name
        summaries = {protocol: summarize(run, protocol, ks) for protocol in runs[0].ranks if protocol in run.ranks}
        models[label] = Evaluated(label, run, summaries)
    return list(models.values())


def _facts_section(models: Sequence[Evaluated]) -> Section:
    run = models[0].run
    facts = {
        "Users": " / ".join(dict.fromkeys(f"{len(file.user_ids):,}" for file in run.ranks.values())),
        "Items": f"{len(run.items.item_ids):,}",
        "Protocols": ", ".join(run.ranks),
    }
    for name, value in run.details.items():
        if text := _as_text(name, value):
            facts[title_of(_spelled_out(name))] = text
    parts = [Part(facts=facts)]
    if len(models) > 1:
        parts.append(Part("Compared with", _differences(models), tables=[_differing_details(models)]))
    return Section("What was evaluated", parts)


def _spelled_out(name: str) -> str:
    """The name of a detail for people."""
    return shorten(name.removeprefix("num_").replace("_", " "), LABEL_WIDTH)


def _as_text(name: str, value: Any) -> str:
    """A value of `run.json` for people; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_text(key, content)}" for key, content in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_as_text(name, content) for content in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and "seed" not in name:
        return f"{value:,}"
    return shorten(f"{value:g}" if isinstance(value, float) else str(value), FACT_WIDTH)


def _differing_details(models: Sequence[Evaluated]) -> Table:
    """What the details of the models do not have in common."""
    names = dict.fromkeys(name for model in models for name in model.run.details)
    texts = {name: [_as_text(name, model.run.details.get(name)) or NOTHING for model in models] for name in names}
    differing = {name: cells for name, cells in texts.items() if len(set(cells)) > 1}
    rows = {
        model.label: [shorten(cells[row], CELL_WIDTH) for cells in differing.values()]
        for row, model in enumerate(models)
    }
    columns = [_spelled_out(name) for name in differing]
    return text_table("In what the models differ", "Label", columns, rows)


def _differences(models: Sequence[Evaluated]) -> list[str]:
    """In what the baselines were evaluated otherwise."""
    first, sentences = models[0], []
    for model in models[1:]:
        found = []
        if (theirs := len(model.run.items.item_ids)) != (mine := len(first.run.items.item_ids)):
            found.append(f"ranks {theirs:,} items, {first.label} {mine:,}")
        if missing := [protocol for protocol in first.summaries if protocol not in model.summaries]:
            found.append(f"was not evaluated with {enumerate_names(missing)}")
        depths = {
            (model.run.ranks[protocol].metadata.get("num_beams"), first.run.ranks[protocol].metadata.get("num_beams"))
            for protocol in model.summaries
        }
        found += [
            f"{_search(theirs)}, {first.label} {_search(mine)}"
            for theirs, mine in sorted(depths, key=str)
            if theirs != mine
        ]
        if found:
            sentences.append(f"{model.label} {'; '.join(found)}.")
    return sentences


def _search(num_beams: int | None) -> str:
    return "ranks every item" if num_beams is None else f"searches with {num_beams} beams, beyond which all is a miss"


__all__ = ["check_baselines", "write_report"]
