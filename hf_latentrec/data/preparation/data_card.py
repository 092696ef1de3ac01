"""The data card of a prepared data set: front matter that the Hub reads, and text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined


TEMPLATE = "data_card.md.jinja"
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M", 1e8: "10M<n<100M"}
SPLIT_WORDS = {
    "leave_one_out": "Leave-one-out: each user's last event is the test target, the one before it the validation "
    "target; the others train.",
    "temporal": "By time: the targets (all events but each user's first) are sorted by timestamp and cut by count at "
    "{ratios}. Targets of equal time at a cut all go to the later part, so that every training example lies strictly "
    "before any validation target, and every validation target before any test target.",
    "published": "As the source brings it along.",
}


def data_card(summary: Mapping[str, Any], report: str, item_columns: Sequence[str]) -> str:
    """
    The card.

    Args:
        summary (`Mapping`):
            What stands in `preparation.json`.
        report (`str`):
            What each rule dropped, as a table.
        item_columns (`Sequence[str]`):
            The columns of the items.

    Returns:
        `str`: A README.md with front matter; `load_dataset` finds the configurations `events` and `items` in it.
    """
    configs = [
        {"config_name": name, "data_files": f"{name}.parquet", **({"default": True} if name == "events" else {})}
        for name in ("events", "items")
    ]
    rows = summary["counts"]["rows"]
    size = next((words for limit, words in SIZES.items() if rows < limit), "100M<n<1B")
    front = DatasetCardData(
        pretty_name=summary["source"]["name"],
        tags=["recommender-systems", "sequential-recommendation", "hf_latentrec"],
        size_categories=[size],
        configs=configs,
    )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # markdown, not HTML
    )
    environment.filters |= {"md": _one_line, "count": "{:,}".format}
    rules = summary["rules"]
    split = SPLIT_WORDS[rules["split"]].format(ratios=":".join(f"{ratio:g}" for ratio in rules["ratios"]))
    text = environment.get_template(TEMPLATE).render(
        **summary, table=report, split_words=split, item_columns=item_columns
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"


def _one_line(text: str) -> str:
    """A name as words of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "\\<").replace("`", "\\`")


__all__ = ["data_card"]
