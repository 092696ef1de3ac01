"""A catalog's semantic IDs on one page, as a JSON file, and in a few lines for a terminal.

The page is that of the evaluation's report; with it torch is imported. The pictures need the extra `plots`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..evaluation.report_page import write_page
from ..evaluation.report_parts import Part, Picture, Section, Table, text_table
from ..evaluation.shortening import shorten
from ..evaluation.tables import format_table
from .quality import IdQuality
from .quality_rows import (
    NOTHING,
    Rows,
    biggest_rows,
    category_rows,
    co_purchase_rows,
    collision_rows,
    error_rows,
    prefix_rows,
    use_rows,
)


PAGE_FILE, JSON_FILE = "quality.html", "quality.json"
WORDS = ("examples",)  # columns that hold text
FACT_WIDTH = 600  # letters
# By picture: what stands below it.
CAPTIONS = {
    "collisions": "Items that share their whole code with another.",
    "use": "Items of every code, by level. A curve that ends early leaves codes unused; the grey line is where all "
    "codes would be used alike.",
    "error": "What is left of the embeddings' variance after each code.",
    "categories": "How often two items have a category in common, by the codes that they share.",
    "purchases": "How many times as often the same users buy both of two items, with 95 % intervals over users. At "
    "the grey line: no more often.",
    "prefix sizes": "Items of every prefix, by its length.",
}


def write_quality_report(folder: str | Path, quality: IdQuality, label: str = "Semantic IDs") -> Path:
    """
    Writes `quality.html`, one page that needs no other file, no network and no scripts, its pictures `quality-*.png`,
    and all figures as `quality.json`. Without matplotlib the page says that pictures are missing.

    Args:
        folder (`str` or `Path`): made where it does not exist; files of an older report are replaced.
        quality ([`IdQuality`]): what was found.
        label (`str`, *optional*, defaults to `"Semantic IDs"`): the heading, such as the name of the data.

    Returns:
        `Path`: of `quality.html`.
    """
    folder = Path(folder)
    path = folder / PAGE_FILE
    charts, note = _draw(quality)
    sections = [section for section in _sections(quality, charts, note) if section is not None]
    write_page(path, label, "Quality of semantic IDs", sections)
    text = json.dumps(quality.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / JSON_FILE).write_text(text + "\n", encoding="utf-8")
    return path


def describe(quality: IdQuality) -> str:
    """
    The figures and warnings as plain text.

    Args:
        quality ([`IdQuality`]): what was found.

    Example:
        >>> import polars as pl
        >>> from hf_latentrec.semantic_ids.quality import quality_of_codes
        >>> codes = pl.DataFrame({"item_id": ["x", "y"], "semantic_id": [["<a_0>"], ["<a_1>"]]})
        >>> print(describe(quality_of_codes(codes)).split("\\n\\n")[0])
        Collisions         items that share their code  of all items  different codes  most items of a code
        ---------------------------------------------------------------------------------------------------
        codes as they are                            0         0.00%                2                     1
    """
    tables = [collision_rows(quality), use_rows(quality)]
    if quality.errors:
        tables.append(error_rows(quality))
    tables += [category_rows(categories) for categories in quality.categories if categories.agreements]
    if quality.co_purchases is not None:
        tables.append(co_purchase_rows(quality))
    parts = [format_table([[table.caption, *table.header[1:]], *table.rows]) for table in tables]
    return "\n\n".join([*parts, *(f"WARNING: {warning}" for warning in quality.warnings)])


def _draw(quality: IdQuality) -> tuple[Mapping[str, Any], str]:
    """The pictures, or why there are none."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}, "Pictures are missing: matplotlib is not installed; pip install 'hf_latentrec[plots]'."
    from .quality_plots import quality_charts

    return quality_charts(quality), ""


def _sections(quality: IdQuality, charts: Mapping[str, Any], note: str) -> Iterator[Section]:
    """What there is to show, in order."""
    yield Section("Summary", list(_summary(quality, note)))
    yield Section("Collisions", [_part(charts, "collisions", collision_rows(quality))])
    yield Section("Use of the codes", [_part(charts, "use", use_rows(quality))])
    if quality.errors:
        yield Section("Reconstruction", [_part(charts, "error", error_rows(quality))])
    if quality.categories:
        yield Section("Categories", _category_parts(quality, charts))
    if quality.co_purchases is not None:
        yield Section("Purchases", [_part(charts, "purchases", co_purchase_rows(quality))])
    tables = [_table(biggest_rows(prefixes, length)) for length, prefixes in quality.biggest.items() if prefixes]
    parts = [_part(charts, "prefix sizes", prefix_rows(quality)), Part("Biggest prefixes", tables=tables)]
    yield Section("Prefixes", parts if tables else parts[:1])


def _summary(quality: IdQuality, note: str) -> Iterator[Part]:
    """What was judged, and what is wrong with it."""
    facts = {"items": f"{quality.num_items:,}", "codes of each level": " × ".join(map(str, quality.level_sizes))}
    if quality.repeated_text is not None:
        facts["items whose text another has, too"] = f"{quality.repeated_text.num_items:,}"
    facts |= {name: _fact(value) for name, value in quality.details.items() if value not in (None, "", [])}
    yield Part(text=[note] if note else [], facts={name[:1].upper() + name[1:]: text for name, text in facts.items()})
    yield Part("Warnings", list(quality.warnings) or ["None."])


def _category_parts(quality: IdQuality, charts: Mapping[str, Any]) -> list[Part]:
    """A table for each column; for those that say nothing, why."""
    judged = [categories for categories in quality.categories if categories.agreements]
    silent = [
        f"{categories.column}: fewer than two items have one"
        + (f", but for {', '.join(categories.left_out)}, which more than half have." if categories.left_out else ".")
        for categories in quality.categories
        if not categories.agreements
    ]
    return [_part(charts, "categories", *map(category_rows, judged), text=silent)]


def _part(charts: Mapping[str, Any], name: str, *rows: Rows, text: list[str] | None = None) -> Part:
    """A picture, where there is one, and tables."""
    pictures = []
    if name in charts:
        alt = f"{CAPTIONS[name]} The tables have the numbers."
        pictures.append(Picture(name, charts[name], CAPTIONS[name], alt))
    return Part(text=text or [], pictures=pictures, tables=[_table(table) for table in rows])


def _table(rows: Rows) -> Table:
    """The same for the page."""
    corner, *columns = rows.header
    numbers = [column for column in columns if column not in WORDS]
    table = text_table(rows.caption, corner, columns, {row[0]: row[1:] for row in rows.rows}, numbers)
    table.notes.extend(rows.notes)
    return table


def _fact(value: Any) -> str:
    """A detail for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or NOTHING
    return shorten(str(value), FACT_WIDTH)


__all__ = ["describe", "write_quality_report"]
