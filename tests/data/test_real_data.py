"""The published data sets, with the figures that their publishers give. Skipped where they are missing."""

from __future__ import annotations

import polars as pl
import pytest

from hf_latentrec.data import k_core, load_data, pack_examples, split_leave_one_out, split_published, split_temporal
from hf_latentrec.data.schema import to_polars


SIZES = {
    "amazon_beauty_2014": (22_363, 12_101, 198_502),
    "amazon_instruments_2014": (24_772, 9_922, 206_153),
    # published: 59,384, which counts the test rows; these cut three users to their newest 51 events
    "amazon_scientific_2018": (8_442, 4_385, 59_427),
    "amazon_sports_2014": (35_598, 18_357, 296_337),
    "amazon_cds_2018": (2_991, 5_841, 26_000),
    "amazon_industrial_2018": (3_285, 3_686, 22_743),
    "movielens_100k": (943, 1_682, 100_000),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(real_data_dir, name):
    data = load_data(real_data_dir(name))
    assert (data.num_users, data.num_items, data.num_interactions) == SIZES[name]


def test_beauty(real_data_dir):
    data = load_data(real_data_dir("amazon_beauty_2014"))
    assert k_core(data, 5).num_interactions == data.num_interactions  # published as a 5-core
    assert data.items.column_names == ["item_id", "asin", "title", "semantic_id"]
    codes = [tuple(code) for code in data.items["semantic_id"]]
    assert {len(code) for code in codes} == {4}
    assert len(codes) - len(set(codes)) == 13
    splits = split_leave_one_out(data)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 131_413, "validation": 22_363, "test": 22_363,
    }  # fmt: skip
    packed = pack_examples(splits["train"])
    targets = to_polars(packed).select("user_id", "items", "targets").explode("targets")
    history, target = pl.col("items").list.head(pl.col("targets")), pl.col("items").list.get(pl.col("targets"))
    unpacked = targets.select("user_id", history=history, target=target)
    assert unpacked.equals(to_polars(splits["train"]))
    assert len(packed) < len(splits["train"]) / 3


def test_scientific_examples_come_back_as_published(real_data_dir):
    folder = real_data_dir("amazon_scientific_2018")
    splits = split_published(load_data(folder), max_history=50)
    for name, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        lines = (folder / f"Scientific.{file}.inter").read_text(encoding="utf-8").splitlines()[1:]
        rows = splits[name]
        columns = (rows["user_id"], rows["history"], rows["target"])
        ours = [f"{user}\t{' '.join(history[-50:])}\t{target}" for user, history, target in zip(*columns, strict=True)]
        assert sorted(ours) == sorted(lines)


@pytest.mark.parametrize(("name", "valid", "test"), [("cds", 6_156, 6_157), ("industrial", 4_532, 4_533)])
def test_published_temporal_splits(real_data_dir, name, valid, test):
    splits = split_published(load_data(real_data_dir(f"amazon_{name}_2018")))
    assert (len(splits["validation"]), len(splits["test"])) == (valid, test)


def test_movielens_by_time(real_data_dir):
    data = load_data(real_data_dir("movielens_100k"))
    assert data.items[0]["title"] == "Toy Story"
    splits = split_temporal(data)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 79_245, "validation": 9_906, "test": 9_906}
