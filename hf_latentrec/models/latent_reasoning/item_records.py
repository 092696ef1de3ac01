"""Item records to checked columns and token sequences: the input side of an ItemCatalog."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from .tokenization import encode_plain_text


CATALOG_COLUMNS = ("tokens", "popularity")  # what a catalog adds to the items' own columns


def items_to_columns(items: Any) -> dict[str, list]:
    """Columns of item records as lists of plain Python values."""
    if isinstance(items, list):
        names = dict.fromkeys(chain.from_iterable(items))
        columns = {name: [_plain(item.get(name)) for item in items] for name in names}
    else:  # neither pyarrow nor datasets is a dependency of a checkpoint
        to_columns = getattr(items, "to_pydict", None) or getattr(items, "to_dict", None)
        columns = to_columns() if to_columns else None
        if columns is None or not all(isinstance(column, list) for column in columns.values()):
            raise ValueError(
                f"ItemCatalog: items are a {type(items).__name__}; pass a datasets.Dataset, a pyarrow.Table or a list "
                "of dictionaries"
            )
    if not any(columns.values()):
        raise ValueError("ItemCatalog: no items")
    for name in CATALOG_COLUMNS:
        if name in columns:
            raise ValueError(f"ItemCatalog: column {name!r} is the catalog's own; rename it")
    return columns


def columns_to_json(columns: dict[str, list]) -> bytes:
    """Columns as JSON in UTF-8; a column that cannot be written is an error."""
    parts = []
    for name, column in columns.items():
        try:
            parts.append(f"{json.dumps(name)}: {json.dumps(column, ensure_ascii=False)}".encode())
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"ItemCatalog: column {name!r} cannot be saved as JSON ({error}); make it text or numbers, or leave "
                "it out"
            ) from error
    return b"{" + b",\n".join(parts) + b"}"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _column(columns: dict[str, list], name: str, type_name: str, is_type: Callable[[Any], bool]) -> list:
    """A column, checked for the type of its values; None is of every type."""
    if name not in columns:
        raise ValueError(f"ItemCatalog: no column {name!r}; found {', '.join(columns)}")
    for row, value in enumerate(columns[name]):
        if value is not None and not is_type(value):
            raise ValueError(
                f"ItemCatalog: column {name!r} holds {type(value).__name__} {value!r} in row {row}; "
                f"expected {type_name}"
            )
    return columns[name]


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_string_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(part is None or isinstance(part, str) for part in value)


def _first(condition: np.ndarray) -> int | None:
    """Index of the first True."""
    return int(condition.argmax()) if condition.any() else None


def drop_duplicate_items(columns: dict[str, list], on_duplicate: str) -> dict[str, list]:
    ids = _column(columns, "item_id", "strings", _is_string)
    if (row := _first(np.array([not item_id for item_id in ids]))) is not None:
        raise ValueError(f"ItemCatalog: row {row} has no item_id; give every item one")
    counts = Counter(ids)
    if len(counts) == len(ids):
        return columns
    if on_duplicate == "first":
        first = dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))
        rows = [first[item_id] for item_id in counts]
        return {name: [column[row] for row in rows] for name, column in columns.items()}
    repeated = next(item_id for item_id in ids if counts[item_id] > 1)
    rows = ", ".join(str(row) for row, item_id in enumerate(ids) if item_id == repeated)
    raise ValueError(
        f"ItemCatalog: item_id {repeated!r} appears {counts[repeated]} times (rows {rows}); "
        'drop duplicates or pass on_duplicate="first"'
    )


def code_sequences(columns: dict[str, list], tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """Flat token ids and offsets of the items' codes."""
    codes = _column(columns, "semantic_id", "lists of token strings", _is_string_list)
    depths = np.array([len(code or ()) for code in codes])
    name = _namer(columns)
    if (row := _first(depths == 0)) is not None:
        raise ValueError(f"ItemCatalog: {name(row)} has no semantic_id; give it codes or remove the item")
    if (row := _first(depths != depths[0])) is not None:
        raise ValueError(
            f"ItemCatalog: {name(row)} has {depths[row]} codes, but {name(0)} has {depths[0]}; "
            "give all items codes of one depth"
        )
    id_of = tokenizer.get_vocab().get
    flat = np.fromiter((id_of(token, -1) for token in chain.from_iterable(codes)), dtype=np.int64)
    if (position := _first(flat < 0)) is not None:
        row, level = divmod(position, int(depths[0]))
        raise ValueError(
            f"ItemCatalog: code {codes[row][level]!r} of {name(row)}, level {level}, is not in the tokenizer; call "
            "add_item_tokens(tokenizer, semantic_ids) before training. A trained model knows no other codes: give the "
            "item one of its codes, or train again on data with these semantic IDs"
        )
    return flat, np.arange(len(codes) + 1) * depths[0]


def title_sequences(
    columns: dict[str, list], tokenizer: PreTrainedTokenizerFast
) -> tuple[np.ndarray, np.ndarray, int]:
    """Flat token ids and offsets of the items' titles, each ended by EOS, and EOS."""
    terminal = tokenizer.eos_token_id
    if terminal is None:
        raise ValueError("ItemCatalog: titles end in the tokenizer's EOS, but it has none; set tokenizer.eos_token")
    titles = [title or "" for title in _column(columns, "title", "strings", _is_string)]
    name = _namer(columns)
    if (row := _first(np.array([not title.strip() for title in titles]))) is not None:
        raise ValueError(f"ItemCatalog: {name(row)} has an empty title; give it one or remove the item")
    sequences = encode_plain_text(tokenizer, titles)
    lengths = np.array([len(sequence) for sequence in sequences])
    if (row := _first(lengths == 0)) is not None:
        raise ValueError(f"ItemCatalog: the title {titles[row]!r} of {name(row)} has no tokens; change it")
    offsets = np.concatenate([[0], (lengths + 1).cumsum()])
    return np.concatenate([[*sequence, terminal] for sequence in sequences]), offsets, terminal


def _namer(columns: dict[str, list]) -> Callable[[int], str]:
    """How errors name the item of a row."""
    return lambda row: f"item_id {columns['item_id'][row]!r} (row {row})"


__all__ = [
    "CATALOG_COLUMNS",
    "code_sequences",
    "columns_to_json",
    "drop_duplicate_items",
    "items_to_columns",
    "title_sequences",
]
