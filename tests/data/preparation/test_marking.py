"""The split of codes is that of the functions that build examples."""

from __future__ import annotations

import polars as pl
import pytest

from hf_latentrec.data import RecData, split_fingerprint, split_leave_one_out, split_published, split_temporal
from hf_latentrec.data.preparation import PreparationRules, prepare
from hf_latentrec.data.preparation.coding import code_events
from hf_latentrec.data.preparation.marking import mark_split
from hf_latentrec.data.schema import in_user_order, to_dataset
from hf_latentrec.data.sources.raw_data import RawData


def loaded(raw) -> RecData:
    frame = in_user_order(raw.interactions.collect(), by=["timestamp"])
    return RecData(to_dataset(frame), to_dataset(frame.select(pl.col("item_id").unique().sort())))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratios", [(8, 1, 1), (0.5, 0.25, 0.25)])
def test_temporal(raw_of, tmp_path, seed, ratios):
    rules = PreparationRules(drop_duplicates=False, split="temporal", ratios=ratios)
    prepared = prepare(raw_of(seed), rules, tmp_path / "out")
    expected = split_temporal(loaded(raw_of(seed)), ratios, max_history=5)
    assert split_fingerprint(prepared.examples(max_history=5)) == split_fingerprint(expected)
    assert prepared.splits == {name: len(rows) for name, rows in expected.items()}


@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out(raw_of, tmp_path, seed):
    prepared = prepare(raw_of(seed), PreparationRules(drop_duplicates=False), tmp_path / "out")
    expected = split_leave_one_out(loaded(raw_of(seed)), max_history=5, on_short="drop")
    assert split_fingerprint(prepared.examples(max_history=5)) == split_fingerprint(expected)
    assert prepared.splits == {name: len(rows) for name, rows in expected.items()}


def test_published(raw_of, tmp_path):
    frame = in_user_order(raw_of(0).interactions.collect(), by=["timestamp"])
    from_end = pl.len().over("user_id") - pl.col("position")
    split = (
        pl.when(from_end <= 2)
        .then(pl.lit("test"))
        .when(from_end <= 4)
        .then(pl.lit("valid"))
        .otherwise(pl.lit("train"))
    )
    frame = frame.with_columns(split=pl.when(pl.col("position") == 0).then(pl.lit("train")).otherwise(split))
    data = RecData(to_dataset(frame), to_dataset(frame.select(pl.col("item_id").unique().sort())))
    rules = PreparationRules(drop_duplicates=False, split="published")
    prepared = prepare(RawData(frame.lazy(), None, "tiny", ()), rules, tmp_path / "out")
    assert split_fingerprint(prepared.examples()) == split_fingerprint(split_published(data))


@pytest.mark.parametrize("seed", range(5))
def test_training_ends_before_any_later_target(raw_of, tmp_path, seed):
    """No training example holds an event at or after the time of a test target, by a loop over the events."""
    prepared = prepare(raw_of(seed), PreparationRules(split="temporal", k_core=3), tmp_path / "out")
    events = pl.read_parquet(tmp_path / "out" / "events.parquet").rows(named=True)
    first_of = {row["user_id"]: row["timestamp"] for row in reversed(events)}
    first_target = {
        name: min(row["timestamp"] for row in events if row["split"] == name) for name in ("valid", "test")
    }
    last_target = {
        name: max(row["timestamp"] for row in events if row["split"] == name and row["position"] > 0)
        for name in ("train", "valid")
    }
    assert last_target["train"] < first_target["valid"] and last_target["valid"] < first_target["test"]
    # an event of the training part that is later is the first of a user without training targets: in no example
    for row in events:
        if row["split"] == "train" and row["timestamp"] > last_target["train"]:
            assert row["position"] == 0 and row["timestamp"] == first_of[row["user_id"]]
    assert sum(prepared.splits.values()) == sum(row["position"] > 0 for row in events)


class TestErrors:
    def mark(self, rules: PreparationRules, **columns) -> list[int]:
        return mark_split(code_events(RawData(pl.LazyFrame(columns), None, "tiny", ())), rules).tolist()

    def test_an_empty_part(self):
        with pytest.raises(ValueError, match=r"no target for train: 3 events of 1 user.*split='leave_one_out'"):
            self.mark(PreparationRules(), user_id=["u"] * 3, item_id=list("abc"))
        times = [1e9 + t for t in (0, 1, 5, 5, 5)]
        with pytest.raises(ValueError, match="no target for validation: 4 targets.*3 have the time 1000000005"):
            self.mark(PreparationRules(split="temporal"), user_id=["u"] * 5, item_id=list("abcde"), timestamp=times)

    def test_a_published_split_that_goes_back(self):
        split = ["train", "train", "test", "valid", "test"]
        with pytest.raises(ValueError, match=r"1 event\(s\) follow one of a later split, first of user 'u'"):
            self.mark(PreparationRules(split="published"), user_id=["u"] * 5, item_id=list("abcde"), split=split)

    def test_a_first_event_is_no_target(self):
        split = ["valid", "valid", "test", "train", "train"]
        marked = self.mark(
            PreparationRules(split="published"), user_id=list("uuuvv"), item_id=list("abcab"), split=split
        )
        assert marked == [0, 1, 2, 0, 0]
