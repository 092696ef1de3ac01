"""Rows that survive a kill."""

from __future__ import annotations

import json

import pytest

from hf_latentrec.cot.jsonl import RowWriter, read_rows, repair_last_line


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    with RowWriter(path) as rows:
        assert not path.exists()  # no empty file where nothing is written
        rows.write({"a": "é\n"})
        assert path.read_text(encoding="utf-8") == '{"a": "é\\n"}\n'
    with RowWriter(path) as rows:
        rows.write({"a": 2})
    assert list(read_rows(path)) == [(1, {"a": "é\n"}), (2, {"a": 2})]


WHOLE = '{"a": 1}\n{"b": "ü"}\n'


@pytest.mark.parametrize("cut", range(len(WHOLE.encode()) + 1))
def test_a_kill_at_any_byte_loses_no_whole_row(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE.encode()[:cut])
    written = path.read_bytes().split(b"\n")
    torn = repair_last_line(path)
    whole = [json.loads(line) for line in WHOLE.splitlines()]
    kept = [row for _, row in read_rows(path)]
    complete = sum(line in WHOLE.encode().splitlines() for line in written if line)
    assert kept == whole[:complete]
    assert torn == (len([line for line in written if line]) > complete)
    assert path.read_bytes() in (b"", b'{"a": 1}\n', WHOLE.encode())


def test_a_torn_row_longer_than_a_block(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * 200_000)
    assert repair_last_line(path) and path.read_text() == '{"a": 1}\n'
    assert not repair_last_line(path) and not repair_last_line(tmp_path / "none.jsonl")


@pytest.mark.parametrize(("line", "message"), [(b"{", "not JSON"), (b"[1]", "found list"), (b"\xff", "not JSON")])
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(ValueError, match=f"line 3.*{message}"):
        list(read_rows(path))
