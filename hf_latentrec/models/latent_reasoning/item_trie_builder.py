"""The arrays of an ItemTrie, built by sorting the catalog's sequences, in a few vectorized passes.

Shapes: I items, T tokens of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


ON_DUPLICATE = ("share", "error")
_KEY_BITS = 63  # of an int64 that is never negative
_TABLE_SIZE = 1 << 24  # tokens that span more are ranked by sorting instead of by a table


@dataclass(frozen=True)
class _Rows:
    """Rows of tokens (or of whatever stands for them) end to end: row `r` is `flat[offsets[r] : offsets[r + 1]]`."""

    flat: np.ndarray
    offsets: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @cached_property
    def width(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def is_uniform(self) -> bool:
        return int(self.lengths.min()) == self.width

    def level(self, depth: int) -> slice | np.ndarray:
        """Where in `flat` the tokens of one depth stand, of all rows that go on that far."""
        if self.is_uniform:
            return slice(depth, None, self.width)
        return self.offsets[:-1][self.lengths > depth] + depth

    def at(self, rows: np.ndarray, depth: int) -> np.ndarray:
        """The token at one depth of rows that go on that far."""
        if self.is_uniform:
            return self.flat[depth :: self.width].take(rows)
        return self.flat[self.offsets[rows] + depth]

    def take(self, order: np.ndarray) -> _Rows:
        """The rows in another order."""
        if self.is_uniform:
            return _Rows(self.flat.reshape(-1, self.width).take(order, axis=0).ravel(), self.offsets)
        lengths = self.lengths[order]
        offsets = np.concatenate([[0], lengths.cumsum()])
        index = np.arange(len(self.flat)) + (self.offsets[order] - offsets[:-1]).repeat(lengths)
        return _Rows(self.flat[index], offsets)


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
    tokens = _to_rows(sequences)
    _check_tokens(tokens, vocab_size)
    if priority is not None and np.shape(priority) != tokens.lengths.shape:
        raise ValueError(
            f"ItemTrie: priority has shape {np.shape(priority)}; expected one value per item, {tokens.lengths.shape}"
        )
    columns, codebooks = _to_columns(tokens)
    order, tied, group = _sort_rows(columns, [len(codebook) for codebook in codebooks])
    if len(tied) and on_duplicate == "error":
        raise ValueError(_describe_duplicates(tokens, order[tied], group))
    if len(tied) and priority is not None:
        rows = order[tied]
        order[tied] = rows[np.lexsort((-np.asarray(priority, dtype=np.float64)[rows], group))]
    return {
        **_open_nodes(columns.take(order), order),
        "item_order": order.astype(np.int32),
        "codebook": np.concatenate(codebooks).astype(np.int64),
        "codebook_ptr": np.cumsum([0, *map(len, codebooks)]),
    }


def _to_rows(sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray]) -> _Rows:
    if isinstance(sequences, tuple) and len(sequences) == 2 and isinstance(sequences[0], np.ndarray):
        flat, offsets = sequences[0], np.asarray(sequences[1], dtype=np.int64)
        if offsets[0] != 0 or offsets[-1] != len(flat):
            raise ValueError(
                f"ItemTrie: offsets go from {offsets[0]} to {offsets[-1]}, but there are {len(flat)} tokens; "
                "they start at 0 and end at the number of tokens"
            )
        return _Rows(flat, offsets)
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    tokens = (token for sequence in sequences for token in sequence)
    flat = np.fromiter(tokens, dtype=np.int64, count=int(lengths.sum()))
    return _Rows(flat, np.concatenate([[0], lengths.cumsum()]))


def _check_tokens(tokens: _Rows, vocab_size: int | None) -> None:
    flat, lengths = tokens.flat, tokens.lengths
    if len(lengths) == 0:
        raise ValueError("ItemTrie: no sequences; a catalog needs at least one item")
    if (lengths <= 0).any():
        row = int(np.flatnonzero(lengths <= 0)[0])
        raise ValueError(f"ItemTrie: the sequence of row {row} is empty; give every item at least one token")
    upper = np.iinfo(np.int32).max if vocab_size is None else vocab_size
    if flat.min() < 0 or flat.max() >= upper:
        wrong = int(np.flatnonzero((flat < 0) | (flat >= upper))[0])
        row = int(np.searchsorted(tokens.offsets, wrong, side="right")) - 1
        raise ValueError(
            f"ItemTrie: token {flat[wrong]} of row {row} is not in [0, {upper}); "
            "tokenize the items with the model's tokenizer"
        )


def _to_columns(tokens: _Rows) -> tuple[_Rows, list[np.ndarray]]:
    """Every token as its column in the codebook of its depth, in the smallest dtype; and the codebooks."""
    codebooks, columns = [], []
    for depth in range(tokens.width):
        codebook, column = _rank(tokens.flat[tokens.level(depth)])
        codebooks.append(codebook)
        columns.append(column)
    flat = np.empty(len(tokens.flat), dtype=np.result_type(*columns))
    for depth, column in enumerate(columns):
        flat[tokens.level(depth)] = column
    return _Rows(flat, tokens.offsets), codebooks


def _rank(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct tokens, sorted, and for every token its index among them, as uint8, int16 or int32."""
    tokens = np.ascontiguousarray(tokens)
    lowest, highest = int(tokens.min()), int(tokens.max())
    if highest - lowest >= _TABLE_SIZE:
        codebook, rank = np.unique(tokens, return_inverse=True)
        return codebook, rank.astype(_smallest_dtype(len(codebook)))
    tokens = tokens - tokens.dtype.type(lowest)
    occurs = np.zeros(highest - lowest + 1, dtype=bool)
    occurs[tokens] = True
    codebook = np.flatnonzero(occurs)
    rank = (occurs.cumsum() - 1).astype(_smallest_dtype(len(codebook)))
    return codebook + lowest, rank.take(tokens)


def _smallest_dtype(size: int) -> type:
    """For indices below `size`; of the dtypes that torch indexes and compares."""
    return next(dtype for dtype in (np.uint8, np.int16, np.int32) if size - 1 <= np.iinfo(dtype).max)


def _sort_rows(columns: _Rows, sizes: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Sorts rows of columns, of which there are `sizes[depth]` at each depth; equal rows keep their order.

    As many levels as fit are packed into one int64 and sorted at once. Where that leaves ties, the rows concerned are
    sorted by their group and the next levels, until nothing ties or all levels are used.

    Returns:
        `tuple`: the sorted rows `[I]`; where in this order rows stand that equal another `[S]`; and which group of
        equal rows each of these belongs to `[S]`.
    """
    num_rows, max_depth = len(columns.lengths), columns.width
    bits = [(size if not columns.is_uniform else size - 1).bit_length() for size in sizes]
    order, tied = np.arange(num_rows), np.arange(num_rows)
    group = np.zeros(num_rows, dtype=np.int64)
    depth = 0
    while depth < max_depth and len(tied):
        rows, key, width = order[tied], group, int(group[-1]).bit_length()
        room = _KEY_BITS - _index_bits(key)
        while True:
            key = (key << bits[depth]) | _level_key(columns, rows, depth)
            width += bits[depth]
            depth += 1
            if depth == max_depth or width + bits[depth] > room:
                break
        index, key = _stable_argsort(key, width)
        order[tied] = rows[index]
        starts = np.concatenate([[True], key[1:] != key[:-1], [True]])
        ties = ~(starts[:-1] & starts[1:])
        tied, group = tied[ties], starts[:-1][ties].cumsum() - 1
    return order, tied, group


def _level_key(columns: _Rows, rows: np.ndarray, depth: int) -> np.ndarray:
    """What rows are sorted by at one depth. A row that has ended counts as 0: it stands before what extends it."""
    if columns.is_uniform:
        return columns.at(rows, depth)
    key = np.zeros(len(rows), dtype=np.int64)
    goes_on = columns.lengths[rows] > depth
    key[goes_on] = columns.at(rows[goes_on], depth) + np.int64(1)
    return key


def _index_bits(key: np.ndarray) -> int:
    return (len(key) - 1).bit_length()


def _stable_argsort(key: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Stable argsort of keys of `width` bits, and the sorted keys."""
    index_bits = _index_bits(key)
    if width + index_bits > _KEY_BITS:
        index = np.argsort(key, kind="stable")
        return index, key[index]
    packed = (key << index_bits) | np.arange(len(key))  # to sort values is several times faster than to argsort
    packed.sort()
    return packed & ((1 << index_bits) - 1), packed >> index_bits


def _describe_duplicates(tokens: _Rows, rows: np.ndarray, group: np.ndarray) -> str:
    first = rows[group == 0].tolist()
    sequence = tokens.flat[tokens.offsets[first[0]] : tokens.offsets[first[0] + 1]].tolist()
    return (
        f"ItemTrie: {len(rows)} items share their sequence with another; rows {first[:10]} all have {sequence}. Make "
        'the sequences distinct, or pass on_duplicate="share"'
    )


def _open_nodes(columns: _Rows, order: np.ndarray) -> dict[str, np.ndarray]:
    """The nodes above sorted rows, depth by depth."""
    num_rows = len(columns.lengths)
    row_ptr, child_column = [], []
    leaf_start, leaf_end = [np.zeros(1, dtype=np.int32)], [np.full(1, num_rows, dtype=np.int32)]
    rows = np.arange(num_rows, dtype=np.int32)  # those that go on, and
    opens = rows == 0  # whether they are the first beneath their node of this depth
    num_edges = 0
    for depth in range(columns.width):
        if not columns.is_uniform:
            goes_on = columns.lengths[rows] > depth
            _check_no_prefix(goes_on, opens, rows, order)
            rows, opens = rows[goes_on], opens[goes_on]
        column = columns.at(rows, depth)
        opens[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(opens)
        start = rows[first]
        row_ptr.append(np.searchsorted(start, leaf_start[-1]).astype(np.int32) + np.int32(num_edges))
        child_column.append(column[first])
        leaf_start.append(start)
        if not columns.is_uniform:
            leaf_end.append(start + np.diff(first, append=len(rows)).astype(np.int32))
        num_edges += len(first)
    row_ptr.append(np.full(len(leaf_start[-1]) + 1, num_edges, dtype=np.int32))  # the deepest nodes have no children
    arrays = {"row_ptr": row_ptr, "child_column": child_column, "leaf_start": leaf_start}
    if not columns.is_uniform:
        arrays["leaf_end"] = leaf_end
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def _check_no_prefix(goes_on: np.ndarray, opens: np.ndarray, rows: np.ndarray, order: np.ndarray) -> None:
    """Sorted, a proper prefix stands right before a sequence that extends it: neighbours are enough."""
    prefix = np.flatnonzero(goes_on[1:] & ~goes_on[:-1] & ~opens[1:])
    if len(prefix):
        short, long = order[rows[prefix[0]]], order[rows[prefix[0] + 1]]
        raise ValueError(
            f"ItemTrie: the sequence of row {short} is a proper prefix of that of row {long}; "
            "end every sequence with a terminal token"
        )


__all__ = ["ON_DUPLICATE", "build_trie_arrays"]
