from __future__ import annotations

import json

import polars as pl
import pytest

from hf_latentrec.data.sources.folders import read_folder
from hf_latentrec.data.sources.times import check_times


CODES = {"1": ["<a_0>", "<b_0>"], "2": ["<a_0>", "<b_1>"]}


def read(path, **options):
    return read_folder(path, work_dir=path.parent / "work", **options)


def write_events(folder, events, items):
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    return folder


def test_raw_ratings(tmp_path):
    (tmp_path / "X.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tnote:token\n"
        "v\t2\t3\t1000000050\tx\nu\t1\t1\t1000000020\tx\nv\t1\t4\t1000000040\tx\n"
    )
    (tmp_path / "X.item").write_text(
        "item_id:token\tmovie_title:token_seq\tprice:float\tclass:token_seq\n1\tTea\t2.5\tHot Drinks\n2\t\t3\t\n"
    )
    raw = read(tmp_path)
    assert raw.interactions.collect().to_dicts() == [
        {"user_id": "v", "item_id": "1", "timestamp": 1000000040.0, "rating": 4.0},
        {"user_id": "v", "item_id": "2", "timestamp": 1000000050.0, "rating": 3.0},
        {"user_id": "u", "item_id": "1", "timestamp": 1000000020.0, "rating": 1.0},
    ]
    assert raw.items.to_dicts() == [
        {"item_id": "1", "title": "Tea", "price": "2.5", "class": "Hot Drinks"},
        {"item_id": "2", "title": "", "price": "3.0", "class": ""},
    ]
    assert raw.name == tmp_path.name and raw.dropped == {}
    assert raw.files == (tmp_path / "X.inter", tmp_path / "X.item")


def test_indexed_json_has_positions_and_codes_only_when_asked(tmp_path):
    (tmp_path / "X.inter.json").write_text(json.dumps({"u": [2, 1], "v": [1]}))
    (tmp_path / "X.index.json").write_text(json.dumps(CODES))
    raw = read(tmp_path)
    expected = [("u", "2", 0), ("u", "1", 1), ("v", "1", 0)]
    assert raw.interactions.collect().select("user_id", "item_id", "position").rows() == expected
    assert raw.interactions.collect().columns == ["user_id", "item_id", "position"] and raw.items is None
    assert read(tmp_path, keep_codes=True).items.rows() == list(CODES.items())


def test_events_keep_times_and_the_published_split(tmp_path):
    events = {
        "user_id": ["u", "u", "v"],
        "item_id": [1, 2, 1],
        "timestamp": [1530915000500, 1530915001000, 1530915002000],
        "position": [0, 1, 0],
        "split": ["train", "test", "train"],
    }
    items = {"item_id": [1, 2], "title": ["Tea", None], "tags": [["x"], None]}
    write_events(tmp_path, events, items)
    (tmp_path / "X.index.json").write_text(json.dumps(CODES))
    raw = read(tmp_path, time_unit="ms")
    assert raw.interactions.collect().to_dicts() == [
        {"user_id": "u", "item_id": "1", "timestamp": 1530915000.5, "split": "train"},
        {"user_id": "u", "item_id": "2", "timestamp": 1530915001.0, "split": "test"},
        {"user_id": "v", "item_id": "1", "timestamp": 1530915002.0, "split": "train"},
    ]
    assert raw.items.rows() == [("1", "Tea", ["x"]), ("2", "", [])]
    assert [path.name for path in raw.files] == ["X.index.json", "events.parquet", "items.parquet"]
    check_times(raw.interactions, raw.name)
    with pytest.raises(ValueError, match="all of them look like milliseconds"):
        check_times(read(tmp_path).interactions, raw.name)


def test_sequences_file(tmp_path):
    path = tmp_path / "X.txt"
    path.write_text("u 2 1\nv 1\n")
    raw = read(path)
    assert raw.interactions.collect().rows() == [("u", "2", 0), ("u", "1", 1), ("v", "1", 0)]
    assert (raw.items, raw.files) == (None, (path,))
    (tmp_path / "X_item2attributes.json").write_text(json.dumps({"1": [5], "2": []}))
    assert read(tmp_path).items.rows() == [("1", ["5"]), ("2", [])]


def test_errors(tmp_path):
    (tmp_path / "ratings").mkdir()
    header = "user_id:token\titem_id:token\trating:token\ttimestamp:float\n"
    (tmp_path / "ratings" / "X.inter").write_text(f"{header}v\t2\tgood\t1000000050\n")
    with pytest.raises(ValueError, match="ratings: row 0 .*rating is 'good', no number"):
        read(tmp_path / "ratings")
    with pytest.raises(ValueError, match="no known data format"):
        read(tmp_path)
    with pytest.raises(ValueError, match="items='x'; name only the folder"):
        read_folder(tmp_path, "x", work_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "num_events", "columns", "item_columns"),
    [
        ("movielens_100k", 100_000, {"timestamp", "rating"}, {"title", "release_year", "class"}),
        ("amazon_industrial_2018", 22_743, {"position", "split"}, {"title", "description", "brand", "categories"}),
        ("amazon_scientific_2018", 59_427, {"position", "split"}, {"title"}),
    ],
)
def test_real_data(real_data_dir, tmp_path, name, num_events, columns, item_columns):
    raw = read_folder(real_data_dir(name), work_dir=tmp_path)
    events = raw.interactions.collect()
    assert events.height == num_events and set(events.columns) == {"user_id", "item_id"} | columns
    assert item_columns <= set(raw.items.columns) and "semantic_id" not in raw.items.columns
    if "timestamp" in columns:
        check_times(raw.interactions, raw.name)
