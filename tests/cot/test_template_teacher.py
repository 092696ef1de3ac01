"""Templates: what is in them, and how the number of lines follows the history."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import Dataset

from hf_latentrec.cot import segment_cot, write_template_text
from hf_latentrec.cot.item_text import MAX_TITLE, ItemText
from hf_latentrec.data import load_data, make_synthetic, split_leave_one_out


ITEMS = Dataset.from_dict({
    "item_id": list("abcdef"),
    "semantic_id": [["<a_1>", "<b_1>"], ["<a_1>", "<b_2>"], ["<a_2>", "<b_1>"], ["<a_2>", "<b_2>"], ["<a_3>", "<b_1>"],
                    ["<a_4>", "<b_1>"]],
})  # fmt: skip


def write(*pairs, items=ITEMS):
    rows = [
        {"user_id": f"u{n}", "history": list(history), "target": target} for n, (history, target) in enumerate(pairs)
    ]
    return [row["cot"].split("\n") for row in write_template_text(Dataset.from_list(rows), items)]


def test_the_five_stages():
    (lines,) = write(("eacb", "f"))
    assert lines == [
        "Behavioral evidence: 2 items of <a_1>, the newest <a_1><b_2>",
        "Latent preferences: <a_1> above <a_2>, <a_3>",
        "Intent: to turn from <a_1> to <a_4>",
        "Recommendation: <a_4><b_1>",
        "Denoised sequence: <a_1><b_1>, <a_1><b_2>, then <a_4><b_1>",
    ]


def test_more_history_more_lines_whatever_the_target():
    histories = ["a", "ab", "ac", "abe", "abcde"]
    assert [len(lines) for lines in write(*((history, "f") for history in histories))] == [2, 3, 4, 5, 6]
    for history in histories:
        assert len({len(lines) for lines in write(*((history, target) for target in "abcdef"))}) == 1
    assert "Intent: to go on with <a_1>" in write(("ae", "b"))[0]


def test_metadata_in_place_of_codes():
    items = Dataset.from_dict({
        "item_id": ["x", "y", "z"],
        "title": ["Dr. Kim's  oil.", None, "word " * 40],
        "brand": ["Kim", "Kim", ""],
        "categories": [["Beauty", "Oil"], [], ["Beauty", "Serum"]],
    })  # fmt: skip
    text = ItemText.from_items(items)
    assert text.names["x"] == text.codes["x"] == "Dr Kim's oil" and text.names["y"] == "y"
    assert text.groups == {"x": "Oil", "y": "Kim", "z": "Serum"}
    assert len(text.names["z"]) <= MAX_TITLE and text.names["z"].endswith("word")
    (lines,) = write(("xy", "z"), items=items)
    assert lines == [
        "Behavioral evidence: the newest item is y",
        "Latent preferences: a liking for Kim, and Kim above Oil",
        "Intent: to turn from Kim to Serum",
        f"Recommendation: {text.names['z']}",
    ]


@pytest.mark.parametrize(
    ("value", "group"), [("A > B", "B"), ("['A', 'B']", "B"), ("[]", "i"), ("", "i"), (None, "i")]
)
def test_categories_of_many_forms(value, group):
    items = Dataset.from_dict({"item_id": ["i"], "category": [value]})
    assert ItemText.from_items(items).groups == {"i": group}


def test_rows_say_who_wrote_them_and_a_repeated_example_counts_once():
    rows = [("u", ["a"], "b"), ("u", ["a", "b"], "b"), ("v", ["a"], "b")]
    examples = Dataset.from_list([{"user_id": u, "history": h, "target": t} for u, h, t in rows])
    text = write_template_text(examples, ITEMS)
    assert text["teacher"] == ["template"] * 2 and text["user_id"] == ["u", "v"]
    assert len(text[0]["cot"].split("\n")) == 3  # of the longer history


def test_an_item_without_metadata_is_named():
    with pytest.raises(ValueError, match=r"1 item\(s\) .* first 'q'"):
        write(("aq", "b"))


def test_each_line_is_a_segment():
    data = make_synthetic(num_users=50)
    text = write_template_text(split_leave_one_out(data)["train"], data.items)
    assert segment_cot(text)["segments"] == [cot.split("\n") for cot in text["cot"]]


def test_real_titles_and_a_spread_of_lengths(real_data_dir):
    data = load_data(real_data_dir("amazon_beauty_2014"))
    train = split_leave_one_out(data)["train"].select(range(5000))
    text = write_template_text(train, data.items)
    segments = segment_cot(text)["segments"]
    assert segments == [cot.split("\n") for cot in text["cot"]]
    shares = {length: count / len(text) for length, count in Counter(map(len, segments)).items()}
    assert set(shares) == {2, 3, 4, 5, 6} and max(shares.values()) < 0.5
