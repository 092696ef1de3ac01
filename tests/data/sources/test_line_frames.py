"""The frame around any line format; the formats' own tests run through it, too."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from hf_latentrec.data.sources.line_frames import Field, LineFrames


class Words:
    """`user item`; what is parsed at once is made up, to see when it is used."""

    def __init__(self, at_once: pl.DataFrame | None):
        self.at_once = at_once

    def parse_block(self, block: bytes) -> pl.DataFrame | None:
        return self.at_once

    def parse_line(self, line: str) -> dict[str, str]:
        user, item = line.split()
        return {"user_id": user, "item_id": item}


FIELDS = (Field("u", "user_id", "id", "a user id"), Field("i", "item_id", "id"))
LINES = [("u1", "i1"), ("u2", "i2")]


@pytest.mark.parametrize(
    ("at_once", "used"),
    [
        ([("at", "once"), ("at", "once")], True),
        ([("at", "once"), ("at", None)], True),  # the item is not needed
        ([("at", "once"), (None, "once")], False),
        ([("at", "once")], False),
        ([("at", "once")] * 3, False),
        (None, False),
    ],
)
def test_what_is_parsed_at_once_is_used_where_no_line_and_no_value_is_missing(
    tmp_path: Path, at_once: list[tuple] | None, used: bool
) -> None:
    (tmp_path / "x").write_text("u1 i1\nu2 i2\n")
    schema = {"user_id": pl.String, "item_id": pl.String}
    raw = None if at_once is None else pl.DataFrame(at_once, schema=schema, orient="row")
    frames = LineFrames(tmp_path / "x", FIELDS, Words(raw))
    assert pl.concat(frames).rows() == (at_once if used else LINES)
    assert frames.num_lines == 2 and not frames.dropped


def test_without_a_needed_field_only_broken_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("u1 i1\nbroken\nu2 i2\n")
    frames = LineFrames(tmp_path / "x", FIELDS[1:], Words(None), max_broken=0.5)
    assert pl.concat(frames).rows() == [("i1",), ("i2",)] and frames.dropped == {"broken lines": 1}
