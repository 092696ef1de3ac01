"""What is measured, in which order, and what counts; the clock is the test's own."""

from __future__ import annotations

import statistics

import pytest
import torch

from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.evaluation import latency, measure_item_latency, measure_latency
from tests.tiny import make_tiny_recommender


class Clock:
    """Seconds go by where the test says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def spend(self, monkeypatch, target, name, seconds):
        """Every call of a method takes `seconds(arguments, keywords)`."""
        method = getattr(target, name)

        def slow(*arguments, **given):
            self.now += seconds(*arguments, **given)
            return method(*arguments, **given)

        monkeypatch.setattr(target, name, slow)


def read(rows, **labels):
    """Seconds per user of one row; there is one."""
    (row,) = [row for row in rows if labels.items() <= row.items()]
    assert row["users_per_second"] == pytest.approx(1 / row["seconds_per_user"])
    return row["seconds_per_user"]


@pytest.fixture
def tiny():
    model, processor, splits = make_tiny_recommender(num_thoughts=2)
    return model.train(), processor, splits["test"]["history"][:12]


def test_stages_are_told_apart_and_sum_to_the_total(tiny, monkeypatch):
    model, processor, histories = tiny
    clock, kind = Clock(monkeypatch), type(model)
    clock.spend(monkeypatch, type(processor), "__call__", lambda *_: 0.5)
    clock.spend(monkeypatch, kind, "encode", lambda *_, **__: 4.0)
    clock.spend(monkeypatch, kind, "think", lambda _, state, num_thoughts, **__: 2.0 if num_thoughts is None else 0.25)
    clock.spend(monkeypatch, type(processor), "post_process_recommendations", lambda *_: 1.0)
    rows = measure_latency(model, processor, histories, num_users=10, batch_sizes=[5, 4], num_beams=5)
    expected = {
        (True, "encode"): 4.5,
        (True, "think"): 2.0,
        (True, "decode"): 1.0,
        (True, "total"): 7.5,
        (False, "encode"): 4.5,
        (False, "think"): 0.25,
        (False, "decode"): 1.0,
        (False, "total"): 5.75,
    }
    assert len(rows) == 2 * len(expected)
    for (thinking, stage), seconds in expected.items():
        for size in (5, 4):
            found = read(rows, thinking=thinking, stage=stage, batch_size=size)
            assert found == pytest.approx(seconds / size)
    assert model.training and "encode" not in vars(model) and "think" not in vars(model)


def test_thinking_and_not_thinking_take_turns_and_medians_count(tiny, monkeypatch):
    model, processor, histories = tiny
    clock, calls = Clock(monkeypatch), []
    # Seconds of a batch with and without thoughts, by round; the first round warms up.
    seconds = {None: [1000, 1, 3, 2], 0: [500, 1, 1, 7]}
    generate = model.generate

    def timed_generate(**settings):
        thoughts = settings["num_thoughts"]
        calls.append((thoughts, len(settings["input_ids"]), settings["num_beams"], model.training))
        done = sum(call[0] == thoughts for call in calls)
        clock.now += seconds[thoughts][0 if done == 1 else 1 + (done - 2) // 2]
        return generate(**settings)

    monkeypatch.setattr(model, "generate", timed_generate)
    rows = measure_latency(model, processor, histories, num_users=11, batch_sizes=[4], num_beams=5)
    one_round = [(thoughts, 4, 5, False) for thoughts in (None, None, 0, 0)]  # 11 users fill two batches
    assert calls == [(None, 4, 5, False), (0, 4, 5, False), *one_round * 3]
    assert read(rows, stage="total", thinking=True) == statistics.median([1, 3, 2]) / 4
    assert read(rows, stage="total", thinking=False) == statistics.median([1, 1, 7]) / 4


def test_a_written_text_counts_as_thinking(tiny, monkeypatch):
    model, processor, histories = tiny
    clock = Clock(monkeypatch)
    clock.spend(monkeypatch, latency, "write_text", lambda *_: 9.0)
    settings = {"num_users": 4, "batch_sizes": [2], "num_beams": 3, "repeats": 1, "max_cot_tokens": 3}
    rows = measure_latency(model, processor, histories, **settings)
    assert read(rows, stage="total", thinking="explicit_cot") == 9.0 / 2  # nothing else takes time here
    think = {row["thinking"]: row["seconds_per_user"] for row in rows if row["stage"] == "think"}
    assert think == {True: 0.0, False: 0.0, "explicit_cot": 4.5}
    assert {row["users_per_second"] for row in rows if row["stage"] == "decode"} == {None}
    model.config.num_thoughts, model.config.end_thought_token_id = 0, None
    with pytest.raises(ValueError, match="no end_thought_token_id"):
        measure_latency(model, processor, histories, **settings)
    assert model.training


def test_a_model_without_thoughts_has_the_rows_without():
    model, processor, splits = make_tiny_recommender()
    rows = measure_latency(model, processor, splits["test"]["history"][:2], num_users=2, batch_sizes=[2], repeats=1)
    assert [(row["stage"], row["thinking"]) for row in rows] == [(stage, False) for stage in latency.STAGES]


def test_steps_of_an_item_recommender_take_turns(monkeypatch):
    items = ItemTable([f"i{row}" for row in range(20)])
    model = LaresForSequentialRecommendation(LaresConfig(num_items=20), items).train()
    clock, calls = Clock(monkeypatch), []

    def seconds(histories, k, num_steps=7):  # 7 are its own
        calls.append((len(histories), k, num_steps))
        return float(num_steps)

    clock.spend(monkeypatch, model, "recommend", seconds)
    histories, settings = [["i1", "i2"]] * 9, {"num_users": 9, "batch_sizes": [3], "repeats": 2, "top_k": 4}
    rows = measure_item_latency(model, histories, thinks=True, num_steps=(1, 4), **settings)
    assert calls == [
        *[(3, 4, steps) for steps in (7, 1, 4)],
        *[(3, 4, steps) for steps in (7, 1, 4) for _ in "123"] * 2,
    ]
    for thinking, seconds in ((True, 7), ("1 step", 1), ("4 steps", 4)):
        assert read(rows, stage="total", thinking=thinking, batch_size=3) == seconds / 3
    rows = measure_item_latency(model, histories, **settings)
    assert read(rows, stage="total", thinking=False) == 7 / 3 and len(rows) == 1
    assert model.training


def test_an_accelerator_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
    watch = latency.Stopwatch(torch.device("cuda"))
    with watch("total"), watch("encode"):
        assert len(waits) == 2
    assert len(waits) == 4


def test_defaults_are_those_of_the_paper_at_many_batch_sizes():
    defaults = measure_latency.__wrapped__.__kwdefaults__
    paper = {"num_users": 100, "num_beams": 10, "normalize": "catalog", "repeats": 3, "max_cot_tokens": None}
    assert defaults == {"batch_sizes": (1, 2, 4, 8, 16, 32, 64), **paper}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 100}, "12 histories for 100 users"),
        ({"num_users": 5, "batch_sizes": [1, 8]}, "5 users do not fill a batch of 8"),
        ({"batch_sizes": []}, "batch_sizes is empty"),
        ({"batch_sizes": [4, 0]}, r"batch_sizes are \[4, 0\] and repeats 3"),
        ({"repeats": 0}, "repeats 0"),
    ],
)
def test_what_cannot_be_measured_is_named(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        measure_latency(*tiny, **{"num_users": 12, "batch_sizes": [4], **settings})
