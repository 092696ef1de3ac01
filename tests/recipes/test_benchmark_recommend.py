"""The benchmark of inference at toy sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_recommend as recipe  # noqa: E402


TINY = ["--catalog=300", "--repeats=1"]


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch):
    monkeypatch.setattr(recipe, "USERS", 20)
    monkeypatch.setattr(recipe, "ITEMS", 50)
    monkeypatch.setattr(recipe, "LARGE_USERS", 7)


def test_everything_is_timed_and_printed(capsys):
    recipe.main(TINY)
    printed = capsys.readouterr().out.splitlines()
    assert all(value > 0 for name, value in json.loads(printed[-1]).items() if "step" not in name)
    assert sum(line.startswith(("| SASRec", "| LARES", "| in blocks")) for line in printed) == 6


def test_other_recommendations_in_blocks_end_the_benchmark(monkeypatch):
    class Blind(recipe.SASRecForSequentialRecommendation):
        def score(self, states, items=slice(None)):
            return super().score(states, items) * (items.start or 0 > 0)

    monkeypatch.setattr(recipe, "SASRecForSequentialRecommendation", Blind)
    with pytest.raises(SystemExit, match="other recommendations"):
        recipe.main(TINY)
