"""What a report is made of: models, and sections of text, pictures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        words (`set[str]`): columns of words; all others hold numbers, which are aligned on the right.
        notes (`list[str]`): what to know of the table, below it.
    """

    caption: str
    corner: str
    columns: list[str]
    groups: dict[str, dict[str, list[Cell]]]
    words: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """
    Args:
        name (`str`): of its file, without the suffix.
        figure (`matplotlib.figure.Figure`): the picture.
        caption (`str`): below it; none where it is empty.
        alt (`str`): what it shows, for those who do not see it.
    """

    name: str
    figure: Figure
    caption: str
    alt: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of a page, 96 to the inch."""
        width, height = self.figure.get_size_inches()
        return round(96 * width), round(96 * height)


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


def number_table(caption: str, corner: str, rows: Mapping[str, Mapping[str, Any]], **how: Any) -> Table:
    """
    A [`grouped_table`] of one group without a heading.

    Example:
        >>> table = number_table("Quality", "model", {"A": {"HR@1": 0.2}, "B": {"HR@1": 0.3}}, mark="column")
        >>> [(cell.text, cell.best) for (cell,) in table.groups[""].values()]
        [('0.2000', False), ('0.3000', True)]
    """
    return grouped_table(caption, corner, {"": rows}, **how)


def grouped_table(
    caption: str,
    corner: str,
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]],
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
        groups (`Mapping`): numbers by group, row and column, in the order to show; or tuples that begin with them.
        mark (`str`, *optional*, defaults to `""`): mark the largest of every `"column"` or `"row"` of a group, where
            they are not all the same. Those that look like the best are marked, too.
        note_of (`Callable`, *optional*): what stands behind the number of a row and column.
        write (`Callable`, *optional*, defaults to four decimals): the text of a column's value.
    """
    columns = list(dict.fromkeys(name for rows in groups.values() for row in rows.values() for name in row))
    cells: dict[str, dict[str, list[Cell]]] = {}
    for group, rows in groups.items():
        texts = {(row, name): write(name, value) for row, values in rows.items() for name, value in values.items()}
        best = _best(rows, texts, mark)
        cells[group] = {
            row: [Cell(texts.get((row, name), NOTHING), (row, name) in best, note_of(row, name)) for name in columns]
            for row in rows
        }
    return Table(caption, corner, columns, cells)


def text_table(
    caption: str, corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], numbers: Sequence[str] = ()
) -> Table:
    """A table of words; but the columns `numbers` are such, already written."""
    cells = {row: [Cell(text) for text in texts] for row, texts in rows.items()}
    return Table(caption, corner, list(columns), {"": cells}, words=set(columns) - set(numbers))


def title_of(protocol: str) -> str:
    """The name of a protocol as a caption."""
    return protocol[:1].upper() + protocol[1:]


def enumerate_names(names: Iterable[str]) -> str:
    """
    Example:
        >>> enumerate_names(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def name_group(name: str, group: Mapping[str, Any]) -> str:
    """A group of users with how many they are, which stays on one line."""
    return f"{name} ({group['num_users']:,}\N{NO-BREAK SPACE}users)"


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
        if len({texts[at] for at in line}) > 1:
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
    "enumerate_names",
    "grouped_table",
    "name_group",
    "number_table",
    "text_table",
    "title_of",
]
