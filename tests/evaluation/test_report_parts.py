"""Tables mark what is best as it is shown."""

from __future__ import annotations

from hf_latentrec.evaluation.report_parts import grouped_table, name_group, number_table


ROWS = {"A": {"x": 0.30001, "y": 1.0}, "B": {"x": 0.30002, "y": 0.5}, "C": {"x": 0.1}}


def marked(table, group: str = "") -> list[tuple[str, str]]:
    return [
        (row, column)
        for row, cells in table.groups[group].items()
        for column, cell in zip(table.columns, cells, strict=True)
        if cell.best
    ]


def test_what_looks_the_same_is_marked_the_same():
    table = number_table("", "", ROWS, mark="column")
    assert marked(table) == [("A", "x"), ("A", "y"), ("B", "x")]
    assert [cell.text for cell in table.groups[""]["C"]] == ["0.1000", "–"]
    assert marked(number_table("", "", ROWS, mark="row")) == [("A", "y"), ("B", "y")]
    assert marked(number_table("", "", ROWS)) == []


def test_nothing_is_best_where_all_are_the_same():
    rows = {"A": {"x": 0.5}, "B": {"x": 0.50000001}}
    assert marked(number_table("", "", rows, mark="column")) == []
    assert marked(number_table("", "", {"A": {"x": 0.5}}, mark="column")) == []


def test_groups_share_columns_but_not_the_best():
    table = grouped_table("", "", {"first": {"A": {"x": 0.1}, "B": {"x": 0.2}}, "second": ROWS}, mark="column")
    assert table.columns == ["x", "y"]
    assert marked(table, "first") == [("B", "x")] and len(table.groups["first"]["A"]) == 2


def test_notes_stand_behind_their_number():
    table = number_table("", "", ROWS, note_of=lambda row, column: f"{row}{column}")
    assert [cell.note for cell in table.groups[""]["B"]] == ["Bx", "By"]


def test_the_number_of_users_stays_on_one_line():
    assert name_group("popular", {"num_users": 1234}) == "popular (1,234\u00a0users)"
