from __future__ import annotations

import ast
from pathlib import Path

import polars as pl
import pytest
from datasets import Dataset, Value

from hf_latentrec.data.schema import RecData, in_user_order, to_dataset, to_polars


FOLDER = Path(__file__).resolve().parents[2] / "hf_latentrec" / "data"


def test_datasets_have_plain_string_and_list_types():
    frame = pl.DataFrame({"a": ["x"], "b": [["p", "q"]], "c": [1], "d": [1.5], "e": [True]})
    dataset = to_dataset(frame)
    assert dataset.features["a"] == Value("string")
    assert dataset.features["b"].feature == Value("string")
    assert [dataset.features[name].dtype for name in "cde"] == ["int64", "float64", "bool"]
    assert to_polars(dataset).equals(frame)


def test_to_polars_sees_selected_rows_whatever_the_format():
    dataset = Dataset.from_dict({"a": [1, 2, 3], "b": ["x", "y", "z"]}).select([2, 0]).with_format("numpy", ["a"])
    assert to_polars(dataset).rows() == [(3, "z"), (1, "x")]


def test_in_user_order_keeps_first_appearance_and_ties():
    rows = [("v", "1", 5), ("u", "2", 3), ("v", "3", 2), ("v", "4", 5), ("u", "5", 1)]
    frame = in_user_order(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), ["timestamp"])
    assert frame.select("user_id", "item_id", "position").rows() == [
        ("v", "3", 0), ("v", "1", 1), ("v", "4", 2), ("u", "5", 0), ("u", "2", 1),
    ]  # fmt: skip


def test_counts():
    interactions = Dataset.from_dict({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"], "position": [0, 1, 0]})
    data = RecData(interactions, Dataset.from_dict({"item_id": ["a", "b", "c"]}))
    assert (data.num_users, data.num_items, data.num_interactions) == (2, 3, 3)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_the_room_imports_neither_torch_nor_a_model(path):
    if path.name in ("collators.py", "sequence_collator.py"):
        pytest.skip("batches are tensors")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"torch", "transformers", "trl"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"line {node.lineno} imports from outside the room"
            assert (node.module or "").split(".")[0] not in ("torch", "transformers", "trl", "hf_latentrec")
