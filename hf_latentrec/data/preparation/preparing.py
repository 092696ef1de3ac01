"""Raw interactions -> a prepared data set in a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from datasets import DatasetDict

from ..loading import load_data
from ..schema import RecData, to_dataset
from ..sources.raw_data import RawData
from ..splitting import split_published
from .applying import apply_rules
from .coding import CodedEvents, code_events
from .data_card import data_card
from .fingerprint import events_fingerprint, file_sha256
from .items import clean_items, describe_items, title_words
from .marking import mark_split, split_sizes
from .report import Counts, RuleOutcome, format_report
from .rules import PreparationRules
from .writing import SUMMARY_FILE, whole_folder, write_prepared


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """
    A prepared data set.

    Args:
        folder (`Path`):
            Where it is: `events.parquet`, `items.parquet`, `preparation.json` and `README.md`, its data card.
        name (`str`):
            The name of the source.
        source (`Counts`):
            Rows, users and items before any rule.
        report (`tuple[RuleOutcome, ...]`):
            What each rule dropped, in order.
        counts (`Counts`):
            What is left.
        splits (`Mapping[str, int]`):
            Targets for `train`, `validation` and `test`.
        fingerprint (`str`):
            Names the prepared events ([`events_fingerprint`]).
    """

    folder: Path
    name: str
    source: Counts
    report: tuple[RuleOutcome, ...]
    counts: Counts
    splits: Mapping[str, int]
    fingerprint: str

    def data(self) -> RecData:
        """The interactions and items, as [`load_data`] reads them from the folder."""
        return load_data(self.folder)

    def examples(self, max_history: int = 20) -> DatasetDict:
        """
        The examples `user_id, history, target` for `train`, `validation` and `test`.

        Args:
            max_history (`int`, *optional*, defaults to 20):
                A training history keeps its newest `max_history` items; validation and test histories are whole.
        """
        return split_published(self.data(), max_history)

    def table(self) -> str:
        """The report as a Markdown table."""
        return format_report(self.source, self.report)


def prepare(
    raw: RawData,
    rules: PreparationRules,
    output_dir: str | Path,
    *,
    overwrite: bool = False,
    examples_max_history: int | None = None,
) -> Preparation:
    """
    Apply rules to raw interactions, split what is left, and write it to a folder that [`load_data`] reads.

    The same data and rules give the same bytes. Users and items are in the order of their ids, the events of a user
    in that of their times; events of one user at one time keep the order of the files.

    Args:
        raw ([`RawData`]):
            What a reader of `hf_latentrec.data.sources` returns.
        rules ([`PreparationRules`]):
            What is kept, and the split.
        output_dir (`str` or `Path`):
            The folder. It appears when all is done.
        overwrite (`bool`, *optional*, defaults to `False`):
            Replace an earlier prepared data set there. Other files beside it are an error.
        examples_max_history (`int`, *optional*):
            Also write the examples, with training histories of at most so many items, to `examples/` in the folder:
            one parquet file for each split.

    Returns:
        [`Preparation`]: Counts, what each rule dropped, and the way to the data.

    Raises:
        `ValueError`: The data are not sound, a rule needs what the source lacks, nothing is left (with what each rule
            dropped), or the folder is not empty (with
            `overwrite`: holds more than a prepared data set).

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> import polars as pl
    >>> from hf_latentrec.data.preparation import PreparationRules, prepare
    >>> from hf_latentrec.data.sources.raw_data import RawData
    >>> rows = {"user_id": ["v", *"uuuuvvv"], "item_id": list("baabcaca"), "timestamp": range(10**9, 10**9 + 8)}
    >>> events = pl.LazyFrame(rows).with_columns(pl.col("timestamp").cast(pl.Float64))
    >>> raw = RawData(events, items=None, name="example", files=())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prepared = prepare(raw, PreparationRules(k_core=2), Path(folder, "example"))
    ...     prepared.examples()["test"][0]
    {'user_id': 'u', 'history': ['a', 'a', 'b'], 'target': 'c'}
    >>> prepared.counts, prepared.splits
    (Counts(rows=8, users=2, items=3), {'train': 2, 'validation': 2, 'test': 2})

    ```
    """
    if examples_max_history is not None and examples_max_history < 1:
        raise ValueError(f"examples_max_history={examples_max_history}; a history needs at least 1 item")
    with whole_folder(Path(output_dir), overwrite) as folder:
        events = code_events(raw)
        source = Counts.of(events)
        needs_titles = rules.require_title or rules.max_title_words is not None
        words_I = title_words(describe_items(raw, events.item_ids)) if needs_titles else None
        events, report = apply_rules(events, rules, words_I)
        events = events.dense()
        split_E = mark_split(events, rules)
        logger.info("writing %s", output_dir)
        write_prepared(events, split_E, folder, examples_max_history)
        items, described = _write_items(raw, events, folder / "items.parquet")
        splits = dict(zip(("train", "validation", "test"), split_sizes(events, split_E), strict=True))
        prepared = Preparation(
            Path(output_dir).resolve(),
            raw.name,
            source,
            tuple(report),
            Counts.of(events),
            splits,
            events_fingerprint(events, split_E),
        )
        summary = _summary(prepared, raw, rules) | {"items": described, "time_span": _time_span(events)}
        (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(data_card(summary, prepared.table(), list(items.columns)), encoding="utf-8")
    return prepared


def _write_items(raw: RawData, events: CodedEvents, path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    items, num_changed = clean_items(describe_items(raw, events.item_ids))
    to_dataset(items).to_parquet(path)
    known = events.item_ids.is_in(raw.items["item_id"].implode()).sum() if raw.items is not None else 0
    titled = int((items["title"] != "").sum()) if "title" in items.columns else 0
    return items, {"described": int(known), "with_title": titled, "titles_changed_by_cleaning": num_changed}


def _summary(prepared: Preparation, raw: RawData, rules: PreparationRules) -> dict[str, Any]:
    """All that is said of a prepared data set: no paths and no dates, so that it is the same when run again."""
    files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in raw.files]
    return {
        "source": {"name": raw.name, "files": files, "left_out_while_reading": raw.dropped, **asdict(prepared.source)},
        "rules": asdict(rules),
        "report": [asdict(outcome) for outcome in prepared.report],
        "counts": asdict(prepared.counts),
        "sparsity": prepared.counts.sparsity,
        "splits": dict(prepared.splits),
        "fingerprint": prepared.fingerprint,
    }


def _time_span(events: CodedEvents) -> list[str] | None:
    if events.time_E is None:
        return None
    return [datetime.fromtimestamp(float(t), UTC).isoformat() for t in (events.time_E.min(), events.time_E.max())]


__all__ = ["Preparation", "prepare"]
