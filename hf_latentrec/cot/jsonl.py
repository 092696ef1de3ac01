"""JSON Lines that survive a kill: rows are appended one by one, and a torn last line is repaired."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)


class RowWriter:
    """
    Appends rows to a JSON Lines file, each flushed as soon as it is written.

    Args:
        path (`str` or `Path`): the file; it and its folder are made with the first row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> with RowWriter(path) as rows:
        ...     rows.write({"user_id": "u1"})
        >>> path.read_text()
        '{"user_id": "u1"}\\n'
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.num_written = 0
        self._file = None

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row; when this returns, a kill of the process no longer loses it."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        self.num_written += 1

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def repair_last_line(path: str | Path) -> bool:
    """
    Completes the last line of a file whose writer was killed: a whole row gets its line break, a torn one is removed.

    Args:
        path (`str` or `Path`): a JSON Lines file; nothing happens where there is none.

    Returns:
        `bool`: whether a torn row was removed.
    """
    path = Path(path)
    if not path.exists():
        return False
    with path.open("r+b") as file:
        tail = _last_line(file)
        if tail.endswith(b"\n") or not tail:
            return False
        if _is_json(tail):
            file.seek(0, 2)
            file.write(b"\n")
            return False
        file.seek(-len(tail), 2)
        file.truncate()
    logger.warning("%s: its last row was torn (%d bytes) and is removed", path, len(tail))
    return True


def torn_row(path: str | Path) -> bytes:
    """What [`repair_last_line`] would remove from a file: a last line without a line break that is not JSON."""
    with Path(path).open("rb") as file:
        tail = _last_line(file)
    return b"" if tail.endswith(b"\n") or _is_json(tail) else tail


def read_rows(path: str | Path, *, pass_over_torn: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Line numbers (from 1) and rows of a JSON Lines file; blank lines are passed over.

    Args:
        path (`str` or `Path`): the file.
        pass_over_torn (`bool`, *optional*, defaults to `False`): pass over a [`torn_row`], too.

    Raises:
        ValueError: a line is not valid UTF-8 or not a JSON object.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if pass_over_torn and not line.endswith(b"\n"):
                    return
                raise ValueError(
                    f"{path}: line {number} is not JSON ({error}); correct or remove it. A last line that was torn by "
                    "a kill is repaired when the run that wrote it goes on"
                ) from error
            if not isinstance(row, dict):
                raise ValueError(
                    f'{path}: line {number}: expected an object like {{"user_id": ..., "cot": ...}}, found '
                    f"{type(row).__name__}; correct the line"
                )
            yield number, row


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _last_line(file, block: int = 65_536) -> bytes:
    """The bytes after the last line break but one: the last line, with its line break where it has one."""
    end = file.seek(0, 2)
    tail = b""
    while end > 0 and b"\n" not in tail[:-1]:
        start = max(0, end - block)
        file.seek(start)
        tail = file.read(end - start) + tail
        end = start
    return tail[tail[:-1].rfind(b"\n") + 1 :]


__all__ = ["RowWriter", "read_rows", "repair_last_line", "torn_row"]
