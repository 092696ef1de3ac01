"""Whole lists of rules against a slow loop over rows."""

from __future__ import annotations

import html
import logging
from collections import Counter
from datetime import UTC, date, datetime

import numpy as np
import pytest

from hf_latentrec.data.preparation import PreparationRules
from hf_latentrec.data.preparation.applying import apply_rules, months_before
from hf_latentrec.data.preparation.coding import code_events
from hf_latentrec.data.preparation.items import describe_items, title_words


def seconds(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


def slow_core(rows: list[dict], k: int) -> list[dict]:
    while True:
        users, items = Counter(row["user_id"] for row in rows), Counter(row["item_id"] for row in rows)
        kept = [row for row in rows if users[row["user_id"]] >= k and items[row["item_id"]] >= k]
        if len(kept) == len(rows):
            return kept
        rows = kept


def slow_rules(rows: list[dict], rules: PreparationRules, titles: dict[str, str], start: str | None) -> list[dict]:
    rows = sorted(rows, key=lambda row: (row["user_id"], row["timestamp"]))
    words = {item: len(html.unescape(title).split()) for item, title in titles.items()}
    if rules.min_rating is not None:
        rows = [row for row in rows if row["rating"] >= rules.min_rating]
    if rules.require_title:
        rows = [row for row in rows if words.get(row["item_id"], 0) > 0]
    if rules.max_title_words is not None:
        rows = [row for row in rows if words.get(row["item_id"], 0) <= rules.max_title_words]
    if rules.drop_duplicates:
        first: dict[tuple, dict] = {}
        for row in rows:
            first.setdefault((row["user_id"], row["item_id"], row["timestamp"]), row)
        rows = list(first.values())
    if start is not None:
        rows = [row for row in rows if row["timestamp"] >= seconds(start)]
    if rules.end is not None:
        rows = [row for row in rows if row["timestamp"] < seconds(rules.end)]
    for name, ordered in (("first", rows[::-1]), ("last", rows)):
        if rules.repeated == name:
            kept = {(row["user_id"], row["item_id"]): id(row) for row in ordered}.values()
            rows = [row for row in rows if id(row) in set(kept)]
    if rules.max_interactions is not None:
        users = [row["user_id"] for row in rows]
        rows = [row for n, row in enumerate(rows) if users[n:].count(row["user_id"]) <= rules.max_interactions]
    if rules.k_core is not None:
        rows = slow_core(rows, rules.k_core)
    if rules.split == "leave_one_out":
        users = Counter(row["user_id"] for row in rows)
        rows = [row for row in rows if users[row["user_id"]] >= 3]
    return rows


RULES = [
    {},
    {"min_rating": 3.0},
    {"require_title": True},
    {"max_title_words": 3},
    {"drop_duplicates": False},
    {"start": "2014-05-25"},
    {"end": "2014-06-20"},
    {"start": "2014-05-20", "end": "2014-07-01"},
    {"repeated": "first"},
    {"repeated": "last"},
    {"max_interactions": 5},
    {"k_core": 4},
    {"k_core": 9},
    {"split": "temporal", "k_core": 2, "max_interactions": 2},
    {"min_rating": 2, "require_title": True, "end": "2014-07-01", "repeated": "last", "k_core": 3},
]


def apply(raw, rules):
    events = code_events(raw)
    return apply_rules(events, rules, title_words(describe_items(raw, events.item_ids)))


def rows_left(events) -> list[tuple]:
    users, items = events.user_ids.to_list(), events.item_ids.to_list()
    return [
        (users[u], items[i], float(t)) for u, i, t in zip(events.user_E, events.item_E, events.time_E, strict=True)
    ]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settings", RULES, ids=str)
def test_rules_equal_a_slow_loop(raw_of, rows_of, title_of, settings, seed):
    rules = PreparationRules(**settings)
    events, outcomes = apply(raw_of(seed), rules)
    expected = slow_rules(rows_of(seed), rules, title_of, rules.start)
    assert rows_left(events) == [(row["user_id"], row["item_id"], row["timestamp"]) for row in expected]
    assert 0 < len(expected) < len(rows_of(seed)) or settings == {"drop_duplicates": False}
    last = outcomes[-1].after
    assert (last.rows, last.users, last.items) == (
        len(expected),
        len({row["user_id"] for row in expected}),
        len({row["item_id"] for row in expected}),
    )
    for one, next_one in zip(outcomes, outcomes[1:], strict=False):
        assert one.after == next_one.before


def test_report_is_in_order_and_says_rounds(raw_of):
    settings = {"min_rating": 2, "end": "2014-07-01", "k_core": 4, "repeated": "first", "require_title": True}
    _, outcomes = apply(raw_of(0), PreparationRules(**settings))
    assert [outcome.rule for outcome in outcomes] == [
        "min_rating=2", "require_title", "drop_duplicates", "end=2014-07-01", "repeated=first", "k_core=4",
        "at least 3 events of a user",
    ]  # fmt: skip
    assert outcomes[-2].note.endswith("rounds")


def test_the_window_holds_its_first_moment_and_not_its_end(raw_of):
    midnight = seconds("2014-06-01")
    rows = [
        {"user_id": "u", "item_id": f"i{n}", "timestamp": midnight + seconds_after, "rating": 5.0}
        for n, seconds_after in enumerate((-1, 0, 86_399, 86_400))
    ]
    rules = PreparationRules(start="2014-06-01", end="2014-06-02", split="temporal")
    assert [item for _, item, _ in rows_left(apply(raw_of(rows), rules)[0])] == ["i1", "i2"]


class TestMovingWindow:
    RULES = {"start": "2014-07-01", "end": "2014-07-10", "k_core": 3, "split": "temporal"}

    @pytest.mark.parametrize("min_items", [3, 10, 15])
    def test_equals_a_slow_loop(self, raw_of, rows_of, title_of, min_items):
        rules = PreparationRules(**self.RULES, min_items=min_items, window_months=1)
        moves = ["2014-07-01", "2014-06-01", "2014-05-01"]
        for number, start in enumerate(moves):  # noqa: B007
            expected = slow_rules(rows_of(0), rules, title_of, start)
            if len({row["item_id"] for row in expected}) >= min_items:
                break
        events, outcomes = apply(raw_of(0), rules)
        assert rows_left(events) == [(row["user_id"], row["item_id"], row["timestamp"]) for row in expected]
        assert f"from 2014-07-01 to {start} in {number} steps: {events.num_items()} items" in outcomes[-1].note
        assert outcomes[1].rule == f"start={start}"

    def test_stops_at_the_beginning_of_the_data(self, raw_of, caplog):
        with caplog.at_level(logging.WARNING):
            events, outcomes = apply(raw_of(0), PreparationRules(**self.RULES, min_items=5000))
        assert "2014-04-01 in 1 steps" in outcomes[-1].note
        assert outcomes[-1].note.endswith("fewer than min_items=5,000, at the beginning of the data")
        assert "at the beginning of the data" in caplog.text and len(events)

    def test_months(self):
        assert months_before(date(2017, 10, 1), 3) == date(2017, 7, 1)
        assert months_before(date(2018, 1, 15), 1) == date(2017, 12, 15)
        assert months_before(date(2016, 5, 31), 3) == date(2016, 2, 29)
        assert months_before(date(2018, 3, 1), 25) == date(2016, 2, 1)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "needs"),
        [
            ({"min_rating": 3}, "min_rating needs ratings"),
            ({"start": "2014-05-25"}, "start needs timestamps"),
            ({"end": "2014-05-25"}, "end needs timestamps"),
            ({"split": "temporal"}, "split='temporal' needs timestamps"),
            ({"split": "published"}, "split='published' needs a published split"),
            ({"require_title": True}, "require_title needs titles"),
            ({"max_title_words": 4}, "max_title_words needs titles"),
        ],
    )
    def test_what_the_source_lacks(self, raw_of, settings, needs):
        raw = raw_of(0, described=False, drop=("timestamp", "rating"))
        with pytest.raises(ValueError, match=f"{needs}, and the source has none"):
            apply(raw, PreparationRules(**settings))

    def test_missing_ratings(self, raw_of, rows_of):
        rows = rows_of(0)
        rows[3]["rating"] = None
        with pytest.raises(ValueError, match="min_rating=3, but 1 of 440 events have no rating"):
            apply(raw_of(rows), PreparationRules(min_rating=3))

    def test_duplicates_without_times_are_said(self, raw_of):
        _, outcomes = apply(raw_of(0, drop=("timestamp",)), PreparationRules())
        assert outcomes[0].note == "no timestamps: not applied"
        assert outcomes[0].before == outcomes[0].after

    def test_nothing_left_names_the_rule_and_all_drops(self, raw_of, rows_of):
        rows = rows_of(0)
        low = sum(row["rating"] < 3 for row in rows)
        message = (
            rf"nothing is left after k_core=100, of 440 interactions of 30 users.*min_rating=3 {low} rows of \d+ "
            r"users; drop_duplicates \d+ rows of \d+ users; k_core=100 \d+ rows of 30 users. Weaken k_core=100"
        )
        with pytest.raises(ValueError, match=message):
            apply(raw_of(rows), PreparationRules(min_rating=3, k_core=100))

    def test_nothing_left_of_a_moving_window(self, raw_of):
        rules = PreparationRules(start="2014-07-01", end="2014-07-10", min_items=5, k_core=300, split="temporal")
        with pytest.raises(ValueError, match="nothing is left after k_core=300"):
            apply(raw_of(0), rules)

    def test_rating_thresholds_are_compared_as_ratings_are_kept(self, raw_of, rows_of):
        rows = [row | {"rating": 3.7} for row in rows_of(0)]
        events, _ = apply(raw_of(rows), PreparationRules(min_rating=3.7, drop_duplicates=False))
        assert len(events) == len(rows) and events.rating_E.dtype == np.float32
