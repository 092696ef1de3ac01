"""How the factors of trained stages are measured, kept and reported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


FACTORS_FILE = "factors.json"  # beside the model of a stage
# What tables call the statistics of `hf_latentrec.evaluation.FactorStatistics`.
FACTOR_COLUMNS = {
    "mean |corr|": "mean_abs_correlation",
    "|mean corr|": "abs_mean_correlation",
    "DS": "disentanglement_score",
    "gate entropy": "gate_entropy",
}
FACTOR_HEADER = (
    "Factors: mean over users of |cosine| of two; |mean cosine|; Disentanglement Score; entropy of the gates in nats"
)


def measure_stages(
    folder: Path, stages: Iterable[str], histories: list[list[str]], batch_size: int, device: Any
) -> None:
    """Writes the statistics of every stage whose model has factors into the stage's folder."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    from hf_latentrec.evaluation.factors import measure_factors

    for stage in stages:
        if AutoConfig.from_pretrained(folder / stage).reasoner_config.num_factors is None:
            continue
        model, processor = AutoModel.from_pretrained(folder / stage), AutoProcessor.from_pretrained(folder / stage)
        statistics = measure_factors(model.to(device).eval(), processor, histories, batch_size)
        (folder / stage / FACTORS_FILE).write_text(json.dumps(statistics.to_dict(), indent=2))


def read_factors(stage_folder: Path) -> dict[str, float] | None:
    """The row of a stage in a table of factors; `None` where there are not two factors to tell apart."""
    file = stage_folder / FACTORS_FILE
    statistics = json.loads(file.read_text()) if file.exists() else {}
    if statistics.get("num_factors", 0) < 2:
        return None
    return {column: statistics[name] for column, name in FACTOR_COLUMNS.items()}


def factor_table(folder: Path, labels: Mapping[str, str]) -> list[str]:
    """
    One row per stage with factors, in a list, which is empty where there is none.

    Args:
        folder (`Path`): of the whole run.
        labels (`Mapping[str, str]`): what tables call the stages, by name.
    """
    from hf_latentrec.evaluation import format_metric_table

    rows = {label: read_factors(folder / name) for name, label in labels.items()}
    rows = {label: row for label, row in rows.items() if row is not None}
    if not rows:
        return []
    return [f"{FACTOR_HEADER}\n\n{format_metric_table(rows, columns=list(FACTOR_COLUMNS), row_header='stage')}"]


def factor_rows(folders: Sequence[Path], stages: Iterable[str]) -> dict[str, list[dict[str, float]]]:
    """By stage, the rows of several runs, where all of them have one."""
    rows = {stage: [read_factors(folder / stage) for folder in folders] for stage in stages}
    return {stage: row for stage, row in rows.items() if None not in row}
