"""The way to a baseline in small."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from . import toy_baselines


@pytest.fixture
def make_model() -> Callable:
    """See [`toy_baselines.make_model`]."""
    return toy_baselines.make_model
