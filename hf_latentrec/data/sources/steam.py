"""Steam: reviews and games as McAuley's group published them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .json_lines import read_json_lines
from .line_frames import Field
from .raw_data import RawData
from .staging import stage_raw


REVIEWS = (
    Field("username", "user_id", "id", "a user name"),
    Field("product_id", "item_id", "id", "a product id"),
    Field("date", "timestamp", "date", "a date"),
)
GAMES = (
    Field("id", "item_id", "id", "an id"),
    Field("title", "title", "text"),
    Field("app_name", "app_name", "text"),
    Field("developer", "developer", "text"),
    Field("publisher", "publisher", "text"),
    Field("genres", "categories", "list"),
    Field("tags", "tags", "list"),
)


def read_steam(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    max_broken: float = 0.01,
    on_conflict: str = "error",
) -> RawData:
    """
    Read `steam_reviews.json.gz` and `steam_games.json.gz`, whose lines are Python literals (`{u'username': ...}`).

    A review is an interaction; there are no ratings, and times are days (midnight, UTC), so that the events of a
    user on one day keep the order of the file. Users are told apart by their names, as published work does.

    Args:
        interactions (`str` or `Path`):
            The reviews (`username, product_id, date`).
        items (`str` or `Path`, *optional*):
            The games (`id, title, app_name, developer, publisher, genres, tags`).
        work_dir (`str` or `Path`):
            Where the interactions are staged as parquet, which the result scans: keep it as long as that is in use.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines of a file that may be broken or lack an id or a date.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            What to do where one game has several rows with different text, see [`distinct_items`].

    Returns:
        [`RawData`]: interactions `user_id, item_id, timestamp` (s); items `item_id, title` (else the app's name),
        `brand` (the developer, else the publisher), `categories` (the genres), `tags`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A file is empty, cut off or no such file, has too many broken lines, or rows of a game differ.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.steam import read_steam
    >>> folder = Path(tempfile.mkdtemp())
    >>> review = "{u'username': u'Ann', u'product_id': u'70', u'date': u'2017-12-17'}"
    >>> _ = (folder / "reviews.json").write_text(review + "\\n")
    >>> read_steam(folder / "reviews.json", work_dir=folder / "work").interactions.collect().rows()
    [('Ann', '70', 1513468800.0)]

    ```
    """
    reviews = read_json_lines(interactions, REVIEWS, literals=True, max_broken=max_broken)
    games = read_json_lines(items, GAMES, literals=True, max_broken=max_broken) if items else None
    return stage_raw("steam", reviews, games, work_dir=work_dir, on_conflict=on_conflict, tidy_items=_tidy_games)


def _tidy_games(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    def first(name: str, other: str) -> pl.Expr:
        return pl.when(pl.col(name) != "").then(name).otherwise(other)

    columns = ("item_id", first("title", "app_name"), first("developer", "publisher").alias("brand"))
    return rows.select(*columns, "categories", "tags"), {}


__all__ = ["read_steam"]
