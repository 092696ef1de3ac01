"""A tiny recommender and teacher text for its data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hf_latentrec.cot import segment_cot, write_template_text
from hf_latentrec.data import make_synthetic


sys.path.append(str(Path(__file__).parents[1]))

from tiny import TinyRecommender, make_tiny_recommender  # noqa: E402


@pytest.fixture(scope="session")
def tiny() -> TinyRecommender:
    """A model without thoughts, its processor and the splits of its data. Tests leave it as it is."""
    tiny = make_tiny_recommender(num_users=12)
    tiny.model.eval()
    return tiny


@pytest.fixture(scope="session")
def segments(tiny):
    """Segments of template text for the training examples."""
    items = make_synthetic(num_users=12, num_items=60, max_length=10).items
    return segment_cot(write_template_text(tiny.splits["train"], items))
