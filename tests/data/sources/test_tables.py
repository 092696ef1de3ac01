from __future__ import annotations

import gzip
import math
import random
from datetime import datetime

import polars as pl
import pytest

from hf_latentrec.data.sources.tables import read_table


COLUMNS = {"user_id": "uid", "item_id": "iid", "timestamp": "t", "rating": "r"}
ROWS = [
    "uid,iid,r,t,note",
    "007,x,5,1000000000,",
    "1e3,0x1F,3.5,1000000001.5,'a",
    '07,"b,c",1,1000000000,"say ""hi"""',
]
EVENTS = [
    ("007", "x", 1000000000.0, 5.0),
    ("1e3", "0x1F", 1000000001.5, 3.5),
    ("07", "b,c", 1000000000.0, 1.0),
]


def written(path, *lines, end="\n"):
    text = end.join([*lines, ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path, items=None, **options):
    return read_table(path, items, work_dir=path.parent / "work", **options)


def rows(raw) -> list[tuple]:
    return raw.interactions.collect(engine="streaming").rows()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_keeps_ids_as_they_stand(tmp_path, name, end):
    raw = read(written(tmp_path / name, *ROWS, end=end), columns=COLUMNS)
    assert rows(raw) == EVENTS
    assert raw.interactions.collect_schema() == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Float64,
        "rating": pl.Float64,
    }
    assert (raw.items, raw.name, raw.files, raw.dropped) == (None, name, (tmp_path / name,), {})


def test_a_byte_order_mark(tmp_path):
    assert rows(read(written(tmp_path / "a.csv", "\ufeff" + ROWS[0], *ROWS[1:]), columns=COLUMNS)) == EVENTS


def test_own_names_need_no_mapping_and_other_columns_go(tmp_path):
    path = written(tmp_path / "a.tsv", "split\tother\tposition\titem_id\tuser_id", 'test\tx\t3\t"i\tu')
    raw = read(path, quote=None)
    assert raw.interactions.collect().to_dicts() == [{"user_id": "u", "item_id": '"i', "position": 3, "split": "test"}]


def test_no_header_and_a_separator(tmp_path):
    path = written(tmp_path / "ratings.txt", "1|2|1530915000500")
    columns = {"user_id": "column_0", "item_id": "column_1", "timestamp": "column_2"}
    raw = read(path, columns=columns, separator="|", has_header=False, time_unit="ms")
    assert rows(raw) == [("1", "2", 1530915000.5)]


def test_parquet_types(tmp_path):
    frame = pl.DataFrame(
        {
            "uid": [7, 8],
            "iid": pl.Series(["b", "a"], dtype=pl.Categorical),
            "r": pl.Series([1, 5], dtype=pl.Int8),
            "t": [datetime(2001, 9, 9, 1, 46, 40), datetime(2001, 9, 9, 1, 46, 41)],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    raw = read(tmp_path / "a.parquet", columns=COLUMNS, time_unit="text")
    assert rows(raw) == [("7", "b", 1e9, 1.0), ("8", "a", 1e9 + 1, 5.0)]


def test_several_files_and_globs_keep_the_order(tmp_path):
    for name in "bac":
        written(tmp_path / f"{name}.csv", "user_id,item_id", f"{name},1", f"{name},0")
    files = [tmp_path / "b.csv", tmp_path / "a.csv"]
    raw = read_table(files, work_dir=tmp_path)
    assert rows(raw) == [("b", "1"), ("b", "0"), ("a", "1"), ("a", "0")] and raw.files == tuple(files)
    raw = read_table(str(tmp_path / "*.csv"), work_dir=tmp_path)
    assert [user for user, _ in rows(raw)] == list("aabbcc") and raw.name == "a.csv"


def test_like_a_slow_loop(tmp_path):
    draw = random.Random(0)
    events = [
        (f"{draw.randrange(50):03}", str(draw.randrange(20)), draw.randrange(10**12, 2 * 10**12)) for _ in range(999)
    ]
    path = written(tmp_path / "a.csv.gz", "user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in events))
    assert rows(read(path, time_unit="ms")) == [(u, i, t / 1000) for u, i, t in events]


class TestItems:
    def test_further_columns_are_text(self, tmp_path):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,01")
        items = written(tmp_path / "b.tsv", "sku\tname\tprice", "01\tTea\t2.50", "02\t\t", "01\tTea\t2.50")
        raw = read(events, items, item_columns={"item_id": "sku", "title": "name"})
        assert raw.items.to_dicts() == [
            {"item_id": "01", "title": "Tea", "price": "2.50"},
            {"item_id": "02", "title": "", "price": ""},
        ]
        assert raw.files == (events, items) and raw.dropped == {"item rows that repeat another one": 1}

    def test_parquet_lists_numbers_and_structs(self, tmp_path):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,1")
        frame = pl.DataFrame(
            {
                "title": ["Tea", None],
                "item_id": [1, 2],
                "tags": [["x", None], None],
                "sizes": [[1, 2], []],
                "price": [1.5, None],
                "seller": [{"id": 3}, {"id": None}],
                "images": [[{"url": "u"}], []],
                "none": pl.Series([None, None], dtype=pl.Null),
            }
        )
        frame.write_parquet(tmp_path / "items.parquet")
        assert read(events, tmp_path / "items.parquet").items.rows() == [
            ("1", "Tea", ["x", ""], ["1", "2"], "1.5", '{"id":3}', ['{"url":"u"}'], ""),
            ("2", "", [], [], "", '{"id":null}', [], ""),
        ]

    @pytest.mark.parametrize(
        ("lines", "columns", "message"),
        [
            (
                ["sku,name", "1,Tea"],
                {"item_id": "sku", "title": "nam"},
                r"no column 'nam' to be 'title'.*'sku', 'name'",
            ),
            (["sku,name", "1,Tea"], {"title": "name"}, r"no column 'item_id'; map .*'sku', 'name'"),
            (
                ["item_id,title,name", "1,a,b"],
                {"title": "name"},
                r"'name' is mapped to 'title', but there is .*'other_title'",
            ),
            (
                ["item_id,title", "1,a", "2,b", "1,c"],
                {},
                r"items\.csv: item_id '1'.*row 0 has title 'a', row 2 has 'c'",
            ),
            (["item_id,title", "1,a", ",b"], {}, r"1 item row.*without an item_id, first row 1"),
        ],
    )
    def test_errors(self, tmp_path, lines, columns, message):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,1")
        with pytest.raises(ValueError, match=message):
            read(events, written(tmp_path / "items.csv", *lines), item_columns=columns)

    def test_the_first_of_several_texts(self, tmp_path):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,1")
        items = written(tmp_path / "items.csv", "item_id,title", "1,a", "1,c")
        raw = read(events, items, on_conflict="first")
        assert raw.items.rows() == [("1", "a")]
        assert raw.dropped == {"item rows with another text than their item's first one": 1}

    def test_nested_lists(self, tmp_path):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,1")
        pl.DataFrame({"item_id": ["1"], "c": [[["x"]]]}).write_parquet(tmp_path / "items.parquet")
        with pytest.raises(ValueError, match=r"items\.parquet: column 'c' holds List\(List\(String\)\)"):
            read(events, tmp_path / "items.parquet")

    def test_a_title_is_one_text(self, tmp_path):
        events = written(tmp_path / "a.csv", "user_id,item_id", "u,1")
        pl.DataFrame({"item_id": ["1"], "title": [["Green", "tea"]]}).write_parquet(tmp_path / "items.parquet")
        with pytest.raises(ValueError, match=r"items\.parquet: column 'title' holds List\(String\), but a title"):
            read(events, tmp_path / "items.parquet")
        raw = read(events, tmp_path / "items.parquet", item_columns={"names": "title"})
        assert raw.items.rows() == [("1", ["Green", "tea"])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u,i,good,1", r"a\.csv: row 2 \(from 0\), column 'r': rating is 'good', no number \(1 such"),
        ("u,i,,1", r"row 2 .*rating is None, no number"),
        ("u,i,nan,1", r"rating is 'nan', no number"),
        ("u,i,1,2018-07-07", r"column 't': timestamp is '2018-07-07', no time \(unit 's'\)"),
        ("u,i,1,", r"timestamp is None, no time"),
        (",i,1,1", r"row 2 .*column 'uid': user_id is missing"),
        ("u,,1,1", r"column 'iid': item_id is missing"),
        ('u,"",1,1', r"column 'iid': item_id is missing"),
        ("u", r"column 'iid': item_id is missing"),
        ("u,i,1,1,2", r"a\.csv: not readable as a table .*separator"),
        ('u,"i,1,1', r"a\.csv: not readable as a table"),
    ],
)
def test_wrong_values(tmp_path, line, message):
    path = written(tmp_path / "a.csv", "uid,iid,r,t", "u,i,1,1", "u,i,1,1", line, "u,i,1,1")
    with pytest.raises(ValueError, match=message):
        read(path, columns=COLUMNS)


@pytest.mark.parametrize("position", ["1.5", "", "x", "inf"])
def test_positions_are_whole_numbers(tmp_path, position):
    with pytest.raises(ValueError, match=r"row 1 .*position is .*no whole number"):
        read(written(tmp_path / "a.csv", "user_id,item_id,position", "u,i,2.0", f"u,i,{position}"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"user_id": "user", "item_id": "iid"},
            r"a\.csv: no column 'user' to be 'user_id'; the columns are 'uid', 'iid'",
        ),
        ({"user_id": "uid"}, r"a\.csv: no column 'item_id'; map the one that holds it, the columns are 'uid', 'iid'"),
        (
            {"user_id": "uid", "item_id": "iid", "time": "uid"},
            r"no interactions column is called 'time'; map user_id,",
        ),
    ],
)
def test_wrong_mappings(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path / "a.csv", "uid,iid", "u,i"), columns=columns)


@pytest.mark.parametrize(
    ("column", "unit", "message"),
    [
        ({"user_id": [1.0]}, "s", r"column 'user_id' holds Float64, but ids must be text or whole numbers"),
        ({"rating": [["x"]]}, "s", r"column 'rating' holds List\(String\), no numbers; write it anew"),
        ({"timestamp": [datetime(2020, 1, 1)]}, "s", r"column 'timestamp' holds Datetime.*use the time unit 'text'"),
        ({"timestamp": [5]}, "text", r"column 'timestamp' holds Int64, no written times; use the unit 's', 'ms'"),
        ({"rating": [math.inf]}, "s", r"row 0 .*rating is inf, no number"),
    ],
)
def test_wrong_types_in_parquet(tmp_path, column, unit, message):
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"]} | column).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.parquet", time_unit=unit)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes(b"user_id,item_id\nu,\xe9\n")
    (tmp_path / "text.parquet").write_bytes(b"user_id,item_id\nu,i\n")
    packed = gzip.compress(("user_id,item_id\n" + "u,i\n" * 99).encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[:-12])
    for name in ("empty.csv", "latin.csv", "text.parquet", "cut.csv.gz"):
        with pytest.raises(ValueError, match=rf"{name}: not readable as a table .*fetch the file again"):
            read(tmp_path / name)
    with pytest.raises(ValueError, match=r"header\.csv: no rows in 1 file"):
        read(written(tmp_path / "header.csv", "user_id,item_id"))
    with pytest.raises(
        ValueError, match=r"a\.dat: unknown ending '\.dat'; use \.csv, \.tsv or \.parquet, or name the"
    ):
        read(written(tmp_path / "a.dat", "user_id,item_id"))
    with pytest.raises(ValueError, match=r"separator '::' .* must be single"):
        read(tmp_path / "a.dat", separator="::")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"\*\.pq: no file matches"):
        read(tmp_path / "*.pq")
    with pytest.raises(ValueError, match=r"a folder, not a file; name its files"):
        read(tmp_path)
    with pytest.raises(ValueError, match="no files were named"):
        read_table([], work_dir=tmp_path)
    written(tmp_path / "more.csv", "user_id,item_id,rating", "u,i,1")
    with pytest.raises(ValueError, match=r"more\.csv: the columns .*'rating'.* differ from those of .*one\.csv"):
        read_table([written(tmp_path / "one.csv", "user_id,item_id", "u,i"), tmp_path / "more.csv"], work_dir=tmp_path)
