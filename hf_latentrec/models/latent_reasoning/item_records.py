"""Item records to checked columns and token sequences: the input side of an ItemCatalog."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerFast

from .tokenization import encode_plain_text


CATALOG_COLUMNS = ("tokens", "popularity")  # what a catalog adds to the items' own columns


def items_to_table(items: Any) -> pa.Table:
    if isinstance(items, pa.Table):
        table = items
    elif isinstance(items, list):
        table = pa.Table.from_pylist(items)
    else:
        table = items.with_format("arrow")[:]  # datasets.Dataset, which is not a dependency of a checkpoint
    if len(table) == 0:
        raise ValueError("ItemCatalog: no items")
    for name in CATALOG_COLUMNS:
        if name in table.column_names:
            raise ValueError(f"ItemCatalog: column {name!r} is the catalog's own; rename it")
    return table.replace_schema_metadata()


def _column(table: pa.Table, name: str, type_name: str, is_type) -> pa.Array:
    """A column as one array, checked for its type."""
    if name not in table.column_names:
        raise ValueError(f"ItemCatalog: no column {name!r}; found {', '.join(table.column_names)}")
    column = table[name].combine_chunks()
    if not is_type(column.type):
        raise ValueError(f"ItemCatalog: column {name!r} holds {column.type}; expected {type_name}")
    return column


def _is_string(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_string_list(type_: pa.DataType) -> bool:
    return (pa.types.is_list(type_) or pa.types.is_large_list(type_)) and _is_string(type_.value_type)


def _first(condition: np.ndarray) -> int | None:
    """Index of the first True."""
    return int(condition.argmax()) if condition.any() else None


def drop_duplicate_items(table: pa.Table, on_duplicate: str) -> pa.Table:
    ids = np.array(_column(table, "item_id", "strings", _is_string).fill_null("").to_pylist(), dtype=object)
    if (row := _first(ids == "")) is not None:
        raise ValueError(f"ItemCatalog: row {row} has no item_id; give every item one")
    values, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(values) == len(ids):
        return table
    if on_duplicate == "first":
        return table.take(pa.array(np.sort(first)))
    repeated = ids[first[counts > 1].min()]
    rows = ", ".join(map(str, np.flatnonzero(ids == repeated)))
    raise ValueError(
        f"ItemCatalog: item_id {repeated!r} appears {(ids == repeated).sum()} times (rows {rows}); "
        'drop duplicates or pass on_duplicate="first"'
    )


def code_sequences(table: pa.Table, tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """Flat token ids and offsets of the items' codes."""
    codes = _column(table, "semantic_id", "lists of token strings", _is_string_list)
    depths = pc.list_value_length(codes).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    name = _namer(table)
    if (row := _first(depths == 0)) is not None:
        raise ValueError(f"ItemCatalog: {name(row)} has no semantic_id; give it codes or remove the item")
    if (row := _first(depths != depths[0])) is not None:
        raise ValueError(
            f"ItemCatalog: {name(row)} has {depths[row]} codes, but {name(0)} has {depths[0]}; "
            "give all items codes of one depth"
        )
    encoded = pc.list_flatten(codes).dictionary_encode()
    vocabulary = tokenizer.get_vocab()
    ids = np.array([vocabulary.get(token, -1) for token in encoded.dictionary.to_pylist()])
    flat = ids[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    flat = np.where(encoded.indices.is_null().to_numpy(zero_copy_only=False), -1, flat)
    if (position := _first(flat < 0)) is not None:
        row, level = divmod(position, int(depths[0]))
        raise ValueError(
            f"ItemCatalog: code {codes[row][level].as_py()!r} of {name(row)}, level {level}, is not in the tokenizer; "
            "call add_item_tokens(tokenizer, semantic_ids) first"
        )
    return flat, np.arange(len(codes) + 1) * depths[0]


def title_sequences(table: pa.Table, tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray, int]:
    """Flat token ids and offsets of the items' titles, each ended by EOS, and EOS."""
    terminal = tokenizer.eos_token_id
    if terminal is None:
        raise ValueError("ItemCatalog: titles end in the tokenizer's EOS, but it has none; set tokenizer.eos_token")
    titles = _column(table, "title", "strings", _is_string).fill_null("").to_pylist()
    name = _namer(table)
    if (row := _first(np.array([not title.strip() for title in titles]))) is not None:
        raise ValueError(f"ItemCatalog: {name(row)} has an empty title; give it one or remove the item")
    sequences = encode_plain_text(tokenizer, titles)
    lengths = np.array([len(sequence) for sequence in sequences])
    if (row := _first(lengths == 0)) is not None:
        raise ValueError(f"ItemCatalog: the title {titles[row]!r} of {name(row)} has no tokens; change it")
    offsets = np.concatenate([[0], (lengths + 1).cumsum()])
    return np.concatenate([[*sequence, terminal] for sequence in sequences]), offsets, terminal


def _namer(table: pa.Table):
    """How errors name the item of a row."""
    return lambda row: f"item_id {table['item_id'][row].as_py()!r} (row {row})"


__all__ = ["CATALOG_COLUMNS", "code_sequences", "drop_duplicate_items", "items_to_table", "title_sequences"]
