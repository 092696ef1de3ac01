"""The three Amazon review data sets of McAuley's group: 2014, 2018 and 2023."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from .json_lines import read_json_lines
from .line_frames import Field
from .raw_data import RawData
from .separated_lines import read_separated_lines
from .staging import stage_raw
from .text_blocks import first_bytes


PAGE_SOURCE = "item rows whose title is source of the web page and is left empty"

USER, ITEM, RATING, TIME = "a user id", "an item id", "a rating", "a time"

# The same four columns in every set; those of the ratings-only files stand in another order in each.
REVIEWS = (
    Field("reviewerID", "user_id", "id", USER),
    Field("asin", "item_id", "id", ITEM),
    Field("overall", "rating", "number", RATING),
    Field("unixReviewTime", "timestamp", "number", TIME),
)
REVIEWS_2023 = (
    Field("user_id", "user_id", "id", USER),
    Field("parent_asin", "item_id", "id", ITEM),
    Field("rating", "rating", "number", RATING),
    Field("timestamp", "timestamp", "milliseconds", TIME),
)
RATINGS_2014 = REVIEWS
RATINGS_2018 = (REVIEWS[1], REVIEWS[0], *REVIEWS[2:])

ITEMS_2014 = (
    Field("asin", "item_id", "id", ITEM),
    Field("title", "title", "text"),
    Field("brand", "brand", "text"),
    Field("categories", "categories", "list"),
    Field("description", "description", "list"),
)
ITEMS_2018 = (
    Field("asin", "item_id", "id", ITEM),
    Field("title", "title", "text"),
    Field("brand", "brand", "text"),
    Field("category", "categories", "list"),
    Field("description", "description", "list"),
)
ITEMS_2023 = (
    Field("parent_asin", "item_id", "id", ITEM),
    Field("title", "title", "text"),
    Field("store", "brand", "text"),
    Field("main_category", "main_category", "text"),
    Field("categories", "categories", "list"),
    Field("description", "description", "list"),
    Field("features", "features", "list"),
)


def read_amazon_2014(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    max_broken: float = 0.01,
    on_conflict: str = "error",
) -> RawData:
    """
    Read Amazon 2014: `reviews_X.json.gz` or `ratings_X.csv`, and `meta_X.json.gz`.

    Reviews are JSON lines (`reviewerID, asin, overall, unixReviewTime` in seconds). The metadata are Python literals
    (`asin, title, brand, categories, description`); `categories` are lists of paths, which are joined, each category
    once. A file that ends in `.csv` or `.csv.gz` is a ratings-only one, `user,item,rating,timestamp` without header;
    mind that 2018's have the item first.

    Args:
        interactions (`str` or `Path`):
            The reviews, or the ratings-only file; gzipped or not.
        items (`str` or `Path`, *optional*):
            The metadata.
        work_dir (`str` or `Path`):
            Where the interactions are staged as parquet, which the result scans: keep it as long as that is in use.
        max_broken (`float`, *optional*, defaults to 0.01):
            The share of lines of a file that may be broken or lack an id, a rating or a time. They are left out and
            counted in `RawData.dropped`.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            What to do where one item has several rows with different text, see [`distinct_items`].

    Returns:
        [`RawData`]: interactions `user_id, item_id, rating, timestamp` (s); items `item_id, title, brand, categories,
        description`.

    Raises:
        `FileNotFoundError`: A file is missing.
        `ValueError`: A file is empty, cut off or no such file, has too many broken lines, or rows of an item differ.

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.amazon import read_amazon_2014
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "ratings_Beauty.csv").write_text("A39HTATAQ9V7YF,0205616461,5.0,1369699200\\n")
    >>> raw = read_amazon_2014(folder / "ratings_Beauty.csv", work_dir=folder / "work")
    >>> raw.interactions.collect().rows()
    [('A39HTATAQ9V7YF', '0205616461', 5.0, 1369699200.0)]

    ```
    """
    if _is_ratings_only(interactions):
        _check_order(Path(interactions), RATINGS_2014, remedy="2018's files have the item first: read_amazon_2018")
        lines = read_separated_lines(interactions, RATINGS_2014, header=False, max_broken=max_broken)
    else:
        lines = read_json_lines(interactions, REVIEWS, max_broken=max_broken)
    described = read_json_lines(items, ITEMS_2014, literals=True, max_broken=max_broken) if items else None
    return stage_raw(
        "amazon_2014", lines, described, work_dir=work_dir, on_conflict=on_conflict, tidy_items=_tidy_items
    )


def read_amazon_2018(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    max_broken: float = 0.01,
    on_conflict: str = "error",
) -> RawData:
    """
    Read Amazon 2018: `X.json.gz`, `X_5.json.gz` or `X.csv`, and `meta_X.json.gz`.

    Reviews and metadata are JSON lines (`reviewerID, asin, overall, unixReviewTime` in seconds, as number or text;
    `asin, title, brand, category, description`). Reviews that are there several times are kept, so that a rule of the
    preparation can count them. A file that ends in `.csv` or `.csv.gz` is a ratings-only one,
    `item,user,rating,timestamp` without header; mind that 2014's have the user first. Where a title is a piece of the
    web page's source (`<span id=`, `getTime`), the item has none.

    Args:
        interactions, items, work_dir, max_broken, on_conflict:
            See [`read_amazon_2014`].

    Returns:
        [`RawData`]: As of [`read_amazon_2014`]; `dropped` counts the emptied titles, too.

    Raises:
        `FileNotFoundError`, `ValueError`: See [`read_amazon_2014`].

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.amazon import read_amazon_2018
    >>> folder = Path(tempfile.mkdtemp())
    >>> review = '{"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1530921600, "verified": true}'
    >>> _ = (folder / "Toys.json").write_text(review + "\\n")
    >>> read_amazon_2018(folder / "Toys.json", work_dir=folder / "work").interactions.collect().rows()
    [('A1', 'B1', 5.0, 1530921600.0)]

    ```
    """
    if _is_ratings_only(interactions):
        _check_order(Path(interactions), RATINGS_2018, remedy="2014's files have the user first: read_amazon_2014")
        lines = read_separated_lines(interactions, RATINGS_2018, header=False, max_broken=max_broken)
    else:
        lines = read_json_lines(interactions, REVIEWS, max_broken=max_broken)
    described = read_json_lines(items, ITEMS_2018, max_broken=max_broken) if items else None
    return stage_raw(
        "amazon_2018", lines, described, work_dir=work_dir, on_conflict=on_conflict, tidy_items=_tidy_items
    )


def read_amazon_2023(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    max_broken: float = 0.01,
    on_conflict: str = "error",
) -> RawData:
    """
    Read Amazon 2023: `X.jsonl.gz` or the ratings-only `X.csv.gz`, and `meta_X.jsonl.gz`.

    Both are JSON lines (`user_id, parent_asin, rating, timestamp` in milliseconds; `parent_asin, title, store,
    main_category, categories, description, features`). Items are the `parent_asin`, which the metadata describe;
    `asin` is one variant of it. A file that ends in `.csv` or `.csv.gz` is a ratings-only one, with a header
    `user_id,parent_asin,rating,timestamp`.

    Args:
        interactions, items, work_dir, max_broken, on_conflict:
            See [`read_amazon_2014`].

    Returns:
        [`RawData`]: As of [`read_amazon_2014`]; the items have `main_category` (str) and `features` (list[str]), too.
        Timestamps are seconds with a fraction.

    Raises:
        `FileNotFoundError`, `ValueError`: See [`read_amazon_2014`].

    Example:

    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hf_latentrec.data.sources.amazon import read_amazon_2023
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "Toys.csv").write_text("user_id,parent_asin,rating,timestamp\\nAE1,B1,4.0,1530921600500\\n")
    >>> read_amazon_2023(folder / "Toys.csv", work_dir=folder / "work").interactions.collect().rows()
    [('AE1', 'B1', 4.0, 1530921600.5)]

    ```
    """
    if _is_ratings_only(interactions):
        lines = read_separated_lines(interactions, REVIEWS_2023, header=True, max_broken=max_broken)
    else:
        lines = read_json_lines(interactions, REVIEWS_2023, max_broken=max_broken)
    described = read_json_lines(items, ITEMS_2023, max_broken=max_broken) if items else None
    return stage_raw(
        "amazon_2023", lines, described, work_dir=work_dir, on_conflict=on_conflict, tidy_items=_tidy_items
    )


def _is_ratings_only(path: str | Path) -> bool:
    return str(path).endswith((".csv", ".csv.gz"))


def _check_order(path: Path, columns: Sequence[Field], remedy: str) -> None:
    """An Amazon item id has 10 characters, a user id has more."""
    lines = first_bytes(path).decode(errors="replace").splitlines()[:1000]
    rows = [line.split(",") for line in lines if line.count(",") == len(columns) - 1]
    place = {field.name: place for place, field in enumerate(columns)}
    users, items = ([row[place[name]] for row in rows] for name in ("user_id", "item_id"))
    if rows and all(len(user) == 10 for user in users) and all(len(item) > 10 for item in items):
        raise ValueError(
            f"{path}: line 1: {lines[0]!r} is read as {','.join(place)}, but {users[0]!r} looks like an item and "
            f"{items[0]!r} like a user; {remedy}"
        )


def _tidy_items(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Each category once, the description as one text, no page source as title."""
    is_source = rows["title"].str.contains("<span id|getTime")
    rows = rows.with_columns(
        title=pl.when(is_source).then(pl.lit("")).otherwise("title"),
        categories=pl.col("categories").list.unique(maintain_order=True),
        description=pl.col("description").list.join(" "),
    )
    return rows, {PAGE_SOURCE: is_source.sum()} if is_source.any() else {}


__all__ = ["read_amazon_2014", "read_amazon_2018", "read_amazon_2023"]
