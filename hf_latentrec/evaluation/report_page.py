"""Sections as one page that needs no other file, no network and no scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .report_parts import Picture, Section


def write_page(path: str | Path, label: str, kind: str, sections: Sequence[Section]) -> None:
    """
    Writes `NAME.html`, and its pictures `NAME-*.png` beside it; those of an older page are replaced. Pictures need the
    extra `plots`, a page without them does not.

    Args:
        path (`str` or `Path`): of the page; its folder is made where it does not exist.
        label (`str`): the heading.
        kind (`str`): what the page is, such as `"Evaluation report"`.
        sections (`Sequence[Section]`): what it holds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.stem}-*.png"):
        old.unlink()
    parts = [part for section in sections for part in section.parts]
    sources = _save_pictures(path, [picture for part in parts for picture in part.pictures])
    path.write_text(_render(label, kind, sections, sources), encoding="utf-8")


def _save_pictures(path: Path, pictures: Sequence[Picture]) -> dict[str, str]:
    """Writes the pictures; their contents, as a page holds them, by name."""
    if not pictures:
        return {}
    from .plots import missing_glyphs_as_one_warning
    from .report_plots import to_png

    sources: dict[str, str] = {}
    files: set[str] = set()
    with missing_glyphs_as_one_warning(path.parent):
        for picture in pictures:
            stem = re.sub(r"[^a-z0-9]+", "-", picture.name.lower()).strip("-")
            file = f"{path.stem}-{stem}.png"
            while file in files:
                file = file.replace(".png", "-.png")
            files.add(file)
            png = to_png(picture.figure)
            path.with_name(file).write_bytes(png)
            sources[picture.name] = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return sources


def _render(label: str, kind: str, sections: Sequence[Section], sources: Mapping[str, str]) -> str:
    """The page; whatever labels and titles hold is text in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(label=label, kind=kind, sections=sections, sources=sources)


__all__ = ["write_page"]
