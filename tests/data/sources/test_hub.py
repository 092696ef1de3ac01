from __future__ import annotations

import json

import datasets
import polars as pl
import pytest

from hf_latentrec.data.sources.hub import read_hub


ROWS = [("007", "NA", 5.0, 1000000000.0), ("u", "3", 3.5, 1000000001.0)]
NAMES = ("uid", "iid", "rating", "t")
COLUMNS = {"user_id": "uid", "item_id": "iid", "timestamp": "t"}
EXPECTED = [
    {"user_id": user, "item_id": item, "timestamp": time, "rating": rating} for user, item, rating, time in ROWS
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def folder(path, kind, rows=ROWS, names=NAMES, file="train"):
    path.mkdir(exist_ok=True)
    if kind == "parquet":
        pl.DataFrame(rows, schema=list(names), orient="row").write_parquet(path / f"{file}.parquet")
    elif kind == "jsonl":
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        (path / f"{file}.jsonl").write_text(text)
    else:
        separator = "," if kind == "csv" else "\t"
        text = [separator.join(map(str, row)) + "\n" for row in [names, *rows]]
        (path / f"{file}.{kind}").write_text("".join(text))
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_local_folders(tmp_path, kind):
    data = folder(tmp_path / "reviews", kind, [(*row, "text") for row in ROWS], (*NAMES, "review"))
    raw = read_hub(data, work_dir=tmp_path / "work", columns=COLUMNS)
    assert raw.interactions.collect().to_dicts() == EXPECTED
    assert (raw.items, raw.name, raw.dropped) == (None, "reviews train", {})
    assert raw.files == (tmp_path / "work" / "hub_interactions.parquet",)
    assert pl.scan_parquet(raw.files[0]).collect_schema().names() == ["uid", "iid", "t", "rating"]  # not the review


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_items(tmp_path, kind):
    data = folder(tmp_path / "reviews", "csv")
    names = ("sku", "name", "price", "brand")
    items = folder(
        tmp_path / "meta", kind, [("01", "Tea", "2.50", ""), ("2", "", "", "x"), ("01", "Tea", "2.50", "")], names
    )
    raw = read_hub(data, items, work_dir=tmp_path, columns=COLUMNS, item_columns={"item_id": "sku", "title": "name"})
    assert raw.items.to_dicts() == [
        {"item_id": "01", "title": "Tea", "price": "2.50", "brand": ""},
        {"item_id": "2", "title": "", "price": "", "brand": "x"},
    ]
    assert raw.dropped == {"item rows that repeat another one": 1} and len(raw.files) == 2


def test_splits_join_in_their_order(tmp_path):
    data = folder(folder(tmp_path / "reviews", "jsonl"), "jsonl", [("z", "z", 1.0, 5.0)], file="test")
    raw = read_hub(data, work_dir=tmp_path / "work", columns=COLUMNS, split="test+train")
    assert raw.interactions.collect()["user_id"].to_list() == ["z", "007", "u"]


def test_configs(tmp_path):
    data = folder(folder(tmp_path / "reviews", "csv", file="r"), "csv", [("1", "Tea")], ("item_id", "title"), file="m")
    configs = "\n".join(
        f"- config_name: {name}\n  data_files: {file}.csv" for name, file in (("reviews", "r"), ("meta", "m"))
    )
    (data / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    raw = read_hub(data, data, work_dir=tmp_path / "work", config="reviews", item_config="meta", columns=COLUMNS)
    assert raw.interactions.collect().to_dicts() == EXPECTED and raw.items.rows() == [("1", "Tea")]
    assert raw.name == "reviews reviews train"


def test_written_times(tmp_path):
    data = folder(tmp_path / "reviews", "jsonl", [("u", "i", 1.0, "2001-09-09 01:46:40")])
    raw = read_hub(data, work_dir=tmp_path / "work", columns=COLUMNS, time_unit="text")
    assert raw.interactions.collect()["timestamp"].to_list() == [1e9]


def test_errors(tmp_path):
    data = folder(tmp_path / "reviews", "csv", [*ROWS, ("u", "i", "good", 1)])
    options = {"work_dir": tmp_path / "work"}
    with pytest.raises(ValueError, match=r"reviews train: row 2 .*column 'rating': rating is 'good', no number"):
        read_hub(data, columns=COLUMNS, **options)
    with pytest.raises(
        ValueError, match=r"no column 'user' to be 'user_id'; the columns are 'uid', 'iid', 'rating', 't'"
    ):
        read_hub(data, columns={"user_id": "user"}, **options)
    with pytest.raises(ValueError, match=r"reviews valid: not loaded .*Unknown split \"valid\".*check the name"):
        read_hub(data, columns=COLUMNS, split="valid", **options)
    with pytest.raises(ValueError, match=r"reviews other train: not loaded .*'other' not found"):
        read_hub(data, columns=COLUMNS, config="other", **options)
    with pytest.raises(ValueError, match=r"org/none train: not loaded .*'org/none'"):
        read_hub("org/none", **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty train: not loaded .*doesn't contain any data files"):
        read_hub(tmp_path / "empty", **options)
    with pytest.raises(ValueError, match=r"header train: (not loaded|no rows)"):
        read_hub(folder(tmp_path / "header", "csv", []), **options)
    (folder(tmp_path / "broken", "jsonl") / "train.jsonl").write_text('{"user_id": "u"}\n{"user_id":\n')
    with pytest.raises(ValueError, match=r"broken train: not loaded .*JSON parse error"):
        read_hub(tmp_path / "broken", **options)
    items = folder(tmp_path / "meta", "jsonl", [("1", "Tea"), ("1", "Milk")], ("item_id", "title"))
    with pytest.raises(ValueError, match=r"meta train: item_id '1' .*'Tea'.*'Milk'"):
        read_hub(folder(tmp_path / "fine", "csv"), items, columns=COLUMNS, **options)
