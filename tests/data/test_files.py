from __future__ import annotations

import pytest

from hf_latentrec.data.files import only_file, read_atomic, read_codes, read_json, read_parquet, read_text


def test_read_text_drops_byte_order_mark_and_carriage_returns(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9\r\nb\n")
    assert read_text(path) == "caf\u00e9\nb\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.json: the file is empty \(0 bytes\)"),
        (b" \n", r"the file is empty"),
        (b'{"a": [1], "b": [2, ', r"not valid JSON at line 1, column \d+ .*20 characters"),
        (b'{"a": [1],\n "a": [2]}', r"key 'a' appears more than once \(\[1\] and \[2\]\)"),
        (b"[1, 2]", r"expected a JSON object"),
        (b"{}", r"expected a JSON object with entries"),
        (b'{"a":\n "\xff\xfe"}', r"line 2: byte 8 is not UTF-8 .*xff.*save the file as UTF-8"),
    ],
)
def test_read_json_names_the_fault(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_missing_files_are_named(tmp_path):
    for read in (read_json, read_parquet, read_atomic, read_codes):
        with pytest.raises(FileNotFoundError, match=r"nothing\.here: no such file"):
            read(tmp_path / "nothing.here")


def test_broken_parquet_is_named(tmp_path):
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match=r"events\.parquet: not a readable parquet file"):
        read_parquet(path)


def test_read_atomic_keeps_text_as_it_stands(tmp_path):
    path = tmp_path / "x.item"
    path.write_text('item_id:token\ttitle:token_seq\tprice:float\n7\ta "quoted\u2028 title\t1.5\n8\t\t2\n')
    frame = read_atomic(path)
    assert frame.drop("_line").rows() == [("7", 'a "quoted\u2028 title', 1.5), ("8", "", 2.0)]
    assert frame["_line"].to_list() == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\titem_id\nu\ti\n", r"line 1: the header .* is not one of an atomic file"),
        ("a:token\ta:token\nu\ti\n", r"line 1: the header"),
        ("a:token\tb:int\nu\ti\n", r"line 1: the header"),
        ("a:token\tb:token\nu\ti\nv\n", r"line 3: expected 2 fields .* found 1 in 'v'"),
        ("a:token\tb:token\nu\ti\tj\n", r"line 2: expected 2 fields .* found 3"),
        ("a:token\tb:token\n\nu\ti\n", r"line 2: expected 2 fields .* found 1 in ''"),
        ("a:token\tb:float\nu\t1\nv\tNaN\nw\tx\n", r"line 3: b is 'NaN', not a finite number \(2 such line"),
        ("a:token\tb:float\nu\t\n", r"line 2: b is '', not a finite number"),
        ("a:token\tb:float\n", r"nothing follows the header"),
    ],
)
def test_read_atomic_names_line_and_value(tmp_path, text, message):
    path = tmp_path / "x.inter"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_atomic(path)


@pytest.mark.parametrize("entry", ['"<a_1>"', "[1, 2]", '["<a_1>", null]', "null"])
def test_read_codes_names_the_item(tmp_path, entry):
    path = tmp_path / "x.index.json"
    path.write_text('{"0": ["<a_0>"], "17": ' + entry + "}")
    with pytest.raises(ValueError, match=r"x\.index\.json: item '17': expected a list of code tokens"):
        read_codes(path)


def test_only_file_refuses_two_data_sets(tmp_path):
    assert only_file(tmp_path, "*.item") is None
    for name in ("a.item", "b.item"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"several files match \*\.item \(a\.item, b\.item\)"):
        only_file(tmp_path, "*.item")
