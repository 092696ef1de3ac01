"""Readers of the files that users have: one function per published schema, all of which return [`RawData`].

Each is called `read(interactions, items=None, *, work_dir, ...)`; [`SOURCES`] has them by name.
"""

from __future__ import annotations

from collections.abc import Callable

from .amazon import read_amazon_2014, read_amazon_2018, read_amazon_2023
from .folders import read_folder
from .hub import read_hub
from .movielens import read_movielens
from .raw_data import RawData
from .steam import read_steam
from .tables import read_table
from .text_cleaning import clean_text
from .times import check_times, to_seconds
from .yelp import read_yelp


SOURCES: dict[str, Callable[..., RawData]] = {
    "amazon_2014": read_amazon_2014,
    "amazon_2018": read_amazon_2018,
    "amazon_2023": read_amazon_2023,
    "folder": read_folder,
    "hub": read_hub,
    "movielens": read_movielens,
    "steam": read_steam,
    "table": read_table,
    "yelp": read_yelp,
}

__all__ = [
    "SOURCES",
    "RawData",
    "check_times",
    "clean_text",
    "read_amazon_2014",
    "read_amazon_2018",
    "read_amazon_2023",
    "read_folder",
    "read_hub",
    "read_movielens",
    "read_steam",
    "read_table",
    "read_yelp",
    "to_seconds",
]
