"""Steam's Python literals, as they are published."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl

from hf_latentrec.data.sources.steam import read_steam


REVIEWS = [
    r"""{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, """
    r"""u'date': u'2017-12-17', u'text': u'This would not be acceptable\n"as" \u2665', u'early_access': False}""",
    r"""{u'username': u'\u2605 Ann\'s', u'found_funny': 2, u'user_id': u'7656', u'product_id': u'70', """
    r"""u'date': u'2010-10-31', u'compensation': u'Product received for free', u'text': u'null'}""",
    r"""{u'hours': 4.0, u'product_id': u'70', u'date': u'2010-10-31'}""",
]
GAMES = [
    r"""{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Casual'], u'app_name': u'Lost Summoner Kitty', """
    r"""u'title': u'Lost Summoner Kitty', u'tags': [u'Strategy', u'Action'], u'price': 4.99, u'id': u'761140', """
    r"""u'developer': u'Koto', u'early_access': False}""",
    r"""{u'app_name': u'Only an app\'s name', u'publisher': u'Pub', u'id': u'643980', u'title': None}""",
    r"""{u'app_name': u'Twice', u'id': u'612880'}""",
    r"""{u'app_name': u'Twice', u'id': u'612880', u'price': u'Free'}""",
    r"""{u'genres': [u'Indie'], u'price': 19.99}""",
]


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_reviews_and_games(tmp_path: Path) -> None:
    reviews, games = write(tmp_path / "reviews.json.gz", REVIEWS), write(tmp_path / "games.json.gz", GAMES)
    raw = read_steam(reviews, games, work_dir=tmp_path / "work", max_broken=0.5)
    frame = raw.interactions.collect()
    assert frame.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}
    assert frame.rows() == [("Chaos Syren", "725280", 1513468800.0), ("★ Ann's", "70", 1288483200.0)]
    assert raw.items.rows(named=True) == [
        {"item_id": "761140", "title": "Lost Summoner Kitty", "brand": "Koto", "categories": ["Action", "Casual"],
         "tags": ["Strategy", "Action"]},
        {"item_id": "643980", "title": "Only an app's name", "brand": "Pub", "categories": [], "tags": []},
        {"item_id": "612880", "title": "Twice", "brand": "", "categories": [], "tags": []},
    ]  # fmt: skip
    assert raw.dropped == {
        "lines without a user name": 1, "items: lines without an id": 1, "item rows that repeat another one": 1,
    }  # fmt: skip
    assert (raw.name, raw.files) == ("steam", (reviews, games))
    assert read_steam(reviews, work_dir=tmp_path, max_broken=0.5).items is None
