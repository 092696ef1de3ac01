"""What lies in a prepared folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from datasets import load_dataset

from hf_latentrec.data import load_data, split_fingerprint
from hf_latentrec.data.preparation import PreparationRules, prepare, writing
from hf_latentrec.data.sources.raw_data import RawData


FILES = ["README.md", "events.parquet", "items.parquet", "preparation.json"]


@pytest.fixture
def raw(raw_of, tmp_path) -> RawData:
    file = tmp_path / "reviews.json"
    file.write_text("some bytes")
    return replace(raw_of(0), files=(file,), dropped={"broken lines": 3})


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class TestOutput:
    def test_loads_as_it_was_prepared(self, raw, tmp_path):
        prepared = prepare(raw, PreparationRules(k_core=4), tmp_path / "out")
        data = load_data(tmp_path / "out")  # validates
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
        assert (data.num_interactions, data.num_users, data.num_items) == (
            prepared.counts.rows, prepared.counts.users, prepared.counts.items,
        )  # fmt: skip
        assert data.interactions.column_names == ["user_id", "item_id", "position", "timestamp", "split", "rating"]
        users, items = data.interactions["user_id"][:], data.items["item_id"][:]
        assert users == sorted(users) and items == sorted(set(data.interactions["item_id"]))
        examples = prepared.examples(max_history=3)
        assert {name: len(rows) for name, rows in examples.items()} == prepared.splits
        assert max(map(len, examples["train"]["history"])) == 3

    def test_ratings_and_times_stay_with_their_events(self, raw, rows_of, tmp_path):
        prepare(raw, PreparationRules(), tmp_path / "out")
        rows = {(row["user_id"], row["item_id"], row["timestamp"], row["rating"]) for row in rows_of(0)}
        written = pl.read_parquet(tmp_path / "out" / "events.parquet")
        assert set(written.select("user_id", "item_id", "timestamp", "rating").rows()) <= rows

    def test_blocks_do_not_show(self, raw, tmp_path, monkeypatch):
        prepare(raw, PreparationRules(), tmp_path / "whole")
        monkeypatch.setattr(writing, "BLOCK", 7)
        prepare(raw, PreparationRules(), tmp_path / "blocks")
        whole, blocks = (pl.read_parquet(tmp_path / name / "events.parquet") for name in ("whole", "blocks"))
        assert whole.equals(blocks) and whole.height > 70

    @pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
    def test_written_examples_are_those_of_the_split(self, raw, tmp_path, monkeypatch, split):
        monkeypatch.setattr(writing, "EXAMPLES_BLOCK", 11)
        rules = PreparationRules(k_core=4, split=split)
        prepared = prepare(raw, rules, tmp_path / "out", examples_max_history=3)
        written = load_dataset(str(tmp_path / "out" / "examples"), cache_dir=tmp_path / "cache")
        for name, rows in prepared.examples(max_history=3).items():
            assert written[name].to_list() == rows.to_list()
            assert len(rows) > 11
        with pytest.raises(ValueError, match="examples_max_history=0"):
            prepare(raw, rules, tmp_path / "none", examples_max_history=0)

    def test_items_have_clean_text_and_gaps_are_empty(self, raw, tmp_path):
        text = raw.items.with_columns(categories=pl.lit(["Food &amp; Drink"]), brand=pl.lit(None, dtype=pl.String))
        prepare(replace(raw, items=text), PreparationRules(), tmp_path / "out")
        items = {row["item_id"]: row for row in load_data(tmp_path / "out").items}
        assert items["i1"] == {
            "item_id": "i1", "title": "Salt & Pepper", "categories": ["Food & Drink"], "brand": "",
        }  # fmt: skip
        assert items["i5"] == {"item_id": "i5", "title": "", "categories": [], "brand": ""}  # not described
        assert "never bought" not in items
        summary = json.loads((tmp_path / "out" / "preparation.json").read_text())
        assert summary["items"]["titles_changed_by_cleaning"] == 1
        assert summary["items"]["described"] == sum(n.startswith("i") and int(n[1:]) % 5 > 0 for n in items)

    def test_without_times_ratings_or_items(self, raw_of, tmp_path):
        raw = raw_of(0, described=False, drop=("timestamp", "rating"))
        prepare(raw, PreparationRules(), tmp_path / "out")
        data = load_data(tmp_path / "out")
        assert data.interactions.column_names == ["user_id", "item_id", "position", "split"]
        assert data.items.column_names == ["item_id"]
        assert "no timestamps" in (tmp_path / "out" / "README.md").read_text()

    def test_items_described_twice(self, raw, tmp_path):
        twice = replace(raw, items=pl.concat([raw.items, raw.items.head(2)]))
        with pytest.raises(ValueError, match=r"tiny: item_id 'i1' has 2 rows of text \(2 such items\)"):
            prepare(twice, PreparationRules(), tmp_path / "out")

    def test_all_in_one_order_of_ties(self, raw_of, tmp_path):
        """Events of one user at one time keep the order of the rows, whatever sorts between them."""
        rows = [{"user_id": "u", "item_id": item, "timestamp": 1e9} for item in "dbac"]
        raw = raw_of([*rows[:2], *[rows[0] | {"user_id": "a"}] * 4, *rows[2:]])
        prepare(raw, PreparationRules(drop_duplicates=False), tmp_path / "out")
        events = pl.read_parquet(tmp_path / "out" / "events.parquet").filter(pl.col("user_id") == "u")
        assert events["item_id"].to_list() == list("dbac")


class TestSameBytes:
    def test_again_and_from_another_folder(self, raw, raw_of, tmp_path):
        rules = PreparationRules(k_core=4, min_rating=2, split="temporal")
        first = prepare(raw, rules, tmp_path / "one")
        moved = tmp_path / "elsewhere" / "deep"
        moved.mkdir(parents=True)
        shutil.copy(raw.files[0], moved)
        again = replace(raw_of(0), files=(moved / "reviews.json",), dropped={"broken lines": 3})
        second = prepare(again, rules, moved / "two")
        assert digests(first.folder) == digests(second.folder)
        assert str(tmp_path) not in "".join((first.folder / name).read_text() for name in ("README.md", FILES[3]))

    def test_fingerprint_changes_with_what_is_prepared(self, raw, rows_of, raw_of, tmp_path):
        def fingerprint(rows: list[dict], **rules) -> str:
            return prepare(raw_of(rows), PreparationRules(**rules), tmp_path / "x", overwrite=True).fingerprint

        rows = rows_of(0)
        same = fingerprint(rows)
        assert same == fingerprint(rows) and len(same) == 64
        for name, value in (("user_id", "u00"), ("item_id", "i00"), ("timestamp", rows[0]["timestamp"] + 1)):
            assert fingerprint([rows[0] | {name: value}, *rows[1:]]) != same
        assert fingerprint(rows, split="temporal") != same
        assert fingerprint([row | {"rating": 1.0} for row in rows]) == same  # not part of it

    def test_the_order_of_the_rows_matters_only_for_ties(self, raw_of, rows_of, tmp_path):
        rows = [row | {"timestamp": row["timestamp"] + n} for n, row in enumerate(rows_of(0))]
        one = prepare(raw_of(rows), PreparationRules(), tmp_path / "a")
        two = prepare(raw_of(rows[::-1]), PreparationRules(), tmp_path / "b")
        assert one.fingerprint == two.fingerprint


class TestFolder:
    def test_a_folder_with_files_is_left_alone(self, raw, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("x")
        with pytest.raises(ValueError, match="out is not empty; choose another folder, or pass overwrite"):
            prepare(raw, PreparationRules(), tmp_path / "out")
        with pytest.raises(ValueError, match="no prepared data set"):
            prepare(raw, PreparationRules(), tmp_path / "out", overwrite=True)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]

    def test_overwrite(self, raw, tmp_path):
        prepare(raw, PreparationRules(), tmp_path / "out")
        before = digests(tmp_path / "out")
        prepare(raw, PreparationRules(k_core=4), tmp_path / "out", overwrite=True)
        assert digests(tmp_path / "out") != before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "reviews.json"]

    def test_what_fails_leaves_nothing_new(self, raw, tmp_path, monkeypatch):
        prepare(raw, PreparationRules(), tmp_path / "out")
        before = digests(tmp_path / "out")
        for target in ("out", "new"):
            with pytest.raises(ValueError, match="nothing is left"):
                prepare(raw, PreparationRules(k_core=300), tmp_path / target, overwrite=True)
        assert digests(tmp_path / "out") == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "reviews.json"]

    @pytest.mark.parametrize("name", ["semantic_ids.json", "examples/notes.txt"])
    def test_overwrite_removes_nothing_else(self, raw, tmp_path, name):
        prepare(raw, PreparationRules(), tmp_path / "out", examples_max_history=2)
        (tmp_path / "out" / name).write_text("mine")
        with pytest.raises(ValueError, match=f"out holds {name} beside the prepared data.*move them away"):
            prepare(raw, PreparationRules(), tmp_path / "out", overwrite=True)
        (tmp_path / "out" / name).unlink()
        prepare(raw, PreparationRules(), tmp_path / "out", overwrite=True)
        assert not (tmp_path / "out" / "examples").exists()

    def test_what_lies_beside_is_left_alone(self, raw, tmp_path):
        beside = [tmp_path / f"out.{name}" for name in ("replaced", "unfinished")]
        for folder in beside:
            folder.mkdir()
        for _ in range(2):
            prepare(raw, PreparationRules(), tmp_path / "out", overwrite=True)
        assert sorted(tmp_path.iterdir()) == [tmp_path / "out", *beside, tmp_path / "reviews.json"]

    def test_a_move_that_fails_leaves_the_earlier_data(self, raw, tmp_path, monkeypatch):
        prepare(raw, PreparationRules(), tmp_path / "out")
        rename = Path.rename
        with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):

            def failing(path, target):
                if path.name == "new":
                    raise OSError("full")
                return rename(path, target)

            patch.setattr(Path, "rename", failing)
            prepare(raw, PreparationRules(k_core=4), tmp_path / "out", overwrite=True)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES

    def test_a_link_and_the_working_directory(self, raw, tmp_path, monkeypatch):
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to("disk")
        prepare(raw, PreparationRules(), tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == FILES
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        prepared = prepare(raw, PreparationRules(), ".")
        assert prepared.folder == tmp_path / "here" and prepared.data().num_interactions == prepared.counts.rows


class TestCard:
    def test_says_what_was_done(self, raw, tmp_path):
        prepared = prepare(raw, PreparationRules(k_core=4, min_rating=2, split="temporal"), tmp_path / "out")
        card = (tmp_path / "out" / "README.md").read_text()
        sha256 = hashlib.sha256(b"some bytes").hexdigest()
        for expected in (
            f"| reviews.json | 10 | `{sha256}` |",
            f"| fingerprint | `{prepared.fingerprint}` |",
            f"| interactions | {prepared.counts.rows} |",
            f"| test targets | {prepared.splits['test']} |",
            "| min_rating=2 ",
            "| k_core=4 ",
            "Left out while reading: 3 broken lines",
            "at 8:1:1",
            "keep the order of the source files",
            "2014-05-1",
        ):
            assert expected in card
        summary = json.loads((tmp_path / "out" / "preparation.json").read_text())
        assert summary["counts"]["rows"] == summary["report"][-1]["after"]["rows"] == prepared.counts.rows
        assert summary["source"]["rows"] == summary["report"][0]["before"]["rows"] == 440
        assert summary["rules"]["k_core"] == 4 and summary["fingerprint"] == prepared.fingerprint

    def test_load_dataset_finds_both_tables(self, raw, tmp_path):
        prepared = prepare(raw, PreparationRules(), tmp_path / "out")
        for name, rows in (("events", prepared.counts.rows), ("items", prepared.counts.items)):
            loaded = load_dataset(str(tmp_path / "out"), name, split="train", cache_dir=tmp_path / "cache")
            assert len(loaded) == rows

    def test_prepared_again_from_what_was_prepared(self, raw, tmp_path):
        """A prepared folder is a source, too: its published split comes out as it went in."""
        first = prepare(raw, PreparationRules(k_core=4), tmp_path / "one")
        frame = pl.scan_parquet(tmp_path / "one" / "events.parquet")
        rules = PreparationRules(split="published", drop_duplicates=False)
        second = prepare(RawData(frame, None, "again", ()), rules, tmp_path / "two")
        assert second.fingerprint == first.fingerprint
        assert split_fingerprint(second.examples()) == split_fingerprint(first.examples())
