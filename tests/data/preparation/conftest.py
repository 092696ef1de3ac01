"""Small raw data with everything that rules are about."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
import pytest

from hf_latentrec.data.sources.raw_data import RawData


DAY = 86_400.0
BEGIN = 1_400_000_000.0


def random_rows(seed: int, num_rows: int = 400, num_users: int = 30, num_items: int = 25) -> list[dict]:
    """Events in no order, with ties in time, exact duplicates and repeated items."""
    rng = random.Random(seed)
    rows = [
        {
            "user_id": f"u{rng.randrange(num_users)}",
            "item_id": f"i{int(num_items * rng.random() ** 2)}",
            "timestamp": BEGIN + DAY * rng.randrange(60),
            "rating": float(rng.randrange(1, 6)),
        }
        for _ in range(num_rows)
    ]
    rows += [dict(rng.choice(rows)) for _ in range(num_rows // 10)]
    rng.shuffle(rows)
    return rows


def titles(num_items: int = 25) -> dict[str, str]:
    """Some items are not described, some have an empty title."""
    words = {f"i{n}": " ".join(f"w{n}" for _ in range(n % 7)) for n in range(num_items) if n % 5}
    return words | {"i1": "Salt &amp; Pepper", "never bought": "A title"}


def make_raw(rows: list[dict], *, described: bool = True, drop: tuple[str, ...] = ()) -> RawData:
    frame = pl.DataFrame(rows).drop(drop)
    items = pl.DataFrame({"item_id": list(titles()), "title": list(titles().values())}) if described else None
    return RawData(frame.lazy(), items, name="tiny", files=())


@pytest.fixture
def raw_of() -> Callable[..., RawData]:
    """`raw_of(seed)` or `raw_of(rows)`: raw data with titles, times and ratings."""

    def make(rows: int | list[dict], **settings) -> RawData:
        return make_raw(random_rows(rows) if isinstance(rows, int) else rows, **settings)

    return make


@pytest.fixture
def rows_of() -> Callable[[int], list[dict]]:
    """`rows_of(seed)`: the events of `raw_of(seed)`."""
    return random_rows


@pytest.fixture
def title_of() -> dict[str, str]:
    """Titles as they are in the source, by item."""
    return titles()
