"""Times of any unit -> seconds since 1970, and the check that they are seconds."""

from __future__ import annotations

import polars as pl


PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
UNITS = (*PER_SECOND, "text")
EARLIEST, LATEST = 631_152_000.0, 4_102_444_800.0  # 1990-01-01 and 2100-01-01, UTC
FINER_UNITS = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

# 2018-07-07, 2018-07-07 22:09, 2018-07-07T22:09:11.5Z, 2018-07-07 22:09:11+02:00
WRITTEN_TIME = (
    r"^\s*(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<hours>[01]\d|2[0-3]):(?<minutes>[0-5]\d)(?::(?<seconds>[0-5]\d(?:\.\d+)?))?"
    r"\s?(?:Z|UTC|(?<sign>[+-])(?<zone_hours>\d{2}):?(?<zone_minutes>\d{2}))?)?\s*$"
)


def to_seconds(column: pl.Expr, unit: str) -> pl.Expr:
    """
    Seconds since 1970-01-01 UTC, as float64. A value that is no time becomes null: [`check_times`] names it.

    Args:
        column (`polars.Expr`):
            Numbers, numbers as text, or written dates and times.
        unit (`str`):
            `"s"`, `"ms"`, `"us"` or `"ns"` for numbers; `"text"` for `2018-07-07`, `2018-07-07 22:09:11` and
            `2018-07-07T22:09:11.5+02:00` (without a zone: UTC).

    Returns:
        `polars.Expr`: The seconds.

    Raises:
        `ValueError`: The unit is unknown.

    Example:

    ```python
    >>> import polars as pl
    >>> from hf_latentrec.data.sources.times import to_seconds
    >>> frame = pl.DataFrame({"ms": ["1530915000500"], "written": ["2018-07-07 00:10:00+02:00"]})
    >>> frame.select(to_seconds(pl.col("ms"), "ms"), to_seconds(pl.col("written"), "text")).row(0)
    (1530915000.5, 1530915000.0)

    ```
    """
    if unit not in UNITS:
        raise ValueError(f"time unit {unit!r}; use one of {', '.join(map(repr, UNITS))}")
    if unit == "text":
        return _written_to_seconds(column)
    number, per_second = column.cast(pl.Float64, strict=False), PER_SECOND[unit]
    whole = (number / per_second).round()  # polars multiplies with 1 / per_second, which is not exact
    return whole + (number - whole * per_second) / per_second


def _written_to_seconds(column: pl.Expr) -> pl.Expr:
    part = column.cast(pl.String).str.extract_groups(WRITTEN_TIME).struct.field

    def number(name: str) -> pl.Expr:
        return part(name).cast(pl.Float64).fill_null(0.0)

    day = part("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    behind_utc = pl.when(part("sign") == "-").then(1.0).otherwise(-1.0)
    zone = behind_utc * (number("zone_hours") * 3600 + number("zone_minutes") * 60)
    seconds = day * 86_400 + number("hours") * 3600 + number("minutes") * 60 + number("seconds") + zone
    return seconds.name.keep()


def check_times(interactions: pl.LazyFrame, name: str) -> None:
    """
    Check that every `timestamp` is a finite number of seconds between 1990 and 2100; one streaming pass.

    Args:
        interactions (`polars.LazyFrame`):
            `user_id`, `item_id` and `timestamp`.
        name (`str`):
            What the error calls the source.

    Raises:
        `ValueError`: Some are missing, not finite or out of range. The error says how many, names the first, and says
            whether they look like milliseconds (or finer) among seconds.
    """
    time = pl.col("timestamp").cast(pl.Float64)
    wrong = ~_between(time, 1.0).fill_null(False)
    counts = {unit: _between(time, PER_SECOND[unit]).sum() for unit in FINER_UNITS}
    found = interactions.select(wrong.sum().alias("wrong"), pl.len().alias("all"), **counts)
    found = found.collect(engine="streaming").row(0, named=True)
    if found["wrong"] == 0:
        return
    rows = interactions.select("user_id", "item_id", "timestamp").with_row_index("row").filter(wrong).head(1)
    first = rows.collect(engine="streaming").row(0, named=True)
    raise ValueError(
        f"{name}: {found['wrong']} of {found['all']} interaction(s) have no timestamp in seconds between 1990 and "
        f"2100, first row {first['row']} (from 0): user_id={first['user_id']!r}, item_id={first['item_id']!r}, "
        f"timestamp={first['timestamp']!r}; {_remedy(found)}"
    )


def _between(time: pl.Expr, per_second: float) -> pl.Expr:
    return time.is_between(EARLIEST * per_second, LATEST * per_second, closed="left")


def _remedy(found: dict[str, int]) -> str:
    for unit, word in FINER_UNITS.items():
        if found[unit] == found["all"]:
            return f"all of them look like {word}: read the source with the time unit {unit!r}"
        if found[unit]:
            return f"{found[unit]} of them look like {word} among seconds: bring them to seconds, or remove the rows"
    return "fill them in or remove the rows; where the source has no times, leave the column out"


__all__ = ["EARLIEST", "LATEST", "check_times", "to_seconds"]
