"""The three Amazon sets: files as they are published, with their oddities, made small."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import polars as pl
import pytest

from hf_latentrec.data.sources.amazon import PAGE_SOURCE, read_amazon_2014, read_amazon_2018, read_amazon_2023
from hf_latentrec.data.sources.raw_data import RawData


INTERACTIONS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
TEXT = {"title": pl.String, "brand": pl.String, "categories": pl.List(pl.String), "description": pl.String}

REVIEW_2014 = (
    '{"reviewerID": "A1YJEY40YUW4SE", "asin": "7806397051", "reviewerName": "Andrea", "helpful": [3, 4], '
    '"reviewText": "Very oily, \\"and\\" \\u00e9\\n", "overall": 1.0, "summary": "Don\'t", '
    '"unixReviewTime": 1391040000, "reviewTime": "01 30, 2014"}'
)
META_2014 = [
    """{'asin': '7806397051', 'description': 'WAWO 15 Color', 'title': "WAWO 15 Color 'Profession' &amp; more", """
    """'imUrl': 'http://x/41.jpg', 'salesRank': {'Beauty': 3}, 'price': 9.99, 'related': {'also_viewed': ['B00']}, """
    """'brand': 'WAWO', 'categories': [['Beauty', 'Makeup', 'Face'], ['Beauty', 'Tools']]}""",
    r"""{'asin': '0205616461', 'categories': [['Beauty']], 'title': u'Cr\xe8me \u2122'}""",
    """{"asin": "B000052YAN", "title": "JSON by chance"}""",
]


def write(path: Path, lines: list[str], gzipped: bool = True) -> Path:
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if gzipped else text)
    return path


def rows_of(raw: RawData) -> list[tuple]:
    frame = raw.interactions.collect()
    assert frame.schema == INTERACTIONS
    return frame.rows()


def review_2018(**changes) -> str:
    review = {"overall": 5.0, "verified": True, "reviewTime": "10 19, 2014", "reviewerID": "A1V6B6TNIC10QE",
              "asin": "0143026860", "style": {"Size:": " Large"}, "reviewerName": "Theo", "reviewText": "great\nfine",
              "summary": "Five", "unixReviewTime": 1413676800}  # fmt: skip
    return json.dumps(review | changes)


def test_2014(tmp_path: Path) -> None:
    reviews = write(tmp_path / "reviews_Beauty_5.json.gz", [REVIEW_2014, REVIEW_2014.replace("780", "781")])
    meta = write(tmp_path / "meta_Beauty.json.gz", META_2014)
    raw = read_amazon_2014(reviews, meta, work_dir=tmp_path / "work")
    user = "A1YJEY40YUW4SE"
    assert rows_of(raw) == [(user, "7806397051", 1.0, 1391040000.0), (user, "7816397051", 1.0, 1391040000.0)]
    assert raw.items.schema == {"item_id": pl.String, **TEXT}
    assert raw.items.rows() == [
        ("7806397051", "WAWO 15 Color 'Profession' &amp; more", "WAWO", ["Beauty", "Makeup", "Face", "Tools"],
         "WAWO 15 Color"),
        ("0205616461", "Crème ™", "", ["Beauty"], ""),
        ("B000052YAN", "JSON by chance", "", [], ""),
    ]  # fmt: skip
    assert (raw.name, raw.files, raw.dropped) == ("amazon_2014", (reviews, meta), {})


def test_2018(tmp_path: Path) -> None:
    lines = [
        review_2018(),
        review_2018(),  # reviews are repeated there, a rule of the preparation counts them
        review_2018(unixReviewTime="1413676801", verified=False, vote="3"),
        review_2018(reviewerID="A2", overall=1, style=None),
    ]
    meta = [
        {"category": ["Toys &amp; Games", "Puzzles"], "tech1": "", "title": "Jigsaw", "brand": "",
         "description": ["One.", "", "Two."], "also_buy": [], "feature": [], "rank": ["> #3"], "asin": "0143026860"},
        {"category": [], "description": [], "title": "[Import] X", "brand": "By\n    Y", "asin": "B000000001"},
        {"category": [], "description": "", "title": '<span id="productTitle">Z</span>', "asin": "B000000002"},
        {"category": [], "description": "just text", "title": "var aPageStart = (new Date()).getTime();",
         "asin": "B000000003"},
        {"category": ["A", "A"], "asin": "B000000004"},
    ]  # fmt: skip
    reviews = write(tmp_path / "Toys.json.gz", lines)
    raw = read_amazon_2018(reviews, write(tmp_path / "meta.json.gz", list(map(json.dumps, meta))), work_dir=tmp_path)
    user, item = "A1V6B6TNIC10QE", "0143026860"
    first = (user, item, 5.0, 1413676800.0)
    assert rows_of(raw) == [first, first, (user, item, 5.0, 1413676801.0), ("A2", item, 1.0, 1413676800.0)]
    assert raw.items.schema == {"item_id": pl.String, **TEXT}
    assert raw.items.rows() == [
        ("0143026860", "Jigsaw", "", ["Toys &amp; Games", "Puzzles"], "One. Two."),
        ("B000000001", "[Import] X", "By\n    Y", [], ""),
        ("B000000002", "", "", [], ""),
        ("B000000003", "", "", [], "just text"),
        ("B000000004", "", "", ["A"], ""),
    ]
    assert raw.dropped == {PAGE_SOURCE: 2}


def test_2023(tmp_path: Path) -> None:
    review = {"rating": 4.0, "title": "Nice", "text": "x", "images": [{"small": "u"}], "asin": "B00VARIANT",
              "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923,
              "helpful_vote": 0, "verified_purchase": True}  # fmt: skip
    meta = [
        {"main_category": "All Beauty", "title": "Howard", "average_rating": 4.8, "rating_number": 10,
         "features": ["a", "b"], "description": ["c", "d"], "price": None, "images": [{"thumb": "u", "hi_res": None}],
         "videos": [], "store": "Howard Products", "categories": [], "details": {"Brand": "x"},
         "parent_asin": "B00YQ6X8EO", "bought_together": None},
        {"main_category": None, "title": None, "features": [], "description": [], "store": None,
         "categories": ["A", "B"], "parent_asin": "B081TJ8YS3"},
    ]  # fmt: skip
    reviews = write(tmp_path / "All_Beauty.jsonl.gz", [json.dumps(review)])
    raw = read_amazon_2023(
        reviews, write(tmp_path / "meta.jsonl", list(map(json.dumps, meta)), False), work_dir=tmp_path
    )
    assert rows_of(raw) == [("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 4.0, 1588687728.923)]
    assert raw.items.rows(named=True) == [
        {"item_id": "B00YQ6X8EO", "title": "Howard", "brand": "Howard Products", "main_category": "All Beauty",
         "categories": [], "description": "c d", "features": ["a", "b"]},
        {"item_id": "B081TJ8YS3", "title": "", "brand": "", "main_category": "", "categories": ["A", "B"],
         "description": "", "features": []},
    ]  # fmt: skip


RATINGS = [("A39HTATAQ9V7YF", "0205616461", 5.0, 1369699200.0), ("A3JM6GV9MNOF9X", "0558925278", 3.0, 1355443200.0)]


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz"])
def test_ratings_only_files(tmp_path: Path, name: str) -> None:
    path, gzipped = tmp_path / name, name.endswith("gz")
    lines = {
        read_amazon_2014: [f"{user},{item},{rating},{time:.0f}" for user, item, rating, time in RATINGS],
        read_amazon_2018: [f"{item},{user},{rating},{time:.0f}" for user, item, rating, time in RATINGS],
        read_amazon_2023: ["user_id,parent_asin,rating,timestamp"]
        + [f"{user},{item},{rating},{time * 1000:.0f}" for user, item, rating, time in RATINGS],
    }
    for read, text in lines.items():
        raw = read(write(path, text, gzipped), work_dir=tmp_path)
        assert rows_of(raw) == RATINGS and raw.items is None
    with pytest.raises(ValueError, match=r"looks like an item and 'A39.*' like a user; .* read_amazon_2014"):
        read_amazon_2018(write(path, lines[read_amazon_2014], gzipped), work_dir=tmp_path)
    with pytest.raises(ValueError, match=r"looks like an item and 'A39.*' like a user; .* read_amazon_2018"):
        read_amazon_2014(write(path, lines[read_amazon_2018], gzipped), work_dir=tmp_path)
    with pytest.raises(ValueError, match="no column 'user_id' in the header"):
        read_amazon_2023(write(path, lines[read_amazon_2014], gzipped), work_dir=tmp_path)


def test_many_reviews_as_a_slow_loop_of_json_loads(tmp_path: Path) -> None:
    lines = [
        review_2018(
            reviewerID=f"A{random.randrange(50)}",
            asin=random.choice(["B01", "0007", 7]),
            overall=random.randrange(1, 6),
            unixReviewTime=random.choice([str, int])(random.randrange(2_000_000_000)),
            reviewText=random.choice(["", "[]", '"', "\ud83d", "\x00", "é\u2028"]),
        )
        for _ in range(2000)
    ]
    raw = read_amazon_2018(write(tmp_path / "x.json.gz", lines), work_dir=tmp_path, max_broken=0)
    expected = []
    for review in map(json.loads, lines):
        time = float(review["unixReviewTime"])
        expected.append((review["reviewerID"], str(review["asin"]), float(review["overall"]), time))
    assert rows_of(raw) == expected


def test_repeated_metadata(tmp_path: Path) -> None:
    reviews = write(tmp_path / "x.json", [review_2018()])
    one, other = {"asin": "B1", "title": "Tea", "brand": "x"}, {"asin": "B1", "title": "Coffee", "brand": "x"}
    same = write(tmp_path / "same.json", [json.dumps(row) for row in (one, one | {"price": "$1"})])
    raw = read_amazon_2018(reviews, same, work_dir=tmp_path)
    assert raw.items["title"].to_list() == ["Tea"] and raw.dropped == {"item rows that repeat another one": 1}
    differing = write(tmp_path / "differing.json", [json.dumps(row) for row in (one, other, {"asin": "B2"})])
    with pytest.raises(ValueError, match="differing.json: item_id 'B1' has rows with different text.*Tea.*Coffee"):
        read_amazon_2018(reviews, differing, work_dir=tmp_path)
    raw = read_amazon_2018(reviews, differing, work_dir=tmp_path, on_conflict="first")
    assert raw.items.select("item_id", "title").rows() == [("B1", "Tea"), ("B2", "")]
    assert sum(raw.dropped.values()) == 1


def test_broken_lines_of_both_files_are_counted(tmp_path: Path) -> None:
    reviews = write(tmp_path / "x.json", [review_2018(), "torn", review_2018(asin=None), review_2018(overall=None)])
    meta = write(tmp_path / "meta.json", ['{"asin": "B1"}', "torn", "torn"])
    raw = read_amazon_2018(reviews, meta, work_dir=tmp_path, max_broken=0.8)
    assert len(rows_of(raw)) == 1
    assert raw.dropped == {
        "broken lines": 1, "lines without an item id": 1, "lines without a rating": 1, "items: broken lines": 2,
    }  # fmt: skip
    for items, culprit in ((None, "x.json: 3 of 4"), (meta, "meta.json: 2 of 3")):
        with pytest.raises(ValueError, match=f"{culprit} lines cannot be used"):
            read_amazon_2018(reviews, items, work_dir=tmp_path)


def test_the_set_of_another_year_is_an_error(tmp_path: Path) -> None:
    reviews = write(tmp_path / "x.json", [review_2018()])
    with pytest.raises(ValueError, match=r"lines without a user id: 1 \(first line 1: .*check that the reader fits"):
        read_amazon_2023(reviews, work_dir=tmp_path)


def test_nothing_is_read_beyond_what_is_there(tmp_path: Path) -> None:
    for interactions, items in ((tmp_path / "none.json", None), (write(tmp_path / "x.json", [review_2018()]), "none")):
        with pytest.raises(FileNotFoundError, match="none"):
            read_amazon_2018(interactions, items, work_dir=tmp_path / "work")
    assert not (tmp_path / "work").exists()
