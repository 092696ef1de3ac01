"""A text file, gzipped or not, in blocks of whole lines: bounded memory, and a clear word where a file was cut off."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm.auto import tqdm


GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLOCK_BYTES = 8 << 20
LONGEST_LINE = 64 << 20
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


class Block(NamedTuple):
    """One or more whole lines: their bytes, the number of the first one (from 1), and how many they are."""

    text: bytes
    first_line: int
    num_lines: int


def read_blocks(path: str | Path, block_bytes: int = BLOCK_BYTES, longest_line: int = LONGEST_LINE) -> Iterator[Block]:
    """
    The lines of a file in blocks, with a progress bar over the file.

    Whether the file is gzipped is seen from its first bytes, not from its name. A byte-order mark is dropped, and the
    last line gets a line break where it has none.

    Args:
        path (`str` or `Path`):
            The file.
        block_bytes (`int`, *optional*, defaults to 8 MiB):
            A block ends with the line in which so many bytes are reached; this bounds the memory.
        longest_line (`int`, *optional*, defaults to 64 MiB):
            A line of more bytes is an error: such a file does not consist of lines.

    Yields:
        [`Block`]: The next lines, each with its line break.

    Raises:
        `FileNotFoundError`: There is no such file.
        `ValueError`: A gzipped file is cut off or damaged, or a line is too long.

    Example:

    ```python
    >>> import gzip, tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.text_blocks import read_blocks
    >>> path = Path(tempfile.mkdtemp()) / "lines.gz"
    >>> _ = path.write_bytes(gzip.compress(b"one\\ntwo\\nthree"))
    >>> [tuple(block) for block in read_blocks(path, block_bytes=6)]
    [(b'one\\ntwo\\n', 1, 2), (b'three\\n', 3, 1)]

    ```
    """
    path = _existing(path)
    bar = tqdm(total=path.stat().st_size, desc=f"read {path.name}", unit="B", unit_scale=True)
    pending, size, next_line = [], 0, 1
    with path.open("rb") as file, bar:
        try:
            for chunk in _chunks(file, block_bytes):
                bar.update(file.tell() - bar.n)
                pending.append(chunk)
                size += len(chunk)
                if size < block_bytes:
                    continue
                text = b"".join(pending)
                end = text.rfind(b"\n") + 1
                if end:
                    block = Block(text[:end], next_line, text.count(b"\n"))
                    next_line += block.num_lines
                    yield block
                elif size > longest_line:
                    raise _too_long(path, next_line, longest_line, text)
                pending, size = [text[end:]], len(text) - end
        except GZIP_ERRORS as error:
            raise _cut_off(path, file, next_line - 1 + b"".join(pending).count(b"\n"), error) from error
        last = b"".join(pending)
        if last:
            last = last if last.endswith(b"\n") else last + b"\n"
            yield Block(last, next_line, last.count(b"\n"))


def first_bytes(path: str | Path, size: int = 65_536) -> bytes:
    """The first bytes of the text of a file, gzipped or not, without byte-order mark."""
    path = _existing(path)
    start = b""
    with path.open("rb") as file:
        try:
            for chunk in _chunks(file, size):
                start += chunk
                if len(start) >= size:
                    break
        except GZIP_ERRORS as error:
            raise _cut_off(path, file, start.count(b"\n"), error) from error
    return start[:size]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the folder and the name")
    return path


def _chunks(file: BinaryIO, largest: int) -> Iterator[bytes]:
    gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    text = gzip.GzipFile(fileobj=file) if gzipped else file
    chunk = text.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    while chunk or (chunk := text.read1(min(largest, 1 << 20))):  # `read1` gives what comes before a damaged place
        yield chunk
        chunk = b""


def _cut_off(path: Path, file: BinaryIO, num_lines: int, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: the gzip file is cut off or damaged after {num_lines} lines ({file.tell()} of {path.stat().st_size} "
        f"bytes read: {error}); fetch it again"
    )


def _too_long(path: Path, number: int, longest_line: int, text: bytes) -> ValueError:
    return ValueError(
        f"{path}: line {number} has more than {longest_line} bytes without a line break, it starts with "
        f"{text[:100].decode(errors='replace')!r}; write one entry per line"
    )


__all__ = ["BLOCK_BYTES", "Block", "first_bytes", "read_blocks"]
