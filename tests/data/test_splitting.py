from __future__ import annotations

import logging
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_latentrec.data import (
    RecData,
    pack_examples,
    split_fingerprint,
    split_leave_one_out,
    split_published,
    split_temporal,
)


def make(sequences: dict[str, list[str]], **columns: list) -> RecData:
    rows = {"user_id": [], "item_id": [], "position": []}
    for user, items in sequences.items():
        for position, item in enumerate(items):
            rows["user_id"].append(user)
            rows["item_id"].append(item)
            rows["position"].append(position)
    items = sorted({item for items in sequences.values() for item in items})
    return RecData(Dataset.from_dict(rows | columns), Dataset.from_dict({"item_id": items}))


def random_sequences(seed: int, num_users: int = 20) -> dict[str, list[str]]:
    rng = random.Random(seed)
    return {f"u{n}": [f"i{rng.randrange(30)}" for _ in range(rng.randrange(3, 30))] for n in range(num_users)}


def rows_of(dataset: Dataset) -> list[tuple[str, list[str], str]]:
    return [(row["user_id"], row["history"], row["target"]) for row in dataset]


def slow_leave_one_out(sequences: dict, max_history: int, stride: int) -> dict[str, list]:
    rows = {"train": [], "validation": [], "test": []}
    for user, items in sequences.items():
        training = items[:-2]
        for p in range(1, len(training)):
            start = 0 if p <= max_history else math.ceil((p - max_history) / stride) * stride
            rows["train"].append((user, training[start:p], training[p]))
        rows["validation"].append((user, training, items[-2]))
        rows["test"].append((user, items[:-1], items[-1]))
    return rows


class TestLeaveOneOut:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(("max_history", "stride"), [(20, 1), (5, 1), (5, 2), (5, 4), (20, 10), (1, 1)])
    def test_equals_slow_split(self, seed, max_history, stride):
        sequences = random_sequences(seed)
        splits = split_leave_one_out(make(sequences), max_history, window_stride=stride)
        assert {name: rows_of(rows) for name, rows in splits.items()} == slow_leave_one_out(
            sequences, max_history, stride
        )

    def test_order_of_the_rows_of_the_interactions_does_not_matter(self):
        data = make(random_sequences(0))
        shuffled = RecData(data.interactions.shuffle(seed=1), data.items)
        assert split_fingerprint(split_leave_one_out(shuffled)) == split_fingerprint(split_leave_one_out(data))

    def test_a_larger_stride_packs_more_targets(self):
        data = make(random_sequences(0))
        lengths = [len(pack_examples(split_leave_one_out(data, 6, window_stride=s)["train"])) for s in (1, 2, 3, 5)]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] > 2 * lengths[-1]

    def test_short_users(self, caplog):
        sequences = {"u": ["a", "b", "c", "d"], "v": ["a", "b"], "w": ["c"], "x": ["b", "c", "d", "a"]}
        data = make(sequences)
        with pytest.raises(ValueError, match=r"user 'v' has 2 interaction.*fewer than 3 \(2 such.*k_core.*'drop'"):
            split_leave_one_out(data)
        with caplog.at_level(logging.WARNING):
            splits = split_leave_one_out(data, on_short="drop")
        assert "dropped 2 user(s)" in caplog.text
        assert splits["test"]["user_id"][:] == ["u", "x"]
        with pytest.raises(ValueError, match="on_short='ignore'"):
            split_leave_one_out(data, on_short="ignore")

    def test_nothing_to_train_on(self):
        with pytest.raises(ValueError, match=r"no target for train: 6 events of 2 user"):
            split_leave_one_out(make({"u": ["a", "b", "c"], "v": ["a", "b", "c"]}))

    @pytest.mark.parametrize(("max_history", "stride"), [(0, 1), (5, 0), (5, 5), (1, 2)])
    def test_arguments_out_of_range(self, max_history, stride):
        with pytest.raises(ValueError, match=f"max_history={max_history}"):
            split_leave_one_out(make(random_sequences(0)), max_history, window_stride=stride)

    def test_unknown_item_is_found_before_anything_else(self):
        data = make({"u": ["a", "b", "c"]})
        with pytest.raises(ValueError, match=r"1 unknown item\(s\) .*user_id='u', position=2, item_id='c'"):
            split_leave_one_out(RecData(data.interactions, data.items.select([0, 1])))


class TestTemporal:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("ratios", [(8, 1, 1), (0.5, 0.25, 0.25)])
    def test_equals_slow_split(self, seed, ratios):
        rng = random.Random(seed)
        sequences = random_sequences(seed)
        times = [sorted(rng.randrange(60) for _ in items) for items in sequences.values()]  # with many ties
        data = make(sequences, timestamp=[float(time) for user_times in times for time in user_times])
        targets = [
            (time, number, p, user)
            for number, (user, user_times) in enumerate(zip(sequences, times, strict=True))
            for p, time in enumerate(user_times)
            if p > 0
        ]
        targets.sort()
        first = int(len(targets) * ratios[0] / sum(ratios) + 1e-9)
        second = int(len(targets) * (ratios[0] + ratios[1]) / sum(ratios) + 1e-9)
        while targets[first - 1][0] == targets[first][0]:  # equal times go to the later part
            first -= 1
        while targets[second - 1][0] == targets[second][0]:
            second -= 1
        splits = split_temporal(data, ratios, max_history=4)
        for name, part in (
            ("train", targets[:first]),
            ("validation", targets[first:second]),
            ("test", targets[second:]),
        ):
            part = sorted(part, key=lambda target: target[1:3])
            kept = 4 if name == "train" else 100  # only training histories are cut
            expected = [(user, sequences[user][max(0, p - kept) : p], sequences[user][p]) for _, _, p, user in part]
            assert rows_of(splits[name]) == expected

    @pytest.mark.parametrize("seed", range(5))
    def test_training_ends_before_any_later_target(self, seed):
        rng = random.Random(seed)
        sequences = {user: [f"{user}-{p}" for p in range(len(s))] for user, s in random_sequences(seed).items()}
        times = {user: sorted(rng.randrange(40) for _ in items) for user, items in sequences.items()}
        time_of = {item: time for user in times for item, time in zip(sequences[user], times[user], strict=True)}
        splits = split_temporal(make(sequences, timestamp=[float(t) for user in times.values() for t in user]))
        last = -1
        for rows in splits.values():
            assert min(time_of[row["target"]] for row in rows) > last  # strictly: ties never straddle a cut
            last = max(time_of[item] for row in rows for item in (*row["history"], row["target"]))

    def test_ties_that_empty_a_part(self):
        sequences = {"u": list("abcdef"), "v": list("abcdef")}
        times = [0.0, 1.0, 5.0, 5.0, 5.0, 5.0] * 2
        with pytest.raises(ValueError, match=r"no target for validation: 10 targets.*8 have the time 5 of the first"):
            split_temporal(make(sequences, timestamp=times))
        with pytest.raises(ValueError, match=r"no target: none of the 1 events"):
            split_temporal(make({"u": ["a"]}, timestamp=[0.0]))

    def test_needs_timestamps_and_sound_ratios(self):
        with pytest.raises(ValueError, match="interactions have no timestamp"):
            split_temporal(make(random_sequences(0)))
        for ratios in ((8, 2), (8, 0, 2), (8, float("nan"), 1), (8, 1, float("inf"))):
            with pytest.raises(ValueError, match="ratios="):
                split_temporal(make(random_sequences(0)), ratios)

    def test_too_few_targets(self):
        with pytest.raises(ValueError, match="no target for validation"):
            split_temporal(make({"u": ["a", "b", "c"]}, timestamp=[1.0, 2.0, 3.0]))


class TestPublished:
    def test_each_event_is_a_target_of_its_split(self):
        split = ["train", "train", "valid", "test", "test", "train", "valid", "test"]
        splits = split_published(make({"u": list("abcde"), "v": list("xya")}, split=split), max_history=3)
        assert rows_of(splits["train"]) == [("u", ["a"], "b")]
        assert rows_of(splits["validation"]) == [("u", ["a", "b"], "c"), ("v", ["x"], "y")]
        assert rows_of(splits["test"]) == [
            ("u", ["a", "b", "c"], "d"), ("u", ["a", "b", "c", "d"], "e"), ("v", ["x", "y"], "a"),
        ]  # fmt: skip

    def test_needs_a_split(self):
        with pytest.raises(ValueError, match="no column 'split'"):
            split_published(make(random_sequences(0)))

    def test_target_without_history(self):
        with pytest.raises(ValueError, match=r"1 target\(s\) have an empty history"):
            split_published(make({"u": ["a", "b", "c"]}, split=["valid", "valid", "test"]))


class TestFingerprint:
    CODE = """
import sys
from datasets import Dataset, DatasetDict
from hf_latentrec.data import split_fingerprint
rows = Dataset.from_dict({"user_id": ["u", "v"], "history": [["a", "b"], ["c"]], "target": ["c", "d"]})
sys.stdout.write(split_fingerprint(DatasetDict(train=rows, test=rows)))
"""

    def splits(self, **changes) -> DatasetDict:
        columns = {"user_id": ["u", "v"], "history": [["a", "b"], ["c"]], "target": ["c", "d"]}
        rows = Dataset.from_dict(columns)
        return DatasetDict(train=Dataset.from_dict(columns | changes), test=rows)

    def test_same_in_another_process(self):
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-c", self.CODE]
        there = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert there == split_fingerprint(self.splits())
        assert len(there) == 64

    def test_order_of_rows_and_columns_does_not_matter(self):
        splits = self.splits()
        turned = DatasetDict(
            test=splits["test"].select_columns(["target", "history", "user_id"]), train=splits["train"].select([1, 0])
        )
        assert split_fingerprint(turned) == split_fingerprint(splits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"user_id": ["u", "w"]},
            {"target": ["c", "e"]},
            {"history": [["b", "a"], ["c"]]},
            {"history": [["ab"], ["c"]]},
            {"history": [["a", "b1:c"], ["c"]]},
            {"user_id": ["v", "u"]},
        ],
    )
    def test_any_change_changes_it(self, changes):
        assert split_fingerprint(self.splits(**changes)) != split_fingerprint(self.splits())

    def test_splits_are_told_apart(self):
        splits = self.splits(target=["x", "y"])
        swapped = DatasetDict(train=splits["test"], test=splits["train"])
        assert split_fingerprint(swapped) != split_fingerprint(splits)
