"""What the tests of searches search on."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def write_events(folder: Path) -> Path:
    """Thirty users with six items each, out of 24."""
    rows = [(f"u{u}", str((u * 3 + 7 * k) % 24), float(100 * k + u)) for u in range(30) for k in range(6)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(folder / "events.parquet")
    pl.DataFrame({"item_id": [str(i) for i in range(24)]}).write_parquet(folder / "items.parquet")
    return folder
