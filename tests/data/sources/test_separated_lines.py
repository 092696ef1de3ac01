"""Values between commas, without quotes."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path

import pytest

from hf_latentrec.data.sources.line_frames import Field
from hf_latentrec.data.sources.separated_lines import SeparatedFormat, read_separated_lines


FIELDS = (
    Field("user", "user_id", "id", "a user id"),
    Field("item", "item_id", "id", "an item id"),
    Field("rating", "rating", "number", "a rating"),
    Field("time", "timestamp", "milliseconds", "a time"),
)


def write(tmp_path: Path, text: str, name: str = "x.csv") -> Path:
    (tmp_path / name).write_bytes(text.encode())
    return tmp_path / name


def read(path: Path, header: bool = False, **options) -> tuple[list[tuple], dict[str, int]]:
    frames = read_separated_lines(path, FIELDS, header=header, **{"max_broken": 1, **options})
    return [row for frame in frames for row in frame.rows()], dict(frames.dropped)


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def slow(text: str) -> tuple[list[tuple], dict[str, int]]:
    rows, dropped = [], Counter()
    for line in text.split("\n"):
        values = line.strip().split(",")
        if values == [""]:
            continue
        if len(values) != 4:
            dropped["broken lines"] += 1
            continue
        row = (values[0] or None, values[1] or None, number(values[2]), number(values[3]))
        reasons = ("a user id", "an item id", "a rating", "a time")
        missing = [what for what, value in zip(reasons, row, strict=True) if value is None]
        if missing:
            dropped[f"lines without {missing[0]}"] += 1
        else:
            rows.append((*row[:3], row[3] / 1000))
    return rows, dict(dropped)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 20])
def test_random_lines_are_read_as_by_a_slow_loop(tmp_path: Path, seed: int, block_bytes: int) -> None:
    random.seed(seed)
    odd = ["", "a,b,1", "a,b,1,2,3", ",b,1,2", "a,,1,2", "a,b,x,2", "a,b,1,", '"a",#b,1.5,2', "a,b,1,2e3", "é,b,1,7"]
    good = [f"A{random.randrange(9)},00{random.randrange(99)},{random.randrange(1, 6)}.0,{random.randrange(10**12)}"]
    text = "".join(random.choice(odd + good * 20) + random.choice(["\n", "\n", "\r\n"]) for _ in range(200))
    rows, dropped = read(write(tmp_path, text), block_bytes=block_bytes)
    assert (rows, dropped) == slow(text)
    assert len(rows) > 50 and len(dropped) == 5


def test_clean_lines_are_parsed_at_once() -> None:
    columns = SeparatedFormat(FIELDS, ["user", "item", "rating", "time"])
    assert columns.parse_block(b"a,0b,1.0,2\n").rows() == [("a", "0b", "1.0", "2")]
    for odd in (b"a,b,1\n", b"a,b,1,2,3\n", b"\n", b"a,,1,2\n"):
        assert columns.parse_block(b"a,b,1,2\n" + odd) is None


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_header_gives_the_order(tmp_path: Path, gzipped: bool, block_bytes: int) -> None:
    text = "\ufefftime,item,user,rating,history\r\n1500,i,u,4,i1 i2\r\n1501,j,u,5,\r\n".encode()
    (tmp_path / "x.csv").write_bytes(gzip.compress(text) if gzipped else text)
    rows, dropped = read(tmp_path / "x.csv", header=True, block_bytes=block_bytes)
    assert rows == [("u", "i", 4.0, 1.5), ("u", "j", 5.0, 1.501)] and dropped == {}


def test_a_header_without_a_wanted_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x.csv: line 1: no column 'item' in the header 'user,asin,rating,time'"):
        read(write(tmp_path, "user,asin,rating,time\nu,i,1,2\n"), header=True)


def test_nothing_after_the_header(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x.csv: no lines in it"):
        read(write(tmp_path, "user,item,rating,time\n"), header=True)


def test_the_first_broken_line_after_a_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of 2 lines .*\(first line 3: 'torn'\)"):
        read(write(tmp_path, "user,item,rating,time\nu,i,1,2\ntorn\n"), header=True, max_broken=0)
