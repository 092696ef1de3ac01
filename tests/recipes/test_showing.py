"""Recommendations that a recipe prints, against the model's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from datasets import Dataset

from hf_latentrec import ItemTable, PopularityConfig, PopularityRecommender


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

from protocol_arguments import TestArguments as Arguments  # noqa: E402
from showing import show_recommendations  # noqa: E402


IDS, TITLES = [f"i{row}" for row in range(8)], ["Soap", "Towel", "", *[f"Thing {row}" for row in range(3, 8)]]


@pytest.fixture
def model_folder(tmp_path):
    items = ItemTable(IDS, titles=TITLES, popularity=[8, 7, 6, 5, 4, 3, 2, 1])
    PopularityRecommender(PopularityConfig(num_items=8), items=items).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def catalog():
    return Dataset.from_dict({"item_id": IDS, "title": TITLES})


def test_the_most_popular_items_that_are_new_to_a_user_are_listed(model_folder, catalog):
    test = Dataset.from_dict({"user_id": ["u"], "history": [["i7", "i0"]], "target": ["i2"]})
    assert show_recommendations(model_folder, test, catalog, num_users=3).splitlines()[1:] == [
        "",
        "User u, the latest 2 of 2 items:",
        "     - Thing 7",
        "     - Soap",
        "  is recommended:",
        "    1. Towel  (7.00)",
        "    2. i2  (6.00)   <- the next item",
        "    3. Thing 3  (5.00)",
        "    4. Thing 4  (4.00)",
        "    5. Thing 5  (3.00)",
    ]


def test_a_next_item_that_is_missed_is_named_and_old_items_are_left_out(model_folder, catalog):
    history = ["i7", "i0", "i1", "i2", "i3", "i4"]
    test = Dataset.from_dict({"user_id": ["u", "v"], "history": [history] * 2, "target": ["i7"] * 2})
    lines = show_recommendations(model_folder, test, catalog.remove_columns("title"), num_users=1).splitlines()
    assert lines[2].endswith(", the latest 5 of 6 items:")
    assert lines[3:8] == [f"     - {item}" for item in history[1:]]
    assert lines[-1] == "  The next item was: i7"
    assert sum(line.startswith("User") for line in lines) == 1


def test_a_negative_number_of_users_is_refused():
    with pytest.raises(ValueError, match="show_users is -1"):
        Arguments(show_users=-1)
