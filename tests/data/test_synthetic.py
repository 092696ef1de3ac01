from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from hf_latentrec.data import make_synthetic, split_leave_one_out, split_temporal, validate


def digest(data) -> str:
    return hashlib.sha256(json.dumps([data.interactions.to_dict(), data.items.to_dict()]).encode()).hexdigest()


def test_same_seed_same_bytes_in_another_process():
    code = "import hashlib, json, sys\nfrom hf_latentrec.data import make_synthetic\n"
    code += "data = make_synthetic(num_users=30, seed=3)\n"
    code += "text = json.dumps([data.interactions.to_dict(), data.items.to_dict()])\n"
    code += "sys.stdout.write(hashlib.sha256(text.encode()).hexdigest())"
    root = Path(__file__).resolve().parents[2]
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert there == digest(make_synthetic(num_users=30, seed=3))
    assert there != digest(make_synthetic(num_users=30, seed=4))


@pytest.mark.parametrize("num_items", [100, 403, 960])
def test_items_are_unique_and_readable(num_items):
    items = validate(make_synthetic(num_users=10, num_items=num_items, max_length=12), require_codes=True).items
    assert len(items) == num_items
    assert len(set(items["title"])) == num_items
    assert len({tuple(code) for code in items["semantic_id"]}) == num_items
    for row in items:
        assert row["brand"] in row["title"] and row["category"] in row["title"]


def test_users_have_interests_and_no_repeats():
    data = make_synthetic(num_users=200, noise=0.0, min_length=8, max_length=16)
    category = dict(zip(data.items["item_id"], data.items["category"], strict=True))
    sequences = defaultdict(list)
    for row in data.interactions:
        sequences[row["user_id"]].append(row["item_id"])
    assert len(sequences) == 200
    assert {len({category[item] for item in items}) for items in sequences.values()} == {2, 3}
    assert {len(items) for items in sequences.values()} == set(range(8, 17))
    assert split_temporal(data)["test"].num_rows > 0  # there are timestamps

    noisy = make_synthetic(num_users=200, noise=0.5)
    pairs = Counter(zip(noisy.interactions["user_id"], noisy.interactions["item_id"], strict=True))
    assert max(pairs.values()) == 1


def hit_rate(predictions: list[list[str]], targets: list[str], k: int) -> float:
    return sum(target in ranked[:k] for ranked, target in zip(predictions, targets, strict=True)) / len(targets)


def test_the_whole_history_tells_much_more_than_the_last_item():
    data = make_synthetic()
    splits = split_leave_one_out(data)
    train, test = splits["train"], splits["test"]
    popularity = [item for item, _ in Counter(train["target"]).most_common(10)]
    after: dict = defaultdict(Counter)
    for history, target in zip(train["history"], train["target"], strict=True):
        after[history[-1]][target] += 1

    rings = defaultdict(list)
    for row in data.items:
        rings[row["category"]].append(row["item_id"])
    following = {item: ring[(i + 1) % len(ring)] for ring in rings.values() for i, item in enumerate(ring)}

    def oracle(history: list[str]) -> str:
        """The number of interests that explains most of the history, then a vote of the turns before."""

        def explained(m: int) -> int:
            return sum(following[history[t - m]] == history[t] for t in range(m, len(history)))

        m = max((2, 3), key=explained)
        votes: Counter = Counter()
        for turns in range(1, len(history) // m + 1):
            item = history[-turns * m]
            for _ in range(turns):
                item = following[item]
            votes[item] += 1
        return votes.most_common(1)[0][0]

    targets = test["target"][:]
    by_oracle = hit_rate([[oracle(history)] for history in test["history"]], targets, 1)
    last_items = [history[-1] for history in test["history"]]
    by_last = hit_rate([[item for item, _ in after[last].most_common(10)] for last in last_items], targets, 10)
    by_popularity = hit_rate([popularity] * len(targets), targets, 10)
    assert by_oracle > 0.85  # HR@1; a tenth of the targets is noise
    assert by_last < 0.15 and by_popularity < 0.15  # HR@10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_items": 50}, r"num_items=50, min_length=8, max_length=16; needs"),
        ({"num_items": 2000}, r"num_items=2000.*num_items <= 960"),
        ({"min_length": 2}, r"min_length=2"),
        ({"num_users": 0}, r"num_users=0"),
        ({"noise": 1.0}, r"noise=1\.0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_synthetic(**arguments)
