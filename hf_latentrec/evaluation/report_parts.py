"""What a report is made of: models, and sections of text, pictures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .run import EvaluationRun


NOTHING = "–"


@dataclass(frozen=True)
class Evaluated:
    """
    A model of the report.

    Args:
        label (`str`): which no other model of the report has.
        run ([`EvaluationRun`]): its folder.
        summaries (`dict[str, dict]`): what [`summarize`] says of it, by protocol.
    """

    label: str
    run: EvaluationRun
    summaries: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """
    Args:
        text (`str`): as shown.
        best (`bool`): the best of its column.
        note (`str`): what stands behind it, such as stars.
    """

    text: str
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """
    Args:
        caption (`str`): what it shows.
        corner (`str`): what the first column holds.
        columns (`list[str]`): the others.
        groups (`dict[str, dict[str, list[Cell]]]`): cells by group of rows and row; the group `""` has no heading.
        numeric (`bool`): cells are numbers, which are aligned on the right.
        notes (`list[str]`): what to know of the table, below it.
    """

    caption: str
    corner: str
    columns: list[str]
    groups: dict[str, dict[str, list[Cell]]]
    numeric: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """
    Args:
        name (`str`): of its file, without the suffix.
        figure (`matplotlib.figure.Figure`): the picture.
        caption (`str`): below it.
        alt (`str`): what it shows, for those who do not see it.
    """

    name: str
    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Part:
    """
    Args:
        title (`str`): its heading; none where it is empty.
        text (`list[str]`): paragraphs.
        facts (`dict[str, str]`): what is known, by its name.
        pictures (`list[Picture]`): side by side where there is room.
        tables (`list[Table]`): the same.
    """

    title: str = ""
    text: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A page of the printed report, and an entry of its table of contents."""

    title: str
    parts: list[Part]

    @property
    def anchor(self) -> str:
        """What links to it."""
        return self.title.lower().replace(" ", "-")


def number_table(
    caption: str,
    corner: str,
    rows: Mapping[str, Mapping[str, Any]],
    *,
    mark: str = "",
    note_of: Callable[[str, str], str] = lambda row, column: "",
    write: Callable[[str, Any], str] = lambda column, value: f"{value:.4f}",
) -> Table:
    """
    A table of numbers; what a row lacks is a dash.

    Args:
        caption (`str`): what it shows.
        corner (`str`): what the first column holds.
        rows (`Mapping[str, Mapping[str, float]]`): by row and column, in the order to show; or tuples that begin with the
            number.
        mark (`str`, *optional*, defaults to `""`): mark the largest of every `"column"` or `"row"`, where there are
            several to choose from. Those that look the same are all marked.
        note_of (`Callable`, *optional*): what stands behind the number of a row and column.
        write (`Callable`, *optional*, defaults to four decimals): the text of a column's value.

    Example:
        >>> table = number_table("Quality", "model", {"A": {"HR@1": 0.2}, "B": {"HR@1": 0.3}}, mark="column")
        >>> [(cell.text, cell.best) for (cell,) in table.groups[""].values()]
        [('0.2000', False), ('0.3000', True)]
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    texts = {
        (row, column): write(column, value) for row, values in rows.items() for column, value in values.items()
    }
    best = _best(rows, texts, mark)
    cells = {
        row: [Cell(texts.get(at, NOTHING), at in best, note_of(*at)) for at in ((row, column) for column in columns)]
        for row in rows
    }
    return Table(caption, corner, columns, {"": cells})


def stack_tables(caption: str, tables: Mapping[str, Table]) -> Table:
    """Tables of the same columns as groups of rows of one, each under its name."""
    first = next(iter(tables.values()))
    return Table(caption, first.corner, first.columns, {name: table.groups[""] for name, table in tables.items()})


def text_table(caption: str, corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> Table:
    """A table of words."""
    cells = {row: [Cell(str(value)) for value in values] for row, values in rows.items()}
    return Table(caption, corner, list(columns), {"": cells}, numeric=False)


def _best(
    rows: Mapping[str, Mapping[str, Any]], texts: Mapping[tuple[str, str], str], mark: str
) -> set[tuple[str, str]]:
    if not mark:
        return set()
    lines: dict[str, list[tuple[str, str]]] = {}
    for row, column in texts:
        lines.setdefault(column if mark == "column" else row, []).append((row, column))
    best = set()
    for line in lines.values():
        if len(line) > 1:
            text = texts[max(line, key=lambda at: rows[at[0]][at[1]])]
            best |= {at for at in line if texts[at] == text}
    return best


__all__ = [
    "Cell",
    "Evaluated",
    "Part",
    "Picture",
    "Section",
    "Table",
    "number_table",
    "stack_tables",
    "text_table",
]
