from __future__ import annotations

import numpy as np
import pytest

from hf_latentrec.data import RecData, k_core
from hf_latentrec.data.preparation.coding import code_events
from hf_latentrec.data.preparation.filters import dense_core, distinct_pairs, newest, without_duplicates
from hf_latentrec.data.schema import in_user_order, to_dataset, to_polars


def slow_core(pairs: list[tuple], k: int) -> list[tuple]:
    """Removes one event at a time."""
    pairs = list(pairs)
    while True:
        users, items = [user for user, _ in pairs], [item for _, item in pairs]
        weak = next((p for p in pairs if users.count(p[0]) < k or items.count(p[1]) < k), None)
        if weak is None:
            return pairs
        pairs.remove(weak)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 5, 9, 40])
def test_core_equals_a_slow_loop(seed, k):
    rng = np.random.default_rng(seed)
    user_E, item_E = rng.integers(0, 20, 150), (20 * rng.random(150) ** 2).astype(int)
    keep_E, rounds = dense_core(user_E, item_E, k)
    pairs = list(zip(user_E.tolist(), item_E.tolist(), strict=True))
    assert sorted(pair for pair, stays in zip(pairs, keep_E, strict=True) if stays) == sorted(slow_core(pairs, k))
    assert rounds >= 1


def test_core_equals_that_of_loaded_data(raw_of):
    events = code_events(raw_of(0))
    frame = in_user_order(raw_of(0).interactions.collect(), by=["timestamp"])
    data = RecData(to_dataset(frame), to_dataset(frame.select("item_id").unique()))
    keep_E, _ = dense_core(events.user_E, events.item_E, 8)
    kept = events.select(keep_E)
    ours = list(
        zip(events.user_ids.gather(kept.user_E), events.item_ids.gather(kept.item_E), kept.time_E, strict=True)
    )
    theirs = to_polars(k_core(data, 8).interactions).select("user_id", "item_id", "timestamp").rows()
    assert 0 < len(ours) < len(events) and sorted(ours) == sorted(theirs)


def test_core_of_nothing():
    none = np.zeros(0, dtype=np.uint32)
    keep_E, rounds = dense_core(none, none, 5)
    assert len(keep_E) == 0 and rounds == 1


def test_core_peels_a_chain():
    """Every round removes one user and one item: the number of rounds is that of the chain."""
    user_E, item_E = np.repeat(np.arange(6), 2)[1:], np.repeat(np.arange(6), 2)[:-1]
    keep_E, rounds = dense_core(user_E, item_E, 2)
    assert not keep_E.any() and rounds > 3


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_equal_a_loop(raw_of, seed):
    events = code_events(raw_of(seed))
    rows = list(zip(events.user_E.tolist(), events.item_E.tolist(), events.time_E.tolist(), strict=True))
    expected = [row not in rows[:n] for n, row in enumerate(rows)]
    assert without_duplicates(events).tolist() == expected and not all(expected)


@pytest.mark.parametrize("seed", range(3))
def test_repeated_equal_a_loop(raw_of, seed):
    events = code_events(raw_of(seed))
    pairs = list(zip(events.user_E.tolist(), events.item_E.tolist(), strict=True))
    first = [pair not in pairs[:n] for n, pair in enumerate(pairs)]
    last = [pair not in pairs[n + 1 :] for n, pair in enumerate(pairs)]
    assert distinct_pairs(events.user_E, events.item_E, "first").tolist() == first
    assert distinct_pairs(events.user_E, events.item_E, "last").tolist() == last
    assert first != last


def test_newest_equals_a_loop(raw_of):
    events = code_events(raw_of(0))
    users = events.user_E.tolist()
    assert newest(events, 4).tolist() == [users[row:].count(user) <= 4 for row, user in enumerate(users)]
