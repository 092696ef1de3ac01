from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from hf_latentrec.data.preparation.coding import code_events
from hf_latentrec.data.sources.raw_data import RawData


def decoded(events) -> list[tuple]:
    users, items = events.user_ids.to_list(), events.item_ids.to_list()
    return [
        (users[u], items[i], float(t)) for u, i, t in zip(events.user_E, events.item_E, events.time_E, strict=True)
    ]


def raw(**columns) -> RawData:
    return RawData(pl.LazyFrame(columns), None, "tiny", ())


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_stable_sort_by_user_and_time(raw_of, rows_of, seed):
    expected = sorted(rows_of(seed), key=lambda row: (row["user_id"], row["timestamp"]))  # sorted() is stable
    events = code_events(raw_of(seed))
    assert decoded(events) == [(r["user_id"], r["item_id"], r["timestamp"]) for r in expected]
    assert events.rating_E.tolist() == [row["rating"] for row in expected]
    assert events.user_ids.to_list() == sorted({row["user_id"] for row in expected})
    assert events.item_ids.to_list() == sorted({row["item_id"] for row in expected})


def test_columns_per_user_equal_a_loop(raw_of):
    events = code_events(raw_of(0))
    users = events.user_E.tolist()
    assert events.positions().tolist() == [users[:row].count(user) for row, user in enumerate(users)]
    assert events.lengths().tolist() == [users.count(user) for user in users]
    assert events.is_first().tolist() == [user not in users[:row] for row, user in enumerate(users)]
    assert (events.num_users(), events.num_items()) == (len(set(users)), len(set(events.item_E.tolist())))


def test_dense_forgets_the_unused(raw_of):
    events = code_events(raw_of(0))
    few = events.select(events.item_E % 3 == 0)
    dense = few.dense()
    assert decoded(dense) == decoded(few)
    assert dense.user_ids.to_list() == sorted({row[0] for row in decoded(few)})
    assert dense.item_ids.to_list() == sorted({row[1] for row in decoded(few)})
    assert len(few.select(np.zeros(len(few), dtype=bool)).dense().user_ids) == 0


def test_the_order_where_there_are_no_times():
    columns = {"user_id": ["u", "v", "u", "u"], "item_id": ["c", "x", "a", "b"]}
    assert code_events(raw(**columns)).item_E.tolist() == [2, 0, 1, 3]  # that of the rows
    assert code_events(raw(**columns, position=[2, 0, 0, 1])).item_E.tolist() == [0, 1, 2, 3]


def test_position_decides_among_equal_times():
    times = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [1e9, 1e9, 0.9e9]}
    assert code_events(raw(**times, position=[1, 0, 0])).item_E.tolist() == [2, 1, 0]
    assert code_events(raw(**times)).item_E.tolist() == [2, 0, 1]


@pytest.mark.parametrize("unit", [1.0, 0.25])
@pytest.mark.parametrize("positions", [range(-3, 3), [-(2**40), 0, 2**40], [None, 0, 1]])
def test_the_order_of_any_numbers(unit, positions):
    """Whole numbers near each other are sorted in a way of their own."""
    rng = np.random.default_rng(0)
    num_rows = 500
    rows = {
        "user_id": [f"u{n}" for n in rng.integers(0, 9, num_rows)],
        "item_id": [f"i{n}" for n in range(num_rows)],
        "timestamp": (1e9 + unit * rng.integers(0, 8, num_rows)).tolist(),
        "position": [positions[n % len(positions)] for n in rng.integers(0, 99, num_rows)],
    }
    lowest = float("-inf")  # what is missing comes first
    keys = zip(rows["user_id"], rows["timestamp"], rows["position"], strict=True)
    keys = [(user, time, lowest if position is None else position) for user, time, position in keys]
    expected = [rows["item_id"][row] for row in sorted(range(num_rows), key=keys.__getitem__)]
    assert [item for _, item, _ in decoded(code_events(raw(**rows)))] == expected


class TestBadInput:
    def test_all_ids_missing(self):
        columns = {"user_id": pl.Series([None, None], dtype=pl.String), "item_id": ["a", "b"]}
        with pytest.raises(ValueError, match=r"tiny: 2 interaction\(s\) without user_id, first row 0"):
            code_events(raw(**columns))

    @pytest.mark.parametrize("missing", [None, ""])
    @pytest.mark.parametrize("column", ["user_id", "item_id"])
    def test_missing_ids(self, column, missing):
        columns = {"user_id": ["u", "v", "w"], "item_id": ["a", "b", "c"]}
        columns[column] = [columns[column][0], missing, missing]
        with pytest.raises(ValueError, match=rf"tiny: 2 interaction\(s\) without {column}, first row 1"):
            code_events(raw(**columns))

    def test_no_rows(self):
        with pytest.raises(ValueError, match="tiny: no interactions"):
            code_events(RawData(pl.LazyFrame(schema={"user_id": pl.String, "item_id": pl.String}), None, "tiny", ()))

    def test_unknown_split(self):
        with pytest.raises(ValueError, match=r"split of row 1 \(user 'v'\) is none of train, valid, test"):
            code_events(raw(user_id=["u", "v"], item_id=["a", "b"], split=["train", "dev"]))

    @pytest.mark.parametrize("time", [1.5e12, None, float("nan"), 5.0])
    def test_times_that_are_no_seconds(self, time):
        with pytest.raises(ValueError, match=r"tiny: 1 of 2 interaction\(s\).*user_id='v', item_id='b'"):
            code_events(raw(user_id=["u", "v"], item_id=["a", "b"], timestamp=[1.5e9, time]))
