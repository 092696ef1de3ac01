"""JSON lines, one object per line; also objects that are written as Python literals, as some public files are."""

from __future__ import annotations

import ast
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from .line_frames import Field, LineFrames, Value
from .text_blocks import BLOCK_BYTES, first_bytes


def read_json_lines(
    path: str | Path,
    fields: Sequence[Field],
    *,
    literals: bool = False,
    max_broken: float = 0.01,
    block_bytes: int = BLOCK_BYTES,
) -> LineFrames:
    """
    The wanted fields of a file of JSON lines, gzipped or not, frame by frame.

    Args:
        path (`str` or `Path`):
            The file.
        fields (`Sequence[Field]`):
            What is wanted; other fields are passed over.
        literals (`bool`, *optional*, defaults to `False`):
            Whether lines that are no JSON may be Python literals, such as `{u'id': u'7', 'tags': ['a']}`. They are
            evaluated as literals only, nothing is executed.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines that may be broken or lack what is needed.
        block_bytes (`int`, *optional*, defaults to 8 MiB):
            How much is held in memory at once.

    Returns:
        [`LineFrames`]: To be iterated over.

    Raises:
        `FileNotFoundError`: There is no such file.
        `ValueError`: The file is an array, not lines.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.json_lines import read_json_lines
    >>> from hf_latentrec.data.sources.line_frames import Field
    >>> path = Path(tempfile.mkdtemp()) / "reviews.json"
    >>> _ = path.write_text('{"asin": "B1", "overall": 5.0, "text": "fine"}\\n{"asin": "B2", "overall": "4"}\\n')
    >>> fields = [Field("asin", "item_id", "id", "an item id"), Field("overall", "rating", "number")]
    >>> [frame.rows() for frame in read_json_lines(path, fields)]
    [[('B1', 5.0), ('B2', 4.0)]]

    ```
    """
    start = first_bytes(path).lstrip()
    if start.startswith(b"["):
        raise ValueError(
            f"{path}: the file is one array, it starts with {start[:80].decode(errors='replace')!r}; write one object "
            "per line, e.g. with jq -c '.[]'"
        )
    return LineFrames(path, fields, JsonFormat(fields, literals), max_broken, block_bytes)


class JsonFormat:
    """
    A [`LineFormat`]: an object per line, as JSON or (`literals`) as a Python literal.

    Numbers in place of text are their digits, so `7`, `7.0` and `"7"` are one id. Of a field that a line has twice,
    the first counts.
    """

    def __init__(self, fields: Sequence[Field], literals: bool = False):
        self.fields = tuple(fields)
        self.literals = literals
        self._renamed = {field.source: field.name for field in fields}
        self._schema = {field.source: field.raw_type for field in fields}
        self._uncertain = pl.any_horizontal(_is_uncertain(field) for field in fields)

    def parse_block(self, block: bytes) -> pl.DataFrame | None:
        try:
            raw = pl.read_ndjson(io.BytesIO(block), schema=self._schema)
        except pl.exceptions.PolarsError:
            return None
        raw = raw.rename(self._renamed)
        return None if raw.select(self._uncertain.any()).item() else raw

    def parse_line(self, line: str) -> dict[str, Value]:
        record = self._parse_object(line)
        if not isinstance(record, dict):
            raise ValueError("not an object")
        return {field.name: _READ[field.kind](record.get(field.source)) for field in self.fields}

    def _parse_object(self, line: str) -> Any:
        try:
            return json.loads(line, object_pairs_hook=_first_of_each)
        except (ValueError, RecursionError) as error:
            if not self.literals:
                raise ValueError("not JSON") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # '\d' in a literal
                return ast.literal_eval(line)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError("neither JSON nor a literal") from error


# polars writes what is no text as text, and half a surrogate pair as U+0000. Line by line tells them apart.
_TEXT_OF_OTHERS = r"^(?:true|false|\[(?s:.*)\]|\{(?s:.*)\})$|\x00"
_FRACTION = r"^-?[0-9]+\.[0-9]"


def _is_uncertain(field: Field) -> pl.Expr:
    if _READ[field.kind] is _scalar:  # what is no number or date is missing either way
        return pl.lit(False)
    if field.kind == "list":
        return pl.col(field.name).list.eval(pl.element().str.contains(_TEXT_OF_OTHERS)).list.any().fill_null(False)
    pattern = f"{_TEXT_OF_OTHERS}|{_FRACTION}" if field.kind == "id" else _TEXT_OF_OTHERS
    return pl.col(field.name).str.contains(pattern).fill_null(False)


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _id(value: Any) -> str | None:
    if isinstance(value, float) and not value.is_integer():
        return None
    if isinstance(value, str):
        try:
            return _pair_surrogates(value, "strict")
        except UnicodeDecodeError:
            return None
    return _scalar(value)


def _scalar(value: Any) -> str | None:
    if isinstance(value, str):
        return _pair_surrogates(value, "replace")
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    return " ".join(_texts(value)) if isinstance(value, (list, tuple)) else _scalar(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for element in value for text in _texts(element)]
    text = _scalar(value)
    return [] if text is None or text == "" else [text]


def _pair_surrogates(text: str, errors: str) -> str:
    """A literal may spell one character as two surrogates; a single one is no character at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors)
    return text


_READ = {"id": _id, "text": _text, "list": _texts, "number": _scalar, "milliseconds": _scalar, "date": _scalar}

__all__ = ["JsonFormat", "read_json_lines"]
