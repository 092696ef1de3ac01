from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from hf_latentrec.data.sources.times import check_times, to_seconds


NAN = math.nan


def seconds(values, unit, dtype=None) -> list[float | None]:
    return pl.DataFrame({"t": pl.Series(values, dtype=dtype)}).select(to_seconds(pl.col("t"), unit))["t"].to_list()


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_numbers_and_numbers_as_text(unit, factor):
    values = [978300760 * factor, 0, 1262304000 * factor]
    assert seconds(values, unit) == [978300760.0, 0.0, 1262304000.0]
    assert seconds([str(value) for value in values], unit) == [978300760.0, 0.0, 1262304000.0]


def test_milliseconds_are_divided_exactly():
    draw = random.Random(0)
    values = [draw.randrange(10**12, 2 * 10**12) for _ in range(2000)]
    assert seconds(values, "ms") == [value / 1000 for value in values]


def test_what_is_no_time_is_null():
    assert seconds(["12", "", "x", None, "1e3"], "s") == [12.0, None, None, None, 1000.0]
    wrong = ["", "x", None, "978300760", "2018-02-30", "2018-1-2", "2018-07-07 24:00:00", "2018-07-07 x", "07/07/2018"]
    assert seconds(wrong, "text") == [None] * len(wrong)


def test_written_times_against_datetime():
    draw = random.Random(0)
    written, expected = [], []
    for _ in range(200):
        zone = timezone(timedelta(minutes=draw.choice([0, 120, -330, 345, -60])))
        time = datetime.fromtimestamp(draw.randrange(0, 4 * 10**9), zone)
        kind = draw.choice(["date", "naive", "minutes", "zoned", "utc", "fraction"])
        if kind == "date":
            time = time.replace(hour=0, minute=0, second=0, tzinfo=UTC)
            written.append(time.strftime("%Y-%m-%d"))
        elif kind == "naive":
            time = time.replace(tzinfo=UTC)
            written.append(time.strftime(draw.choice(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"])))
        elif kind == "minutes":
            time = time.replace(second=0)
            written.append(time.strftime("%Y-%m-%d %H:%M%z"))
        elif kind == "zoned":
            written.append(time.isoformat())
        elif kind == "utc":
            time = time.astimezone(UTC)
            written.append(time.strftime(draw.choice(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S UTC"])))
        else:
            time = time.replace(microsecond=draw.choice([250_000, 500_000]))
            written.append(time.isoformat(sep=" "))
        expected.append(time.timestamp())
    assert seconds(written, "text") == expected


def test_columns_of_dates_and_times_are_written_times():
    time = datetime(2018, 7, 7, 22, 9, 11, 500_000)
    expected = time.replace(tzinfo=UTC).timestamp()
    for dtype in (pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("us", "UTC")):
        assert seconds([time], "text", dtype) == [expected]
    assert seconds([time.date()], "text") == [datetime(2018, 7, 7, tzinfo=UTC).timestamp()]


def test_an_unknown_unit():
    with pytest.raises(ValueError, match="time unit 'sec'; use one of 's', 'ms', 'us', 'ns', 'text'"):
        to_seconds(pl.col("t"), "sec")


def events(*times) -> pl.LazyFrame:
    rows = [(f"u{i}", f"i{i}", time) for i, time in enumerate(times)]
    return pl.LazyFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}, orient="row"
    )


def test_sound_times_pass():
    check_times(events(631_152_000, 1.5e9, 4_102_444_799), "reviews")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((1e9, None, NAN), r"reviews: 2 of 3 .*first row 1 .*'u1'.*'i1'.*timestamp=None; fill them in or remove"),
        ((1e9, NAN), r"1 of 2 .*timestamp=nan; fill"),
        ((1e9, math.inf), r"1 of 2 .*timestamp=inf; fill"),
        ((0.0, 1e9), r"1 of 2 .*first row 0 .*'u0'.*timestamp=0\.0; fill"),
        ((1e9, 631_151_999), r"1 of 2 .*timestamp=631151999"),
        ((1e9, 4_102_444_800), r"1 of 2 .*timestamp=4102444800"),
        ((1e9, 1.5e12, 1.6e12, 1.7e9, None), r"3 of 5 .*first row 1.*2 of them look like milliseconds among seconds"),
        ((1.5e12, 1.6e12), r"2 of 2 .*all of them look like milliseconds: .*time unit 'ms'"),
        ((1.5e15, 1.6e15), r"all of them look like microseconds: .*time unit 'us'"),
        ((1.5e18, 1e9), r"1 of them look like nanoseconds among seconds"),
    ],
)
def test_wrong_times(times, message):
    with pytest.raises(ValueError, match=message):
        check_times(events(*times), "reviews")


def test_the_first_row_is_the_first_of_the_files(tmp_path):
    times = [1e9] * 5000
    times[3001], times[4000] = 7.0, 8.0
    for part in range(5):
        frame = events(*times).slice(part * 1000, 1000).collect()
        frame.write_parquet(tmp_path / f"{part}.parquet", row_group_size=100)
    with pytest.raises(ValueError, match=r"2 of 5000 .*first row 3001 .*'u3001'.*timestamp=7\.0"):
        check_times(pl.scan_parquet(tmp_path / "*.parquet"), "reviews")
