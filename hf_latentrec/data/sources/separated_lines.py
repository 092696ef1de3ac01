"""Lines of values between commas, without quotes, such as the ratings-only files of Amazon."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from .line_frames import Field, LineFrames, Value
from .text_blocks import BLOCK_BYTES, first_bytes


def read_separated_lines(
    path: str | Path,
    fields: Sequence[Field],
    *,
    header: bool,
    max_broken: float = 0.01,
    block_bytes: int = BLOCK_BYTES,
) -> LineFrames:
    """
    The values of a file of lines such as `A2SUAM1J3GNN3B,0000013714,5.0,1400457600`, gzipped or not, frame by frame.

    Args:
        path (`str` or `Path`):
            The file.
        fields (`Sequence[Field]`):
            With `header`, what is wanted; without, all columns in their order.
        header (`bool`):
            Whether the first line names the columns.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines that may be broken or lack what is needed.
        block_bytes (`int`, *optional*, defaults to 8 MiB):
            How much is held in memory at once.

    Returns:
        [`LineFrames`]: To be iterated over.

    Raises:
        `FileNotFoundError`: There is no such file.
        `ValueError`: The header lacks a field.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.line_frames import Field
    >>> from hf_latentrec.data.sources.separated_lines import read_separated_lines
    >>> path = Path(tempfile.mkdtemp()) / "ratings.csv"
    >>> _ = path.write_text("rating,user_id\\n5.0,A1\\n4.0,A2\\n")
    >>> fields = [Field("user_id", "user_id", "id", "a user id"), Field("rating", "rating", "number")]
    >>> [frame.rows() for frame in read_separated_lines(path, fields, header=True)]
    [[('A1', 5.0), ('A2', 4.0)]]

    ```
    """
    columns = [field.source for field in fields]
    if header:
        columns = first_bytes(path).partition(b"\n")[0].decode(errors="replace").strip().split(",")
        missing = [field.source for field in fields if field.source not in columns]
        if missing:
            raise ValueError(
                f"{path}: line 1: no column {missing[0]!r} in the header {','.join(columns)[:200]!r}; expected one "
                f"with {', '.join(field.source for field in fields)}"
            )
    line_format = SeparatedFormat(fields, columns)
    return LineFrames(path, fields, line_format, max_broken, block_bytes, has_header=header)


class SeparatedFormat:
    """A [`LineFormat`]: one value for each of `columns`, between commas."""

    def __init__(self, fields: Sequence[Field], columns: Sequence[str]):
        self._renamed = {field.source: field.name for field in fields}
        self._places = {field.name: columns.index(field.source) for field in fields}
        self._schema = dict.fromkeys(columns, pl.String)

    def parse_block(self, block: bytes) -> pl.DataFrame | None:
        try:
            raw = pl.read_csv(io.BytesIO(block), has_header=False, schema=self._schema, quote_char=None)
        except pl.exceptions.PolarsError:
            return None
        # A line with too few values ends in nulls, one with none of a value has a null in its place.
        return None if any(raw.null_count().row(0)) else raw.rename(self._renamed)

    def parse_line(self, line: str) -> dict[str, Value]:
        values = line.split(",")
        if len(values) != len(self._schema):
            raise ValueError(f"expected {len(self._schema)} values")
        return {name: values[place] for name, place in self._places.items()}


__all__ = ["SeparatedFormat", "read_separated_lines"]
