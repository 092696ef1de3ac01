"""The Yelp Open Dataset."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .json_lines import read_json_lines
from .line_frames import Field
from .raw_data import RawData
from .staging import stage_raw


REVIEWS = (
    Field("user_id", "user_id", "id", "a user id"),
    Field("business_id", "item_id", "id", "a business id"),
    Field("stars", "rating", "number", "stars"),
    Field("date", "timestamp", "date", "a date"),
)
BUSINESSES = (
    Field("business_id", "item_id", "id", "a business id"),
    Field("name", "title", "text"),
    Field("categories", "categories", "text"),
    Field("city", "city", "text"),
)


def read_yelp(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    max_broken: float = 0.01,
    on_conflict: str = "error",
) -> RawData:
    """
    Read `yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`, unpacked from the archive.

    Args:
        interactions (`str` or `Path`):
            The reviews (`user_id, business_id, stars, date`). Dates are taken as UTC; older releases have days only.
        items (`str` or `Path`, *optional*):
            The businesses (`business_id, name, categories, city`).
        work_dir (`str` or `Path`):
            Where the interactions are staged as parquet, which the result scans: keep it as long as that is in use.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines of a file that may be broken or lack an id, stars or a date.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            What to do where one business has several rows with different text, see [`distinct_items`].

    Returns:
        [`RawData`]: interactions `user_id, item_id, rating, timestamp` (s); items `item_id, title, categories, city`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A file is empty, cut off or no such file, has too many broken lines, or rows of an item differ.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.yelp import read_yelp
    >>> folder = Path(tempfile.mkdtemp())
    >>> review = '{"user_id": "u", "business_id": "b", "stars": 4.0, "date": "2018-07-07 22:09:11"}'
    >>> _ = (folder / "review.json").write_text(review + "\\n")
    >>> read_yelp(folder / "review.json", work_dir=folder / "work").interactions.collect().rows()
    [('u', 'b', 4.0, 1531001351.0)]

    ```
    """
    reviews = read_json_lines(interactions, REVIEWS, max_broken=max_broken)
    businesses = read_json_lines(items, BUSINESSES, max_broken=max_broken) if items else None
    return stage_raw("yelp", reviews, businesses, work_dir=work_dir, on_conflict=on_conflict, tidy_items=_tidy)


def _tidy(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    names = pl.col("categories").str.split(",").list.eval(pl.element().str.strip_chars())
    return rows.with_columns(categories=names.list.eval(pl.element().filter(pl.element() != ""))), {}


__all__ = ["read_yelp"]
