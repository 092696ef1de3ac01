"""JSON lines against a slow loop of `json.loads`, with every oddity that public files have."""

from __future__ import annotations

import gzip
import json
import logging
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from hf_latentrec.data.sources.json_lines import JsonFormat, read_json_lines
from hf_latentrec.data.sources.line_frames import Field


FIELDS = (
    Field("user", "user_id", "id", "a user id"),
    Field("asin", "item_id", "id", "an item id"),
    Field("overall", "rating", "number"),
    Field("time", "timestamp", "number", "a time"),
    Field("title", "title", "text"),
    Field("tags", "tags", "list"),
)
GOOD = {"user": "u", "asin": "i", "overall": 5.0, "time": 7, "title": "t", "tags": ["a"]}


def write(tmp_path: Path, lines: list[str], name: str = "x.json") -> Path:
    path = tmp_path / name
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    return path


def read(path: Path, **options) -> tuple[list[dict], dict[str, int]]:
    frames = read_json_lines(path, FIELDS, **{"max_broken": 1, **options})
    return [row for frame in frames for row in frame.iter_rows(named=True)], dict(frames.dropped)


def number(value: object) -> float | None:
    """What a slow loop takes for a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        value = float(value)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def identity(value: object) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return str(int(value))


def words(value: object) -> list[str]:
    if isinstance(value, list):
        return sum((words(element) for element in value), [])
    if isinstance(value, (bool, dict)) or value in (None, ""):
        return []
    return [str(int(value)) if isinstance(value, float) and value == int(value) else str(value)]


def slow(path: Path) -> tuple[list[dict], dict[str, int]]:
    rows, dropped = [], Counter()
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
            if not isinstance(record, dict):
                raise ValueError
        except ValueError:
            dropped["broken lines"] += 1
            continue
        row = {
            "user_id": identity(record.get("user")),
            "item_id": identity(record.get("asin")),
            "rating": number(record.get("overall")),
            "timestamp": number(record.get("time")),
            "title": " ".join(words(record.get("title"))),
            "tags": words(record.get("tags")),
        }
        missing = [
            what
            for name, what in (("user_id", "a user id"), ("item_id", "an item id"), ("timestamp", "a time"))
            if row[name] is None
        ]
        if missing:
            dropped[f"lines without {missing[0]}"] += 1
        else:
            rows.append(row)
    return rows, dict(dropped)


IDS = ["A1", "0007", 7, 7.0, 7.5, "7.5", "", " ", None, True, "true", ["A"], {"a": 1}, '["A"]', "{}", "é", "x\u0000y"]
NUMBERS = [5, 5.0, "5", "5.5", 1.5e-7, 1e300, None, "", "five", True, [5], {"n": 5}, "inf", 12345678901234567890, -3]
TEXTS = ["Tea", "[Import]", "{x}", "a [b]", '"q"', "", None, 5, 5.5, True, "false", ["a", "b"], [], {"a": 1}, "a\n\tb"]
LISTS = [
    ["a", "b"],
    [],
    None,
    "a",
    "",
    ["[a]", "b"],
    [["a", "b"], ["c"]],
    [None, "a", ""],
    [1, 2.5, True],
    5,
    {"a": 1},
]
BROKEN = ["{", "[1]", "null", "5", '"x"', '{"user": "u"', '{"user": "u"}}', "<html>", "{'user': 'u'}", '{"time": 01}']


def random_line() -> str:
    kind = random.random()
    if kind < 0.1:
        return random.choice(BROKEN)
    if kind < 0.2:
        return random.choice(["", "  ", "\t", "\r"])
    record = {name: random.choice(values) if random.random() < 0.3 else GOOD[name] for name, values in ODD.items()}
    record = {name: value for name, value in record.items() if random.random() < 0.95}
    return json.dumps(record | {"text": "not wanted"}, ensure_ascii=random.random() < 0.5) + random.choice(
        ["", "\r", " "]
    )


ODD = {"user": IDS, "asin": IDS, "overall": NUMBERS, "time": NUMBERS, "title": TEXTS, "tags": LISTS}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
def test_random_lines_are_read_as_by_a_slow_loop(tmp_path: Path, seed: int, block_bytes: int) -> None:
    random.seed(seed)
    path = write(tmp_path, [random_line() for _ in range(300)])
    rows, dropped = read(path, block_bytes=block_bytes)
    expected_rows, expected_dropped = slow(path)
    assert dropped == expected_dropped and len(dropped) == 4
    assert rows == expected_rows and len(rows) > 50


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_each_odd_value_alone_is_read_as_by_a_slow_loop(tmp_path: Path, name: str, value: object) -> None:
    path = write(tmp_path, [json.dumps(GOOD | {name: value})])
    assert read(path) == slow(path)


def test_clean_lines_are_parsed_at_once_and_odd_ones_line_by_line() -> None:
    json_format = JsonFormat(FIELDS)
    clean = json.dumps(GOOD | {"time": "7", "asin": 12, "text": "not wanted"}).encode() + b"\n"
    assert json_format.parse_block(clean * 3).rows() == [("u", "12", "5", "7", "t", ["a"])] * 3
    for name, value in (("title", ["a"]), ("asin", 7.5), ("user", True), ("tags", "a"), ("tags", [["a"]])):
        assert json_format.parse_block(clean + json.dumps(GOOD | {name: value}).encode()) is None


def test_of_a_field_that_a_line_has_twice_the_first_counts(tmp_path: Path) -> None:
    line = '{"user": "first", "user": "second", "asin": "i", "time": 1}'
    for lines in ([line], [line, "broken"]):  # at once, and line by line
        assert read(write(tmp_path, lines))[0][0]["user_id"] == "first"


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    pair, half = "\\ud83d\\ude00", "\\ud83d"
    lines = [f'{{"user": "u{pair}", "asin": "i", "time": 1, "title": "t{half}", "tags": ["{half}", "{pair}"]}}']
    lines.append(f'{{"user": "u{half}", "asin": "i", "time": 1}}')
    rows, dropped = read(write(tmp_path, lines))
    assert [(row["user_id"], row["title"], row["tags"]) for row in rows] == [("u😀", "t\ufffd", ["\ufffd", "😀"])]
    assert dropped == {"lines without a user id": 1}


def test_numbers_that_are_no_json(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD | {"overall": float("nan")}), json.dumps(GOOD | {"time": float("inf")})]
    rows, dropped = read(write(tmp_path, lines))
    assert [row["rating"] for row in rows] == [None]
    assert dropped == {"lines without a time": 1}


def test_a_line_that_is_not_utf8_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path, [json.dumps(GOOD)] * 3)
    path.write_bytes(path.read_bytes() + json.dumps(GOOD | {"title": "é"}, ensure_ascii=False).encode("latin-1"))
    rows, dropped = read(path)
    assert len(rows) == 3 and dropped == {"broken lines": 1}
    with pytest.raises(ValueError, match=r"1 of 4 lines cannot be used \(broken lines: 1 \(first line 4: .*\ufffd"):
        read(path, max_broken=0.2)


def test_nested_too_deep_is_broken(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    lines = [json.dumps(GOOD), f'{{"user": "u", "asin": "i", "time": 1, "deep": {deep}}}']
    for literals in (False, True):
        assert read(write(tmp_path, lines), literals=literals)[1] == {"broken lines": 1}


def test_gzip_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + b"\r\n".join([json.dumps(GOOD).encode()] * 3) + b"\r\n\r\n"))
    rows, dropped = read(path, max_broken=0)
    assert [row["user_id"] for row in rows] == ["u"] * 3 and dropped == {}


@pytest.mark.parametrize("literals", [False, True])
def test_python_literals_only_where_they_are_expected(tmp_path: Path, literals: bool) -> None:
    lines = [
        r"""{u'user': u'Zo\xeb', 'asin': '7', 'time': 3, 'title': "it's \d", 'tags': [['a', u'b'], ('c',)]}""",
        r"""{'user': 'u\ud83d\ude00', 'asin': 8, 'time': '4', 'title': None, 'overall': 2.0, 'early': False}""",
        r"""{'user': __import__('os').getcwd(), 'asin': '9', 'time': 5}""",
        json.dumps(GOOD | {"title": "null", "verified": True}),
    ]
    rows, dropped = read(write(tmp_path, lines), literals=literals)
    last = [{"user_id": "u", "item_id": "i", "rating": 5.0, "timestamp": 7.0, "title": "null", "tags": ["a"]}]
    if not literals:
        assert (rows, dropped) == (last, {"broken lines": 3})
        return
    first = {"user_id": "Zoë", "item_id": "7", "rating": None, "timestamp": 3.0, "title": r"it's \d",
             "tags": ["a", "b", "c"]}  # fmt: skip
    second = {"user_id": "u😀", "item_id": "8", "rating": 2.0, "timestamp": 4.0, "title": "", "tags": []}
    assert rows == [first, second, *last]
    assert dropped == {"broken lines": 1}


def test_more_broken_lines_than_allowed(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD)] * 10
    lines[3] = "<html>&nbsp;</html>"
    lines[5] = json.dumps({"user": "u", "time": 1})
    path = write(tmp_path, ["", *lines])
    message = (
        r"x.json: 2 of 10 lines cannot be used \(broken lines: 1 \(first line 5: '<html>&nbsp;</html>'\); "
        r"lines without an item id: 1 \(first line 7: '{\"user\": \"u\".*share of 0.1; .*larger max_broken"
    )
    with pytest.raises(ValueError, match=message):
        read(path, max_broken=0.1)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_fewer_broken_lines_are_counted_and_logged(tmp_path: Path, caplog, block_bytes: int) -> None:
    path = write(tmp_path, [*[json.dumps(GOOD)] * 8, "torn", "torn too"])
    with caplog.at_level(logging.WARNING):
        rows, dropped = read(path, max_broken=0.2, block_bytes=block_bytes)
    assert len(rows) == 8 and dropped == {"broken lines": 2}
    assert (
        "x.json: 2 of 10 lines cannot be used (broken lines: 2 (first line 9: 'torn')), they are left out"
        in caplog.text
    )


def test_a_file_of_something_else_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, ["<p>line</p>"] * 5000)
    with pytest.raises(ValueError, match=r"1\d\d\d of 1\d\d\d lines cannot be used"):
        read(path, max_broken=0.5, block_bytes=100 * len("<p>line</p>\n"))


def test_iterating_twice_gives_the_same(tmp_path: Path) -> None:
    frames = read_json_lines(write(tmp_path, [json.dumps(GOOD), "torn"]), FIELDS, max_broken=0.5)
    first, second = pl.concat(frames), pl.concat(frames)
    assert first.equals(second) and dict(frames.dropped) == {"broken lines": 1}


@pytest.mark.parametrize("text", [b"", b"\n \r\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"x.json: no lines in it \(\d+ bytes\); fetch it again"):
        read(tmp_path / "x.json")


def test_an_array_in_place_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path, ["", json.dumps([GOOD] * 3)])
    with pytest.raises(
        ValueError, match=r"x.json: the file is one array, it starts with '\[\{\"user\".*one object per"
    ):
        read(path)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.json: no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="max_broken=5 is not a share"):
        read(write(tmp_path, [json.dumps(GOOD)]), max_broken=5)


def test_dates(tmp_path: Path) -> None:
    fields = [Field("id", "id", "id", "an id"), Field("date", "time", "date", "a date")]
    dates = ["2018-07-07 22:09:11", "2017-12-17", "1969-12-31", "2018-13-01", "", None, 20180707, "2018-02-30"]
    lines = [json.dumps({"id": str(row), "date": date}) for row, date in enumerate(dates)]
    frames = read_json_lines(write(tmp_path, lines), fields, max_broken=1)
    assert pl.concat(frames).rows() == [("0", 1531001351.0), ("1", 1513468800.0), ("2", -86400.0)]
    assert dict(frames.dropped) == {"lines without a date": 5}
