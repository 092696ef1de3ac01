"""A model card out of facts: front matter that the Hub reads, and text for people."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .card_facts import FACTS_FILE, ITEM_IDS, CardFacts
from .snippets import pipeline_snippet, snippet
from .systems import SYSTEMS


CARD_FILE = "README.md"
TEMPLATE = "model_card.md.jinja"
TASK = "next-item-recommendation"
LIBRARY = "hf_latentrec"
TAGS = ("recommender-systems", "sequential-recommendation")
_METRIC = re.compile(r"(HR|NDCG|Recall|MRR|MAP|Precision)@(\d+)")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#&$]|:(?=//)|(?<=\bwww)\.)")
_MARK = "<!-- Written by hf_latentrec, {digest}: an edited card is not written over. -->\n"


def plain(text: Any) -> str:
    """A name or title on one line, without characters that cannot be seen, or that turn the text around."""
    spaced = re.sub(r"\s+", " ", str(text))
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C").strip()


def markdown(text: Any) -> str:
    r"""
    Any text as words of a markdown document: no markup, link, HTML or table cell can begin in it.

    Example:
        >>> print(markdown("a|b <img src=x>\n# see [this](http://x.y)"))
        a\|b \<img src=x\> \# see \[this\](http\://x.y)
    """
    return _MARKDOWN.sub(r"\\\1", plain(text))


def cell(value: Any) -> str:
    """A value in a table: metrics with four decimals, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else markdown(value)


def setting(value: Any) -> str:
    """A hyperparameter in a table, as it is written in JSON."""
    return markdown(value if isinstance(value, str) else json.dumps(value, default=str))


def metric_names(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Metrics with a cutoff that rows have, in the order in which they are met; then the mean number of thoughts."""
    names = dict.fromkeys(name for metrics in rows.values() for name in metrics if _METRIC.fullmatch(name))
    thoughts = dict.fromkeys(name for metrics in rows.values() for name in metrics if name.startswith("mean "))
    return [*names, *thoughts]


def eval_results(facts: CardFacts) -> list[EvalResult]:
    """The test results as the Hub's `model-index` has them: one entry per setting, one metric per cutoff."""
    data = facts.data
    dataset_name = plain(data.name or "not stated")
    slug = re.sub(r"[^a-z0-9]+", "-", dataset_name.lower()).strip("-") or "data"
    results = []
    for name, metrics in facts.results.items():
        protocol = name.split(", ")[-1]
        told = {"protocol": protocol, "split": data.split, "split_fingerprint": data.split_fingerprint}
        for metric, value in metrics.items():
            if not (match := _METRIC.fullmatch(metric)):
                continue
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="Next-item recommendation",
                    dataset_type=slug,
                    dataset_name=dataset_name,
                    dataset_config=plain(name),
                    dataset_split="test",
                    dataset_args={key: known for key, known in told.items() if known},
                    metric_type=f"{match[1].lower()}_at_{match[2]}",
                    metric_name=f"{metric}, {plain(protocol)}",
                    metric_value=value,
                    metric_args={"k": int(match[2]), "protocol": plain(protocol)},
                )
            )
    return results


def front_matter(facts: CardFacts) -> ModelCardData:
    """The metadata of a card, which the Hub's own library writes as YAML."""
    system = SYSTEMS.get(facts.system or "")
    tags = dict.fromkeys([*TAGS, *(system.tags if system else ()), *map(plain, facts.tags)])
    results = eval_results(facts)
    return ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name=LIBRARY,
        pipeline_tag="other",
        tags=list(tags),
        base_model=facts.base_model,
        datasets=facts.datasets or None,
        metrics=[name for name in metric_names(facts.results) if _METRIC.fullmatch(name)] or None,
        model_name=plain(title_of(facts)) if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )


def title_of(facts: CardFacts) -> str:
    """The heading: as given, or the system and its data."""
    if facts.title:
        return facts.title
    system = SYSTEMS.get(facts.system or "")
    name = system.name if system else (facts.model_class or "A recommender")
    return f"{name} on {facts.data.name}" if facts.data.name else name


def render_card(facts: CardFacts, location: str, remote_code: bool = False) -> str:
    """
    The text of a card.

    Args:
        facts ([`CardFacts`]): what it says. Titles and names may hold anything.
        location (`str`): what the snippet loads: a folder, or a repository of the Hub.
        remote_code (`bool`, *optional*, defaults to `False`): whether the model's code travels with it, so that
            transformers alone can load it.

    Returns:
        `str`: `README.md`.

    Example:
        >>> card = render_card(CardFacts(title="My <b>", system="lares"), "user/model")
        >>> card.splitlines()[0], r"# My \\<b\\>" in card
        ('---', True)
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(md=markdown, cell=cell, setting=setting)
    system = SYSTEMS.get(facts.system or "")
    text = environment.get_template(TEMPLATE).render(
        facts=facts,
        title=title_of(facts),
        system=system,
        citation=system.bibtex(facts.system) if system else None,
        snippets=[snippet(facts, location, code) for code in (False, True)],
        pipeline_snippet=pipeline_snippet(facts, location),
        remote_code=remote_code,
        item_ids=facts.kind == ITEM_IDS,
        columns=metric_names(facts.results),
        validation_columns=metric_names({"": facts.validation}),
    )
    return f"---\n{front_matter(facts).to_yaml()}\n---\n\n{text.rstrip()}\n"


def write_card(folder: str | Path, facts: CardFacts, location: str | None = None) -> None:
    """
    Writes `README.md` and, so that the card can be written again with more, `card_facts.json`.

    Args:
        folder (`str` or `Path`): of a saved model; its `config.json` tells whether the code travels with it.
        facts ([`CardFacts`]): what the card says.
        location (`str`, *optional*): what the snippet loads; this folder if not given.
    """
    folder = Path(folder)
    facts.save(folder)
    text = render_card(facts, location or str(folder), carries_code(folder))
    (folder / CARD_FILE).write_text(text + _MARK.format(digest=_digest(text)), encoding="utf-8")


def carries_code(folder: Path) -> bool:
    """Whether the code of a saved model is in its folder."""
    path = folder / "config.json"
    return path.is_file() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))


def was_edited(folder: str | Path) -> bool:
    """Whether somebody wrote or changed the card of a folder by hand."""
    path = Path(folder, CARD_FILE)
    if not path.is_file():
        return False
    text, _, mark = path.read_text(encoding="utf-8").rpartition("<!-- ")
    return f"<!-- {mark}" != _MARK.format(digest=_digest(text))


def add_results(card: str, facts: CardFacts) -> str:
    """A card that was written by hand, with the results of an evaluation in its front matter; its text stays."""
    edited = ModelCard(card, ignore_metadata_errors=False)
    edited.data.eval_results = eval_results(facts)
    edited.data.model_name = edited.data.model_name or plain(title_of(facts))
    return str(edited)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = ["CARD_FILE", "FACTS_FILE", "add_results", "markdown", "render_card", "was_edited", "write_card"]
