"""Lines of text -> frames of the wanted fields, with every line that gives none of them counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from .text_blocks import BLOCK_BYTES, Block, read_blocks
from .times import to_seconds


logger = logging.getLogger(__name__)

BROKEN = "broken lines"
HOPELESS_LINES = 1000  # a file whose first lines are all broken is not read to its end

Value = str | list[str] | None


@dataclass(frozen=True)
class Field:
    """
    A field of a line that is wanted.

    Args:
        source (`str`):
            What the file calls it.
        name (`str`):
            What the column is called.
        kind (`str`):
            `"id"` (text or a whole number, kept as text), `"text"`, `"list"` (of text; lists in it are flattened, one
            text is a list of one), `"number"` (also as text; float64), `"milliseconds"` or `"date"` (such as
            `2018-07-07 22:09:11` or `2018-07-07`, UTC; both become float64 seconds since 1970, see [`to_seconds`]).
        needed (`str`, *optional*):
            What it is, with its article. A line without it is left out and counted as `"lines without " + needed`.
            Where it is not given, what is missing becomes `""` or `[]`.
    """

    source: str
    name: str
    kind: Literal["id", "text", "list", "number", "milliseconds", "date"]
    needed: str | None = None

    @property
    def raw_type(self) -> pl.DataType:
        """The type before conversion: a value is text or a list of text."""
        return pl.List(pl.String) if self.kind == "list" else pl.String()

    def convert(self) -> pl.Expr:
        """Raw text -> the column; null where it is missing or of another kind."""
        text = pl.col(self.name)
        if self.kind == "id":
            return pl.when(text.str.strip_chars() != "").then(text)
        if self.kind == "number":
            number = text.cast(pl.Float64, strict=False)
            return pl.when(number.is_finite()).then(number)
        if self.kind in ("milliseconds", "date"):
            seconds = to_seconds(text, "ms" if self.kind == "milliseconds" else "text")
            return pl.when(seconds.is_finite()).then(seconds)
        if self.kind == "list":
            return text.list.eval(pl.element().filter(pl.element() != "")).fill_null([])
        return text.fill_null("")


class LineFormat(Protocol):
    """How lines are written. Both ways of reading give raw values, see [`Field.raw_type`], by the columns' names."""

    def parse_block(self, block: bytes) -> pl.DataFrame | None:
        """All lines at once; `None` where it is not certain that line by line gives the same."""

    def parse_line(self, line: str) -> dict[str, Value]:
        """One line; `ValueError` where it cannot be read."""


class LineFrames:
    """
    The wanted fields of a file of lines, as frames, in the order of the file.

    A block of lines is parsed at once. Where that does not go through, or a line lacks what is needed, the block is
    read again line by line, so that the lines that are left out are counted exactly. Blank lines are passed over.

    Args:
        path (`str` or `Path`):
            The file, gzipped or not.
        fields (`Sequence[Field]`):
            What is wanted.
        line_format ([`LineFormat`]):
            How the lines are written.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines that may be left out. More are an error, fewer are counted in `dropped`, with a warning.
        block_bytes (`int`, *optional*, defaults to 8 MiB):
            The size of a block.
        has_header (`bool`, *optional*, defaults to `False`):
            Whether the first line is passed over.

    Iterating raises `ValueError` where the file is empty or more lines than that are left out. `dropped`
    (`dict[str, int]`) counts these by reason; it is complete after the last frame.
    """

    def __init__(
        self,
        path: str | Path,
        fields: Sequence[Field],
        line_format: LineFormat,
        max_broken: float = 0.01,
        block_bytes: int = BLOCK_BYTES,
        has_header: bool = False,
    ):
        if not 0 <= max_broken <= 1:
            raise ValueError(f"max_broken={max_broken} is not a share; use a number from 0 to 1, such as 0.01")
        self.path = Path(path)
        self.fields = tuple(fields)
        self.line_format = line_format
        self.max_broken = max_broken
        self.block_bytes = block_bytes
        self.has_header = has_header
        self._start()

    def _start(self) -> None:
        self.num_lines = 0  # without blank ones
        self.dropped: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self._start()
        for block in read_blocks(self.path, self.block_bytes):
            if self.has_header and block.first_line == 1:
                block = Block(block.text.partition(b"\n")[2], 2, block.num_lines - 1)
            frame = self._read_at_once(block)
            if frame is None:
                frame = self._read_by_line(block)
            if self.num_lines >= HOPELESS_LINES and self.dropped.total() == self.num_lines:
                raise self._too_many_broken()
            yield frame
        if self.num_lines == 0:
            raise ValueError(f"{self.path}: no lines in it ({self.path.stat().st_size} bytes); fetch it again")
        if self.dropped.total() > self.max_broken * self.num_lines:
            raise self._too_many_broken()
        if self.dropped:
            logger.warning("%s: %s, they are left out", self.path, self._what_was_dropped())

    def _read_at_once(self, block: Block) -> pl.DataFrame | None:
        raw = self.line_format.parse_block(block.text)
        if raw is None or raw.height != block.num_lines:
            return None
        frame = raw.select(field.convert() for field in self.fields)
        if any(frame[field.name].null_count() for field in self.fields if field.needed):
            return None
        self.num_lines += raw.height
        return frame

    def _read_by_line(self, block: Block) -> pl.DataFrame:
        columns: dict[str, list[Value]] = {field.name: [] for field in self.fields}
        parsed = []
        for number, line in enumerate(block.text.split(b"\n"), start=block.first_line):
            if not line.strip():
                continue
            self.num_lines += 1
            try:
                values = self.line_format.parse_line(line.decode().strip())
            except ValueError:  # UnicodeDecodeError is one, too
                self._drop(BROKEN, number, line)
                continue
            parsed.append((number, line))
            for name, column in columns.items():
                column.append(values[name])
        schema = {field.name: field.raw_type for field in self.fields}
        frame = pl.DataFrame(columns, schema=schema).select(field.convert() for field in self.fields)
        return self._drop_incomplete(frame, parsed)

    def _drop_incomplete(self, frame: pl.DataFrame, parsed: list[tuple[int, bytes]]) -> pl.DataFrame:
        reasons = [
            pl.when(pl.col(field.name).is_null()).then(pl.lit(f"lines without {field.needed}"))
            for field in self.fields
            if field.needed
        ]
        reason = frame.with_columns(_=pl.coalesce(*reasons, pl.lit(None, pl.String)))["_"]
        for row in reason.is_not_null().arg_true():
            self._drop(reason[row], *parsed[row])
        return frame.filter(reason.is_null())

    def _drop(self, reason: str, number: int, line: bytes) -> None:
        self.dropped[reason] += 1
        if self.dropped[reason] == 1:
            start = line[:200].decode(errors="replace").strip()
            self._examples[reason] = f"line {number}: {start!r}"

    def _what_was_dropped(self) -> str:
        reasons = (f"{reason}: {count} (first {self._examples[reason]})" for reason, count in self.dropped.items())
        return f"{self.dropped.total()} of {self.num_lines} lines cannot be used ({'; '.join(reasons)})"

    def _too_many_broken(self) -> ValueError:
        return ValueError(
            f"{self.path}: {self._what_was_dropped()}, more than the share of {self.max_broken}; fetch the file "
            "again, check that the reader fits it, or pass a larger max_broken"
        )


__all__ = ["Field", "LineFormat", "LineFrames"]
