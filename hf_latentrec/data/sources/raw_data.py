"""What a reader of raw files hands on: interactions and items as they are there, in one schema, before any rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl


@dataclass(frozen=True)
class RawData:
    """
    Interactions and items of a source. Nothing is filtered or sorted yet.

    Args:
        interactions (`polars.LazyFrame`):
            One row per event, in the order of the files: `user_id` (str), `item_id` (str), and where the source has
            them `timestamp` (float64, seconds since 1970), `rating` (float64), `split` (str, as published) and
            `position` (int64, the order within the user, where there are no times).
        items (`polars.DataFrame`, *optional*):
            One row per item that is described: `item_id` (str), and text columns of type str or list[str], such as
            `title`, `brand`, `categories`, `description`; missing text is `""` or `[]`.
        name (`str`):
            What errors and the data card call the source, e.g. `"amazon_2018"`.
        files (`tuple[Path, ...]`):
            The files that were read.
        dropped (`dict[str, int]`, *optional*):
            Rows that reading itself left out, by reason, such as `{"broken lines": 3}`.
    """

    interactions: pl.LazyFrame
    items: pl.DataFrame | None
    name: str
    files: tuple[Path, ...]
    dropped: dict[str, int] = field(default_factory=dict)


__all__ = ["RawData"]
