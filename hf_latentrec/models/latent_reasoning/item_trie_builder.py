"""The arrays of an ItemTrie, built by sorting the catalog's sequences, in a few vectorized passes.

Shapes: I items, T tokens of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def build_trie_arrays(
    sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray],
    priority: Sequence[float] | np.ndarray | None,
    vocab_size: int | None,
) -> dict[str, np.ndarray]:
    """
    Sorts the items by sequence; every first item of a run that shares `d` tokens then opens a node of depth `d`.

    Args and errors are those of [`ItemTrie.from_sequences`].

    Returns:
        `dict[str, np.ndarray]`: `row_ptr`, `child_token`, `leaf_start`, `leaf_end`, `item_order` (see [`ItemTrie`]).
    """
    flat, offsets = _flatten(sequences)
    lengths = np.diff(offsets)
    _check_sequences(flat, lengths, vocab_size)
    num_items, max_depth = len(lengths), int(lengths.max())

    padded = np.full((num_items, max_depth), -1, dtype=np.int64)  # -1 sorts a prefix before what extends it
    padded[np.arange(max_depth) < lengths[:, None]] = flat
    tie_break = np.zeros(num_items) if priority is None else -np.asarray(priority, dtype=np.float64)
    if tie_break.shape != (num_items,):
        raise ValueError(
            f"ItemTrie: priority has shape {tie_break.shape}; expected one value per item, ({num_items},)"
        )
    order = np.lexsort((tie_break, *padded.T[::-1]))  # stable: what still ties keeps catalog order
    padded, lengths = padded[order], lengths[order]

    differs = np.ones((num_items, max_depth), dtype=bool)  # [i, d]: items i-1 and i differ within d+1 tokens
    differs[1:] = np.logical_or.accumulate(padded[1:] != padded[:-1], axis=1)
    _check_no_prefix(differs, lengths, order)

    present = (padded >= 0).T  # [T, I]
    opens_node = differs.T & present  # [T, I]: sorted item i is the first beneath its node of depth d+1
    depth, leaf_start = np.nonzero(opens_node)  # depth by depth, then by item: breadth-first order
    node = opens_node.cumsum().reshape(opens_node.shape)  # [T, I]: node of depth d+1 above item i
    parent = np.where(depth > 0, node[depth - 1, leaf_start], 0)
    num_nodes = len(leaf_start) + 1
    leaf_start = np.concatenate([[0], leaf_start])
    num_covered = np.bincount(node[present], minlength=num_nodes)
    num_covered[0] = num_items
    return {
        "row_ptr": np.concatenate([[0], np.bincount(parent, minlength=num_nodes).cumsum()]),
        "child_token": padded[leaf_start[1:], depth],
        "leaf_start": leaf_start,
        "leaf_end": leaf_start + num_covered,
        "item_order": order,
    }


def _flatten(sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences as flat tokens and offsets `[I + 1]`."""
    if isinstance(sequences, tuple) and len(sequences) == 2 and isinstance(sequences[0], np.ndarray):
        flat, offsets = sequences
        return np.asarray(flat, dtype=np.int64), np.asarray(offsets, dtype=np.int64)
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    tokens = (token for sequence in sequences for token in sequence)
    flat = np.fromiter(tokens, dtype=np.int64, count=int(lengths.sum()))
    return flat, np.concatenate([[0], lengths.cumsum()])


def _check_sequences(flat: np.ndarray, lengths: np.ndarray, vocab_size: int | None) -> None:
    if len(lengths) == 0:
        raise ValueError("ItemTrie: no sequences; a catalog needs at least one item")
    if (lengths == 0).any():
        row = int(np.flatnonzero(lengths == 0)[0])
        raise ValueError(f"ItemTrie: the sequence of row {row} is empty; give every item at least one token")
    upper = np.iinfo(np.int32).max if vocab_size is None else vocab_size
    wrong = np.flatnonzero((flat < 0) | (flat >= upper))
    if len(wrong):
        row = int(np.searchsorted(lengths.cumsum(), wrong[0], side="right"))
        raise ValueError(
            f"ItemTrie: token {flat[wrong[0]]} of row {row} is not in [0, {upper}); "
            "tokenize the items with the model's tokenizer"
        )


def _check_no_prefix(differs: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> None:
    """Sorted, a proper prefix stands right before a sequence that extends it: neighbours are enough."""
    shared = (~differs[1:]).sum(axis=1)  # tokens (padding included) that item i has in common with item i-1
    prefix = np.flatnonzero((shared == lengths[:-1]) & (lengths[:-1] < lengths[1:]))
    if len(prefix):
        short, long = int(order[prefix[0]]), int(order[prefix[0] + 1])
        raise ValueError(
            f"ItemTrie: the sequence of row {short} is a proper prefix of that of row {long}; "
            "end every sequence with a terminal token"
        )


__all__ = ["build_trie_arrays"]
