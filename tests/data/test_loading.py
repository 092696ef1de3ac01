from __future__ import annotations

import json
import math

import polars as pl
import pytest

from hf_latentrec.data import load_data, load_events, load_indexed_json, load_sequences


INTER = {"u": [2, 0], "10": ["0"], "9": [1, 2, 2]}
INDEX = {"0": ["<a_0>", "<b_0>"], "1": ["<a_0>", "<b_1>"], "2": ["<a_1>", "<b_0>"]}


def triples(data) -> list[tuple[str, str, int]]:
    rows = data.interactions
    return list(zip(rows["user_id"], rows["item_id"], rows["position"], strict=True))


def write(folder, **files):
    """`write(folder, inter={...})`: JSON files by default, text where text is given."""
    names = {
        "inter": "X.inter.json",
        "index": "X.index.json",
        "item": "X.item",
        "attributes": "X_item2attributes.json",
    }
    for name, content in files.items():
        path = folder / names.get(name, f"{name}.txt")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


class TestIndexedJson:
    def test_order_and_types(self, tmp_path):
        data = load_indexed_json(write(tmp_path, inter=INTER, index=INDEX))
        assert triples(data) == [
            ("u", "2", 0),
            ("u", "0", 1),
            ("10", "0", 0),
            ("9", "1", 0),
            ("9", "2", 1),
            ("9", "2", 2),
        ]
        assert data.items.to_dict() == {"item_id": ["0", "1", "2"], "semantic_id": list(INDEX.values())}

    def test_descriptions_follow_the_order_of_the_index(self, tmp_path):
        item = "item_id:token\tasin:token\ttitle:token_seq\n2\tB2\tsecond\n0\tB0\t\n1\tB1\tfirst\n"
        data = load_data(write(tmp_path, inter=INTER, index=INDEX, item=item))
        assert data.items[0] == {"item_id": "0", "asin": "B0", "title": "", "semantic_id": INDEX["0"]}
        assert data.items["asin"][:] == ["B0", "B1", "B2"]

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (
                {"inter": {"u": [0, 7], "v": [8]}},
                r"X\.inter\.json: 2 interaction.*2 unknown item.*X\.index\.json.*'7'",
            ),
            ({"inter": {"u": [0], "v": []}}, r"X\.inter\.json: user 'v': .*found \[\], an empty history"),
            ({"inter": {"u": 0}}, r"X\.inter\.json: user 'u': expected a list of items, found 0"),
            ({"inter": {"u": [0, None]}}, r"X\.inter\.json: user 'u', position 1: None is not an item id"),
            ({"inter": {"u": [0, True]}}, r"user 'u', position 1: True is not an item id"),
            ({"inter": '{"u": [0, NaN]}'}, r"user 'u', position 1: NaN is not an item id"),
            ({"inter": '{"u": [0], "u": [1]}'}, r"X\.inter\.json: key 'u' appears more than once"),
            ({"inter": '{"u": [0, 1'}, r"X\.inter\.json: not valid JSON at line 1"),
            ({"inter": ""}, r"X\.inter\.json: the file is empty"),
            ({"index": '{"0": ["<a_0>"], "0": ["<a_1>"]}'}, r"X\.index\.json: key '0' appears more than once"),
            ({"index": INDEX | {"1": []}}, r"X\.index\.json: 1 item\(s\) have no code sequence, first item_id='1'"),
            ({"index": INDEX | {"1": ["<a_0>"]}}, r"X\.index\.json: codes have different depths.*item_id='1'"),
            ({"item": "item_id:token\n0\n1\n2\n3\n"}, r"X\.item: 1 item\(s\) have no code sequence in X\.index.*'3'"),
            ({"item": "item_id:token\n0\n1\n"}, r"X\.index\.json: 1 item\(s\) have no description in X\.item.*'2'"),
            ({"item": "item_id:token\n0\n1\n2\n1\n"}, r"item_id '1' appears 2 times"),
            ({"item": "asin:token\n0\n"}, r"X\.item: line 1: no field item_id"),
        ],
    )
    def test_bad_input(self, tmp_path, files, message):
        write(tmp_path, **({"inter": INTER, "index": INDEX} | files))
        with pytest.raises(ValueError, match=message):
            load_data(tmp_path)

    def test_missing_index(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file \*\.index\.json"):
            load_indexed_json(write(tmp_path, inter=INTER))


class TestSequences:
    def test_users_and_items(self, tmp_path):
        data = load_data(write(tmp_path, X="7 3 1\n8\t1  2 1\n"))
        assert triples(data) == [("7", "3", 0), ("7", "1", 1), ("8", "1", 0), ("8", "2", 1), ("8", "1", 2)]
        assert data.items.to_dict() == {"item_id": ["3", "1", "2"]}

    def test_attributes_are_the_list_of_the_items(self, tmp_path):
        folder = write(tmp_path, X="7 3 1\n", attributes={"1": [5, "red"], "2": [], "3": [6]})
        data = load_sequences(folder / "X.txt")
        assert data.items.to_dict() == {"item_id": ["1", "2", "3"], "attributes": [["5", "red"], [], ["6"]]}

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"X": "7 3 1\n8\n"}, r"X\.txt: line 2: expected 'user item item \.\.\.', found '8', which has an empty"),
            ({"X": "7 3 1\n\n8 1\n"}, r"X\.txt: line 2: .*found ''"),
            ({"X": "7 3 1\n8 1\n7 2\n"}, r"X\.txt: line 3: user '7' already has line 1"),
            ({"X": "7 3 1\n", "attributes": {"1": [5]}}, r"X\.txt: 1 inter.*unknown .*X_item2attributes\.json.*'3'"),
            ({"X": "7 1\n", "attributes": {"1": 5}}, r"X_item2attributes\.json: item '1': expected a list"),
            ({"X": "7 1\n", "attributes": {"1": [None]}}, r"X_item2attributes\.json: item '1': None is not"),
        ],
    )
    def test_bad_input(self, tmp_path, files, message):
        with pytest.raises(ValueError, match=message):
            load_data(write(tmp_path, **files))


class TestEvents:
    EVENTS = {"user_id": ["u", "v", "u"], "item_id": [1, 0, 0], "position": [1, 0, 0]}
    ITEMS = {"item_id": [0, 1], "title": ["zero", None]}

    def folder(self, tmp_path, events=None, items=None, codes=None):
        for name, columns in (("events", self.EVENTS | (events or {})), ("items", self.ITEMS | (items or {}))):
            columns = {key: column for key, column in columns.items() if column is not None}
            pl.DataFrame(columns, strict=False).write_parquet(tmp_path / f"{name}.parquet")
        return write(tmp_path, index=codes) if codes else tmp_path

    def test_position_gives_the_order(self, tmp_path):
        extra = {"split": ["valid", "train", "train"], "timestamp": [5, 1, 5], "rating": [1, 2, 3]}
        data = load_data(self.folder(tmp_path, extra, codes={"1": ["<a_1>"], "0": ["<a_0>"]}))
        assert data.interactions.column_names == ["user_id", "item_id", "position", "timestamp", "split", "rating"]
        assert triples(data) == [("u", "0", 0), ("u", "1", 1), ("v", "0", 0)]
        assert data.interactions.to_polars().row(1) == ("u", "1", 1, 5.0, "valid", 1)
        assert data.items.to_dict() == {
            "item_id": ["0", "1"], "title": ["zero", ""], "semantic_id": [["<a_0>"], ["<a_1>"]],
        }  # fmt: skip

    def test_timestamp_gives_the_order_where_there_is_no_position(self, tmp_path):
        data = load_events(self.folder(tmp_path, {"position": None, "timestamp": [9, 3, 2]}))
        assert triples(data) == [("u", "0", 0), ("u", "1", 1), ("v", "0", 0)]

    def test_ids_may_be_strings(self, tmp_path):
        data = load_events(self.folder(tmp_path, {"item_id": ["b", "a", "a"]}, {"item_id": ["a", "b"]}))
        assert triples(data) == [("u", "a", 0), ("u", "b", 1), ("v", "a", 0)]
        assert data.items.to_dict() == {"item_id": ["a", "b"], "title": ["zero", ""]}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"events": {"position": None}}, r"columns \['user_id', 'item_id'\].*position or timestamp"),
            ({"events": {"timestamp": [1.0, math.nan, 2.0]}}, r"row 1 \(user 'v', item 0\): timestamp is nan"),
            ({"events": {"timestamp": [1, None, 2]}}, r"row 1 \(user 'v', item 0\): timestamp is None"),
            ({"events": {"timestamp": ["1", "2", "3"]}}, r"events\.parquet: column 'timestamp' holds String"),
            ({"events": {"position": [1, None, 0]}}, r"events\.parquet: row 1 .*position is None"),
            ({"events": {"timestamp": [1, 5, 2]}}, r"events\.parquet: 1 interaction\(s\) are earlier"),
            ({"events": {"item_id": [1, 7, 0]}}, r"1 interaction.*not in items\.parquet.*item_id='7'"),
            ({"events": {"user_id": ["u", None, "u"]}}, r"events\.parquet: 1 row\(s\) without user_id"),
            ({"items": {"item_id": [0, 0]}}, r"items\.parquet: item_id '0' appears 2 times \(rows 0, 1\)"),
            ({"codes": {"0": ["<a_0>"]}}, r"items\.parquet: 1 item\(s\) have no code sequence, first item_id='1'"),
            ({"codes": {"0": ["<a_0>"], "9": ["<a_1>"]}}, r"1 item\(s\) are not in items\.parquet.*'9'"),
        ],
    )  # fmt: skip
    def test_bad_input(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            load_data(self.folder(tmp_path, **changes))

    def test_missing_items(self, tmp_path):
        (self.folder(tmp_path) / "items.parquet").unlink()
        with pytest.raises(FileNotFoundError, match=r"items\.parquet: no such file"):
            load_data(tmp_path)


def test_load_data_says_what_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        load_data(tmp_path / "nowhere")
    (tmp_path / "ratings.csv").touch()
    with pytest.raises(ValueError, match=r"looked for events\.parquet, .*\*\.txt; found ratings\.csv"):
        load_data(tmp_path)
