"""The arrays of an ItemTrie, built by sorting the catalog's sequences, in a few vectorized passes.

Shapes: I items, T tokens of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


ON_DUPLICATE = ("share", "error")
_KEY_BITS = 63  # of an int64 that is never negative
_TABLE_SIZE = 1 << 24  # tokens that span more are ranked by sorting instead of by a table


def build_trie_arrays(
    sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray],
    priority: Sequence[float] | np.ndarray | None,
    vocab_size: int | None,
    on_duplicate: str,
) -> dict[str, np.ndarray]:
    """
    Sorts the items by sequence; every first item of a run that shares `d` tokens then opens a node of depth `d`.

    Args and errors are those of [`ItemTrie.from_sequences`].

    Returns:
        `dict[str, np.ndarray]`: the tensors of [`ItemTrie`], `leaf_end` only where sequences differ in length.
    """
    if on_duplicate not in ON_DUPLICATE:
        raise ValueError(
            f"ItemTrie: on_duplicate={on_duplicate!r}; choose one of {', '.join(map(repr, ON_DUPLICATE))}"
        )
    flat, offsets = _flatten(sequences)
    lengths = np.diff(offsets)
    _check_sequences(flat, lengths, vocab_size)
    if priority is not None and np.shape(priority) != lengths.shape:
        raise ValueError(
            f"ItemTrie: priority has shape {np.shape(priority)}; expected one value per item, {lengths.shape}"
        )
    columns, codebooks = _to_columns(flat, offsets, lengths)
    order, shared = _sort_items(columns, offsets, lengths, [len(codebook) for codebook in codebooks])
    if len(shared):
        if on_duplicate == "error":
            raise ValueError(_describe_duplicates(order, shared, flat, offsets))
        _order_duplicates(order, shared, priority)
    arrays = _open_nodes(columns, offsets, lengths, order)
    return {
        **arrays,
        "item_order": order.astype(np.int32),
        "codebook": np.concatenate(codebooks).astype(np.int64),
        "codebook_ptr": np.cumsum([0, *map(len, codebooks)]),
    }


def _flatten(sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences as flat tokens and offsets `[I + 1]`."""
    if isinstance(sequences, tuple) and len(sequences) == 2 and isinstance(sequences[0], np.ndarray):
        return sequences[0], np.asarray(sequences[1], dtype=np.int64)
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    tokens = (token for sequence in sequences for token in sequence)
    flat = np.fromiter(tokens, dtype=np.int64, count=int(lengths.sum()))
    return flat, np.concatenate([[0], lengths.cumsum()])


def _check_sequences(flat: np.ndarray, lengths: np.ndarray, vocab_size: int | None) -> None:
    if len(lengths) == 0:
        raise ValueError("ItemTrie: no sequences; a catalog needs at least one item")
    if (lengths <= 0).any():
        row = int(np.flatnonzero(lengths <= 0)[0])
        raise ValueError(f"ItemTrie: the sequence of row {row} is empty; give every item at least one token")
    upper = np.iinfo(np.int32).max if vocab_size is None else vocab_size
    if flat.min() < 0 or flat.max() >= upper:
        wrong = int(np.flatnonzero((flat < 0) | (flat >= upper))[0])
        row = int(np.searchsorted(lengths.cumsum(), wrong, side="right"))
        raise ValueError(
            f"ItemTrie: token {flat[wrong]} of row {row} is not in [0, {upper}); "
            "tokenize the items with the model's tokenizer"
        )


def _to_columns(flat: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Every token as its rank among the tokens of its position, in the smallest dtype; and these tokens, sorted."""
    max_depth = int(lengths.max())
    if len(flat) == max_depth * len(lengths):
        levels = [slice(depth, None, max_depth) for depth in range(max_depth)]
    else:
        levels = [offsets[:-1][lengths > depth] + depth for depth in range(max_depth)]
    ranked = [_rank(flat[level]) for level in levels]
    codebooks = [codebook for codebook, _ in ranked]
    largest = max(map(len, codebooks)) - 1
    dtype = next(dtype for dtype in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(dtype).max)
    columns = np.empty(len(flat), dtype=dtype)
    for level, (_, column) in zip(levels, ranked, strict=True):
        columns[level] = column
    return columns, codebooks


def _rank(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct tokens, sorted, and for every token its index among them."""
    lowest, span = tokens.min(), int(tokens.max()) - int(tokens.min()) + 1
    if span > _TABLE_SIZE:
        return np.unique(tokens, return_inverse=True)
    tokens = tokens - lowest
    codebook = np.flatnonzero(np.bincount(tokens, minlength=span))
    rank = np.zeros(span, dtype=np.int32)
    rank[codebook] = np.arange(len(codebook))
    return codebook + int(lowest), rank[tokens]


def _sort_items(
    columns: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, sizes: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Rows in the order of their sequences, equal ones in row order.

    As many levels as fit are packed into one int64 and sorted at once; where that leaves ties, the items concerned are
    sorted by their group and the next levels, until nothing ties or all levels are used. A sequence that has ended
    counts as 0, so that it stands before what extends it.

    Returns:
        `tuple`: rows `[I]`, and of the items that share their sequence, groups `[2, S]`: position in that order, and
        the position of the first item of the same sequence.
    """
    num_items, ended = len(lengths), int(lengths.min() < lengths.max())
    bits = [(size - 1 + ended).bit_length() for size in sizes]
    order = np.arange(num_items)
    # Positions that are not settled yet, and the group of each: the items that tie so far.
    tied, group = np.arange(num_items), np.zeros(num_items, dtype=np.int64)
    depth = 0
    while depth < len(sizes) and len(tied):
        rows, first_depth = order[tied], depth
        key, width = group, int(group[-1]).bit_length()
        room = _KEY_BITS - (len(tied) - 1).bit_length()  # leaves space for the index, see _argsort
        while depth < len(sizes) and (depth == first_depth or width + bits[depth] <= room):
            key = (key << bits[depth]) | _level(columns, offsets, lengths, rows, depth, ended)
            width += bits[depth]
            depth += 1
        index, key = _argsort(key, width)
        order[tied] = rows[index]
        starts = np.concatenate([[True], key[1:] != key[:-1]])
        alone = starts & np.concatenate([starts[1:], [True]])
        tied = tied[~alone]
        group = (starts.cumsum() - 1)[~alone]
    return order, np.stack([tied, group])


def _level(
    columns: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, rows: np.ndarray, depth: int, ended: int
) -> np.ndarray:
    """Sort key of the rows' tokens at one depth."""
    if not ended:
        return columns[offsets[rows] + depth]
    goes_on = lengths[rows] > depth
    key = np.zeros(len(rows), dtype=np.int64)
    key[goes_on] = columns[offsets[rows[goes_on]] + depth] + np.int64(1)
    return key


def _argsort(key: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Stable argsort of keys of `width` bits, and the sorted keys. Sorting values is several times faster."""
    index_bits = (len(key) - 1).bit_length()
    if width + index_bits > _KEY_BITS:
        index = np.argsort(key, kind="stable")
        return index, key[index]
    packed = (key << index_bits) | np.arange(len(key))
    packed.sort()
    return packed & ((1 << index_bits) - 1), packed >> index_bits


def _order_duplicates(order: np.ndarray, shared: np.ndarray, priority: Sequence[float] | np.ndarray | None) -> None:
    """Puts items of one sequence in order of priority, in place; ties keep catalog order."""
    if priority is not None:
        position, group = shared
        rows = order[position]
        order[position] = rows[np.lexsort((-np.asarray(priority, dtype=np.float64)[rows], group))]


def _describe_duplicates(order: np.ndarray, shared: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> str:
    position, group = shared
    rows = order[position[group == group[0]]].tolist()
    sequence = flat[offsets[rows[0]] : offsets[rows[0] + 1]].tolist()
    return (
        f"ItemTrie: {len(position)} items share their sequence with another, e.g. rows {rows[:10]} the sequence "
        f'{sequence}; make them distinct or pass on_duplicate="share"'
    )


def _open_nodes(
    columns: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, order: np.ndarray
) -> dict[str, np.ndarray]:
    """The nodes of the sorted items, depth by depth."""
    num_items, max_depth = len(order), int(lengths.max())
    uniform = int(lengths.min()) == max_depth
    start, length = offsets[order], lengths[order]
    row_ptr, child_column = [], []
    leaf_start, leaf_end = [np.zeros(1, dtype=np.int32)], [np.full(1, num_items, dtype=np.int32)]
    items = np.arange(num_items, dtype=np.int32)  # sorted items that go on, and
    opens = items == 0  # whether they are the first beneath their node of this depth
    num_edges = 0
    for depth in range(max_depth):
        if not uniform:
            goes_on = length[items] > depth
            _check_no_prefix(goes_on, opens, items, order)
            items, opens = items[goes_on], opens[goes_on]
        column = columns[start[items] + depth]
        opens[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(opens)
        child_column.append(column[first])
        row_ptr.append(np.int32(num_edges) + np.searchsorted(items[first], leaf_start[-1]).astype(np.int32))
        leaf_start.append(items[first])
        if not uniform:
            leaf_end.append(items[first] + np.diff(first, append=len(items)).astype(np.int32))
        num_edges += len(first)
    row_ptr.append(np.full(len(leaf_start[-1]) + 1, num_edges, dtype=np.int32))  # the deepest nodes have no children
    arrays = {"row_ptr": row_ptr, "child_column": child_column, "leaf_start": leaf_start}
    if not uniform:
        arrays["leaf_end"] = leaf_end
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def _check_no_prefix(goes_on: np.ndarray, opens: np.ndarray, items: np.ndarray, order: np.ndarray) -> None:
    """Sorted, a proper prefix stands right before a sequence that extends it: neighbours are enough."""
    prefix = np.flatnonzero(goes_on[1:] & ~goes_on[:-1] & ~opens[1:])
    if len(prefix):
        short, long = order[items[prefix[0]]], order[items[prefix[0] + 1]]
        raise ValueError(
            f"ItemTrie: the sequence of row {short} is a proper prefix of that of row {long}; "
            "end every sequence with a terminal token"
        )


__all__ = ["ON_DUPLICATE", "build_trie_arrays"]
