"""Blocks of whole lines, from plain and gzipped files."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from hf_latentrec.data.sources.text_blocks import first_bytes, read_blocks


def write(path: Path, text: bytes, gzipped: bool) -> Path:
    path.write_bytes(gzip.compress(text) if gzipped else text)
    return path


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 7, 50, 10_000])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
def test_the_blocks_are_the_file(tmp_path: Path, gzipped: bool, block_bytes: int, ending: bytes) -> None:
    text = b"\n".join(b"x" * random.randrange(20) for _ in range(100)) + b"x" + ending
    blocks = list(read_blocks(write(tmp_path / "lines", text, gzipped), block_bytes))
    assert b"".join(block.text for block in blocks) == text + (b"" if ending else b"\n")
    assert all(block.text.endswith(b"\n") and block.num_lines == block.text.count(b"\n") for block in blocks)
    firsts = [1]
    for block in blocks:
        firsts.append(firsts[-1] + block.num_lines)
    assert [block.first_line for block in blocks] == firsts[:-1]
    if block_bytes == 1:
        assert len(blocks) > 10


@pytest.mark.parametrize("name", ["lines.gz", "lines.json"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_the_bytes_say_whether_it_is_gzip_not_the_name(tmp_path: Path, name: str, gzipped: bool) -> None:
    path = write(tmp_path / name, b"one\ntwo\n", gzipped)
    assert [tuple(block) for block in read_blocks(path)] == [(b"one\ntwo\n", 1, 2)]
    assert first_bytes(path, 5) == b"one\nt"


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, gzipped: bool) -> None:
    path = write(tmp_path / "lines", b"\xef\xbb\xbf{}\n", gzipped)
    assert [block.text for block in read_blocks(path)] == [b"{}\n"]
    assert first_bytes(path) == b"{}\n"


def test_a_cut_off_gzip_file(tmp_path: Path) -> None:
    text = b"".join(b"%d %d\n" % (number, random.getrandbits(64)) for number in range(20_000))
    packed = gzip.compress(text)
    path = tmp_path / "lines.gz"
    path.write_bytes(packed[: len(packed) // 2])
    seen = b""
    with pytest.raises(
        ValueError, match=r"lines.gz: the gzip file is cut off .* after (\d+) lines .*fetch it"
    ) as error:
        for block in read_blocks(path, block_bytes=10_000):
            seen += block.text
    num_lines = int(str(error.value).split(" after ")[1].split()[0])
    assert text.startswith(seen) and len(seen) > len(text) // 3
    assert seen.count(b"\n") <= num_lines < 12_000


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(random.getrandbits(8) for _ in range(100_000))))
    packed[50_000] ^= 0xFF
    (tmp_path / "lines.gz").write_bytes(packed)
    with pytest.raises(ValueError, match="cut off or damaged"):
        list(read_blocks(tmp_path / "lines.gz"))
    (tmp_path / "short.gz").write_bytes(packed[:5])
    for read in (first_bytes, lambda path: list(read_blocks(path))):
        with pytest.raises(ValueError, match="cut off or damaged after 0 lines"):
            read(tmp_path / "short.gz")


def test_a_missing_file(tmp_path: Path) -> None:
    for read in (first_bytes, lambda path: list(read_blocks(path))):
        with pytest.raises(FileNotFoundError, match="none.json: no such file"):
            read(tmp_path / "none.json")


def test_a_file_without_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "lines", b"one\n" + b"x" * 5000, gzipped=False)
    with pytest.raises(ValueError, match="line 2 has more than 1000 bytes without a line break, it starts with 'xxx"):
        list(read_blocks(path, block_bytes=100, longest_line=1000))
    assert len(list(read_blocks(path, block_bytes=100))) == 2
