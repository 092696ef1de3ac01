"""MovieLens as GroupLens publishes it: 100K, 1M, 10M, 20M, 25M, 32M and the latest sets."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from .column_mapping import select_interactions, select_items
from .item_table import distinct_items
from .raw_data import RawData
from .tables import scan


# The flags at the end of each line of u.item, in their order (u.genre).
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
NO_GENRES = "(no genres listed)"

# The file of ratings tells the format: file of movies, how ratings are separated, columns of user, item, rating, time.
# In ratings.dat, where the separator is ::, every second column between single colons is empty.
FORMATS = {
    "u.data": ("u.item", "\t", False, ("column_0", "column_1", "column_2", "column_3")),
    "ratings.dat": ("movies.dat", ":", False, ("column_0", "column_2", "column_4", "column_6")),
    "ratings.csv": ("movies.csv", ",", True, ("userId", "movieId", "rating", "timestamp")),
}


def read_movielens(interactions: str | Path, items: None = None, *, work_dir: str | Path) -> RawData:
    """
    Read a MovieLens folder. Which set it is, its files tell, not its name.

    | set | files |
    |---|---|
    | 100K | `u.data` (tabs), `u.item` (pipes, Latin-1, genres as flags) |
    | 1M, 10M | `ratings.dat`, `movies.dat` (`::`; UTF-8 in 10M, Latin-1 in 1M) |
    | 20M, 25M, 32M, latest | `ratings.csv`, `movies.csv` |

    Args:
        interactions (`str` or `Path`):
            The unpacked folder.
        items (`None`):
            As in all readers; the folder holds the movies.
        work_dir (`str` or `Path`):
            As in all readers; ratings are scanned where they lie, so nothing is written there.

    Returns:
        [`RawData`]: interactions `user_id, item_id, timestamp, rating`; items `item_id, title, genres` (list[str]).
        Titles are as found, with their year (`"Matrix, The (1999)"`).

    Raises:
        `FileNotFoundError`: The folder or its file of movies is missing.
        `ValueError`: It holds no known set or several, or a line is malformed.
    """
    if items is not None:
        raise ValueError(f"read_movielens: items={str(items)!r}; name only the folder, it holds the movies")
    folder = Path(interactions)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; unpack the archive and name the folder with its files")
    found = [name for name in FORMATS if (folder / name).is_file()]
    if len(found) != 1:
        there = ", ".join(found) or ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ValueError(f"{folder}: found {there}; expected exactly one of {', '.join(FORMATS)}: one set per folder")
    ratings = folder / found[0]
    movies_name, separator, has_header, names = FORMATS[found[0]]
    movies = folder / movies_name
    if not movies.is_file():
        raise FileNotFoundError(f"{folder}: no {movies_name} beside {ratings.name}; fetch it, it holds the titles")
    table = scan(ratings, separator=separator, has_header=has_header, quote=None)
    columns = dict(zip(("user_id", "item_id", "rating", "timestamp"), names, strict=True))
    events = select_interactions(table, str(ratings), columns)
    read_movies = {"u.item": _read_u_item, "movies.dat": _read_movies_dat, "movies.csv": _read_movies_csv}[movies_name]
    described, dropped = distinct_items(read_movies(movies), str(movies))
    return RawData(events, described, "movielens", (ratings, movies), dropped)


def _read_u_item(path: Path) -> pl.DataFrame:
    rows = []
    for number, line in _lines(path):
        fields = line.split("|")
        flags = fields[5:]
        if len(flags) != len(GENRES_100K) or not set(flags) <= {"0", "1"}:
            raise ValueError(
                f"{path}: line {number}: expected 5 fields and {len(GENRES_100K)} flags (0 or 1) between |, found "
                f"{line[:200]!r}; fetch the file again"
            )
        genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
        rows.append((fields[0], fields[1], genres))
    return _movies(rows)


def _read_movies_dat(path: Path) -> pl.DataFrame:
    rows = []
    for number, line in _lines(path):
        item_id, _, rest = line.partition("::")
        title, separator, genres = rest.rpartition("::")
        if not separator:
            raise ValueError(
                f"{path}: line {number}: expected 'movie::title::genre|genre', found {line[:200]!r}; fetch it again"
            )
        rows.append((item_id, title, genres))
    return _split_genres(pl.DataFrame(rows, schema=["item_id", "title", "genres"], orient="row"))


def _read_movies_csv(path: Path) -> pl.DataFrame:
    movies = select_items(scan(path), str(path), {"item_id": "movieId", "title": "title", "genres": "genres"})
    return _split_genres(movies.select("item_id", "title", "genres"))


def _split_genres(movies: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("genres").replace([NO_GENRES, ""], None)
    return movies.with_columns(genres.str.split("|").fill_null([]))


def _movies(rows: list[tuple[str, str, list[str]]]) -> pl.DataFrame:
    schema = {"item_id": pl.String, "title": pl.String, "genres": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines with their numbers. Latin-1 text with accents is no UTF-8, so the bytes tell which of the two it is."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    filled = [(number, line) for number, line in lines if line]
    if not filled:
        raise ValueError(f"{path}: the file is empty ({len(raw)} bytes); fetch it again")
    return filled


__all__ = ["read_movielens"]
