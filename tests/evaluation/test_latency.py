"""What is measured, in which order, and what counts; the clock is the test's own."""

from __future__ import annotations

import pytest

from hf_latentrec.evaluation import latency
from tests.tiny import make_tiny_recommender


def test_thinking_and_not_thinking_take_turns(monkeypatch):
    model, processor, splits = make_tiny_recommender(num_thoughts=2)
    model.train()
    histories = splits["test"]["history"][:12]
    clock, calls = [0.0], []
    # Seconds of a batch with and without thoughts, by round; the first round warms up.
    seconds = {None: [1000, 1, 3, 2], 0: [500, 1, 1, 7]}
    generate = model.generate

    def timed_generate(**settings):
        output = generate(**settings)
        calls.append((settings["num_thoughts"], len(settings["input_ids"]), settings["num_beams"], model.training))
        done = sum(thoughts == settings["num_thoughts"] for thoughts, *_ in calls)
        round_ = 0 if done == 1 else 1 + (done - 2) // 3
        clock[0] += seconds[settings["num_thoughts"]][round_]
        return output

    monkeypatch.setattr(model, "generate", timed_generate)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    result = latency.measure_latency(model, processor, histories, num_users=10, num_beams=5)
    measured = [(thoughts, size, 5, False) for thoughts in (None, 0) for size in (4, 4, 2)]
    assert calls == [(None, 4, 5, False), (0, 4, 5, False), *measured * 3]
    assert result == latency.Latency(thinking=3 * 2 / 10, not_thinking=3 * 1 / 10, num_thoughts=2, num_users=10)
    assert result.overhead == pytest.approx(1.0)
    assert model.training


def test_defaults_are_those_of_the_paper():
    defaults = latency.measure_latency.__wrapped__.__kwdefaults__
    assert defaults == {"num_users": 100, "batch_size": 4, "num_beams": 10, "repeats": 3}


def test_what_cannot_be_measured_is_named():
    model, processor, splits = make_tiny_recommender(num_thoughts=1)
    with pytest.raises(ValueError, match="3 histories for 100 users"):
        latency.measure_latency(model, processor, splits["test"]["history"][:3])
    model.config.num_thoughts = 0
    with pytest.raises(ValueError, match="num_thoughts is 0, so there is nothing to compare"):
        latency.measure_latency(model, processor, splits["test"]["history"][:3], num_users=3)
