"""The Yelp Open Dataset, as it is published."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from hf_latentrec.data.sources.yelp import read_yelp


REVIEW = {"review_id": "KU_O5udG6zpxOg-VcAEodg", "user_id": "mh_-eMZ6K5RLWhZyISBhwA",
          "business_id": "XQfwVwDr-v0ZS3_Cb", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, "text": "If [you]\n",
          "date": "2018-07-07 22:09:11"}  # fmt: skip
BUSINESSES = [
    {"business_id": "XQfwVwDr-v0ZS3_Cb", "name": "St Honore", "city": "Philadelphia", "stars": 4.0, "is_open": 1,
     "attributes": {"WiFi": "u'free'"}, "categories": "Food, Bubble Tea,Bakeries", "hours": {"Monday": "7:0-20:0"}},
    {"business_id": "b", "name": "", "city": "", "attributes": None, "categories": None, "hours": None},
]  # fmt: skip


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_reviews_and_businesses(tmp_path: Path) -> None:
    reviews = write(tmp_path / "review.json", [REVIEW, REVIEW | {"date": "2005-02-14", "stars": 5}])
    businesses = write(tmp_path / "business.json", BUSINESSES)
    raw = read_yelp(reviews, businesses, work_dir=tmp_path / "work")
    frame = raw.interactions.collect()
    assert frame.schema == {
        "user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64,
    }  # fmt: skip
    user, item = REVIEW["user_id"], REVIEW["business_id"]
    assert frame.rows() == [(user, item, 3.0, 1531001351.0), (user, item, 5.0, 1108339200.0)]
    assert raw.items.rows(named=True) == [
        {"item_id": item, "title": "St Honore", "categories": ["Food", "Bubble Tea", "Bakeries"],
         "city": "Philadelphia"},
        {"item_id": "b", "title": "", "categories": [], "city": ""},
    ]  # fmt: skip
    assert (raw.name, raw.files, raw.dropped) == ("yelp", (reviews, businesses), {})


def test_a_date_that_is_none(tmp_path: Path) -> None:
    reviews = write(tmp_path / "review.json", [REVIEW, REVIEW | {"date": "yesterday"}])
    with pytest.raises(
        ValueError, match=r"review.json: 1 of 2 lines cannot be used \(lines without a date: 1 \(first"
    ):
        read_yelp(reviews, work_dir=tmp_path)
