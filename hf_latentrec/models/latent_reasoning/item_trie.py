"""ItemTrie: the prefix tree of a catalog's token sequences, as flat tensors.

Shapes: B batch, C children, I items, R nodes, T tokens of a sequence, U tokens of a depth's codebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .item_trie_builder import build_trie_arrays
from .item_trie_io import load_trie_tensors, save_trie_tensors
from .item_trie_paths import TriePaths


_TENSORS = ("row_ptr", "child_column", "leaf_start", "item_order", "codebook", "codebook_ptr")


class Children(NamedTuple):
    """
    The continuations of a batch of trie nodes, padded to one width.

    Args:
        tokens (`torch.LongTensor` of shape `[..., C]`): Token of each child; 0 where there is none.
        nodes (`torch.LongTensor` of shape `[..., C]`): Node of each child; 0 where there is none.
        mask (`torch.BoolTensor` of shape `[..., C]`): True where there is a child.
    """

    tokens: torch.Tensor
    nodes: torch.Tensor
    mask: torch.Tensor


class ItemTrie(TriePaths):
    """
    Prefix tree of the catalog's token sequences as flat CSR tensors, with no Python object per node.

    Nodes are numbered breadth first and edges are stored in that order, so edge `e` leads to node `e + 1` and the
    children of a node are neighbours, ordered by token. The tokens that occur at a depth are its codebook; an edge
    stores the column of its token in there, which fits into a byte or two. Items are sorted by sequence, so the items
    beneath a node are a range of the sorted items, and the ranges of one depth follow each other.

    ```text
    sequences            sorted items      the tree                row_ptr      [0, 2, 3, 5, 5, 5, 5]
    row 0: [5, 9]        0: row 1                0                 child_column [0, 1, 0, 1, 2]
    row 1: [2, 7]        1: row 2            2 /   \\ 5             codebook     [2, 5, 7, 8, 9]
    row 2: [5, 8]        2: row 0            1       2             codebook_ptr [0, 2, 5]
                                           7 |    8 / \\ 9          leaf_start   [0, 0, 1, 0, 1, 2]
                                             3     4   5           leaf_end     [3, 1, 3, 1, 2, 3]
                                                                   item_order   [1, 2, 0]
                                                                   depth_ptr    [0, 1, 3, 6]
    ```

    Use [`ItemTrie.from_sequences`] to build one and [`ItemTrie.load`] to read one.

    Args:
        row_ptr (`torch.IntTensor` of shape `[num_nodes + 1]`): Edges of node `n` are `row_ptr[n]:row_ptr[n + 1]`.
        child_column (`torch.Tensor` of shape `[num_nodes - 1]`, uint8, int16 or int32): Column on each edge.
        leaf_start (`torch.IntTensor` of shape `[num_nodes]`): First sorted item that each node covers.
        item_order (`torch.IntTensor` of shape `[I]`): Catalog row of each sorted item. Items that share one sequence
            stand in the order in which they should be recommended.
        codebook (`torch.LongTensor`): Sorted tokens of every depth, one depth after the other.
        codebook_ptr (`torch.LongTensor` of shape `[max_depth + 1]`): Codebook of depth `d` is
            `codebook[codebook_ptr[d]:codebook_ptr[d + 1]]`.
        leaf_end (`torch.IntTensor` of shape `[num_nodes]`, *optional*): One past the last sorted item that each node
            covers. Needed only where sequences differ in length; otherwise it is where the next node of the same
            depth starts.
        catalog_fingerprint (`str`, *optional*, defaults to `""`): Fingerprint of the catalog it was built from.

    Example:
        >>> import torch
        >>> trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
        >>> children = trie.children(torch.tensor([0]), depth=0)
        >>> children.tokens.tolist(), children.nodes.tolist()
        ([[2, 5]], [[1, 2]])
        >>> trie.walk(torch.tensor([[5, 8], [5, 7]])).tolist()
        [[0, 2, 4], [0, 2, -1]]
        >>> trie.leaf_items(torch.tensor([4]))[0].tolist()
        [2]
        >>> trie.sequences(torch.tensor([1, 4])).tolist()
        [[2, -100], [5, 8]]
    """

    def __init__(
        self,
        row_ptr: torch.Tensor,
        child_column: torch.Tensor,
        leaf_start: torch.Tensor,
        item_order: torch.Tensor,
        codebook: torch.Tensor,
        codebook_ptr: torch.Tensor,
        leaf_end: torch.Tensor | None = None,
        catalog_fingerprint: str = "",
    ):
        self.num_items, self.num_nodes = len(item_order), len(leaf_start)
        self.row_ptr, self.item_order = row_ptr, item_order
        self.codebook, self.codebook_ptr = codebook, codebook_ptr
        self.catalog_fingerprint = catalog_fingerprint

        # Host integers, so that no decoding step waits for the device.
        edges_before = row_ptr.cpu().numpy()
        num_children = np.diff(edges_before)
        self.depth_ptr = _depth_ptr(edges_before)
        self.max_depth = len(self.depth_ptr) - 2
        self.max_children: list[int] = np.maximum.reduceat(num_children, self.depth_ptr[:-1]).tolist()
        self.num_leaves = int((num_children == 0).sum())
        self.has_uniform_depth = self.num_leaves == self.depth_ptr[-1] - self.depth_ptr[-2]
        self.max_token = int(codebook.max())
        self._codebook_ptr: list[int] = codebook_ptr.tolist()

        # What a reader behind the last node or edge finds: the end of the items, and columns to fill up a window.
        self._leaf_start = torch.cat([leaf_start, leaf_start.new_full((1,), self.num_items)])
        self._leaf_end = None if leaf_end is None else torch.cat([leaf_end, leaf_end.new_full((1,), self.num_items)])
        self._column = torch.cat([child_column, child_column.new_zeros(max(self.max_children))])

    @classmethod
    @torch.inference_mode(False)  # a trie that is made while decoding can be trained with
    def from_sequences(
        cls,
        sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray],
        *,
        priority: Sequence[float] | np.ndarray | None = None,
        vocab_size: int | None = None,
        on_duplicate: str = "share",
        catalog_fingerprint: str = "",
    ) -> ItemTrie:
        """
        Builds the trie by sorting, in a few vectorized passes.

        Args:
            sequences (`list[list[int]]` or `tuple[np.ndarray, np.ndarray]`): One token sequence per item in catalog
                order, or the same as `(flat_tokens, offsets [I + 1])`.
            priority (array of shape `[I]`, *optional*): Items that share a sequence are ordered by it, higher first;
                ties, and no priority, mean catalog order.
            vocab_size (`int`, *optional*): Upper bound (exclusive) that tokens are checked against.
            on_duplicate (`str`, *optional*, defaults to `"share"`): Items of one sequence `"share"` a leaf, or are an
                `"error"`.
            catalog_fingerprint (`str`, *optional*, defaults to `""`): Kept with the trie.

        Returns:
            `ItemTrie`: the trie, on the CPU.

        Raises:
            `ValueError`: no sequence, an empty one, one that is a proper prefix of another, a token out of range, a
                repeated sequence with `on_duplicate="error"`.
        """
        arrays = build_trie_arrays(sequences, priority, vocab_size, on_duplicate)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(**tensors, catalog_fingerprint=catalog_fingerprint)

    @property
    def child_column(self) -> torch.Tensor:
        """Column in the codebook on each edge, `[num_nodes - 1]`."""
        return self._column[: self.num_nodes - 1]

    @property
    def leaf_start(self) -> torch.Tensor:
        """First of the sorted items that each node covers, `[num_nodes]`."""
        return self._leaf_start[:-1]

    @property
    def leaf_end(self) -> torch.Tensor:
        """One past the last of the sorted items that each node covers, `[num_nodes]`."""
        if self._leaf_end is not None:
            return self._leaf_end[:-1]
        return self.leaf_range(torch.arange(self.num_nodes, device=self.row_ptr.device))[1].int()

    @cached_property
    @torch.inference_mode(False)
    def item_rank(self) -> torch.Tensor:
        """Place of each catalog row among the sorted items, `[I]`: the inverse of `item_order`. Made at first use."""
        rank = torch.empty_like(self.item_order)
        rank[self.item_order.long()] = torch.arange(self.num_items, dtype=rank.dtype, device=rank.device)
        return rank

    def edges(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Edges to the children of nodes: `first, first + 1, ..., first + count - 1`. Edge `e` leads to node `e + 1`.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes. -1 (outside of the trie) has no children.

        Returns:
            `tuple` of two `torch.LongTensor` of shape `[...]`: first edge and number of children.
        """
        first = self.row_ptr[nodes].long()
        return first, (self.row_ptr[nodes + 1] - first).clamp(min=0)  # node -1 reads the last entry, then the first

    def columns_from(self, first_edge: torch.Tensor, depth: int) -> torch.Tensor:
        """
        Columns in the codebook of `depth` on as many edges as any node of that depth has.

        Args:
            first_edge (`torch.LongTensor` of shape `[...]`): First edge of nodes of that depth.
            depth (`int`): Depth of all the nodes.

        Returns:
            `torch.LongTensor` of shape `[..., C]` with `C = max_children[depth]`; behind the children of a node stand
            any columns of that codebook.
        """
        columns = self._column.unfold(0, self.max_children[depth], 1)[first_edge]
        return columns.clamp(max=self.codebook_size(depth) - 1).long()

    def is_full(self, depth: int) -> bool:
        """Whether each node of a depth has the whole codebook of that depth as children."""
        num_nodes = self.depth_ptr[depth + 1] - self.depth_ptr[depth]
        return self.depth_ptr[depth + 2] - self.depth_ptr[depth + 1] == num_nodes * self.codebook_size(depth)

    def children(self, nodes: torch.Tensor, depth: int) -> Children:
        """
        Children of a batch of nodes of one depth, in one gather.

        Args:
            nodes (`torch.LongTensor` of shape `[...]` or `[B, ...]`): Nodes of depth `depth`. -1 (outside of the trie)
                has no children.
            depth (`int`): Depth of all the nodes; the root has depth 0.

        Returns:
            `Children`: tokens, nodes and mask of shape `[..., C]` with `C = max_children[depth]`.
        """
        first, count = self.edges(nodes)
        offset = torch.arange(self.max_children[depth], device=first.device)
        mask = offset < count.unsqueeze(-1)
        child = (first.unsqueeze(-1) + offset + 1).masked_fill(~mask, 0)
        if depth == self.max_depth:
            return Children(child, child, mask)
        tokens = self.tokens_at(depth)[self.columns_from(first, depth)]
        return Children(tokens.masked_fill(~mask, 0), child.masked_fill(~mask, 0), mask)

    def codebook_size(self, depth: int) -> int:
        """Number of tokens that may follow any sequence of `depth` tokens, U."""
        return self._codebook_ptr[depth + 1] - self._codebook_ptr[depth]

    def tokens_at(self, depth: int) -> torch.Tensor:
        """
        Distinct tokens that may follow any sequence of `depth` tokens: the codebook of that step.

        Args:
            depth (`int`): Number of tokens before.

        Returns:
            `torch.LongTensor` of shape `[U]`: sorted tokens.
        """
        return self.codebook[self._codebook_ptr[depth] : self._codebook_ptr[depth + 1]]

    def tokens_into(self, nodes: torch.Tensor, depth: int) -> torch.Tensor:
        """
        The token that leads into each node from its parent.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes of depth `depth`; -1 gives any token of that depth.
            depth (`int`): Depth of all the nodes, at least 1.

        Returns:
            `torch.LongTensor` of shape `[...]`.
        """
        column = self._column[(nodes - 1).clamp(min=0)].long().clamp(max=self.codebook_size(depth - 1) - 1)
        return self.tokens_at(depth - 1)[column]

    def leaf_range(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Which of the sorted items lie beneath nodes: `item_order[start:end]`.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes. The range of -1 (outside of the trie) is empty.

        Returns:
            `tuple` of two `torch.LongTensor` of shape `[...]`: start and end.
        """
        start = self._leaf_start[nodes].long()
        if self._leaf_end is not None:
            return start, self._leaf_end[nodes].long()
        end = self._leaf_start[nodes + 1].long()  # 0 if the next node is the first of the next depth
        return start, end.masked_fill(end == 0, self.num_items)

    def walk(self, sequences: torch.Tensor) -> torch.Tensor:
        """
        Follows token sequences from the root, one binary search among the children per token.

        Args:
            sequences (`torch.LongTensor` of shape `[..., T]`): Tokens; any token that is no child (-100 padding too)
                leaves the trie.

        Returns:
            `torch.LongTensor` of shape `[..., T + 1]`: node before each token and after the last; -1 from where the
            sequence has left the trie.
        """
        node = torch.zeros(sequences.shape[:-1], dtype=torch.long, device=self.row_ptr.device)
        path = [node]
        for depth, token in enumerate(sequences.to(node.device).unbind(-1)):
            node = self._step(node, token.contiguous(), depth) if depth < self.max_depth else torch.full_like(node, -1)
            path.append(node)
        return torch.stack(path, dim=-1)

    def _step(self, node: torch.Tensor, token: torch.Tensor, depth: int) -> torch.Tensor:
        """The child of each node of one depth that a token leads to, or -1."""
        codebook = self.tokens_at(depth)
        column = torch.searchsorted(codebook, token).clamp(max=len(codebook) - 1)
        edge, count = self.edges(node)
        end = edge + count
        for bit in reversed(range((self.max_children[depth] - 1).bit_length())):
            further = edge + (1 << bit)  # the last edge whose column is not larger than the wanted one
            goes = (further < end) & (self._column[further] <= column)
            edge = torch.where(goes, further, edge)
        known = (edge < end) & (self._column[edge] == column) & (codebook[column] == token)
        return torch.where(known, edge + 1, -1)

    def is_leaf(self, nodes: torch.Tensor) -> torch.Tensor:
        """True where a node ends a sequence; False for -1. Shape of `nodes`, `torch.BoolTensor`."""
        return (self.edges(nodes)[1] == 0) & (nodes >= 0)

    def leaf_items(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Catalog rows of the items beneath nodes (of a leaf: the items that share its sequence), best first.

        Args:
            nodes (`torch.LongTensor` of shape `[R]`): Nodes.

        Returns:
            `tuple` of two `torch.LongTensor` of shape `[M]`: the catalog row of every item, and the index into `nodes`
            that it belongs to (ascending).
        """
        start, end = self.leaf_range(nodes)
        size = end - start
        index = torch.arange(len(nodes), device=size.device).repeat_interleave(size)
        within = torch.arange(len(index), device=size.device) - (size.cumsum(0) - size)[index]
        return self.item_order[start[index] + within].long(), index

    def to(self, device: torch.device | str) -> ItemTrie:
        """The trie on a device; itself where it is there already."""
        if self.row_ptr.to(device) is self.row_ptr:
            return self
        with torch.inference_mode(False):
            tensors = {name: tensor.to(device) for name, tensor in self._tensors().items()}
            return ItemTrie(**tensors, catalog_fingerprint=self.catalog_fingerprint)

    def save(self, path: str | Path) -> None:
        """Writes the trie to a safetensors file, with a digest of its content."""
        save_trie_tensors(self._tensors(), self.catalog_fingerprint, path)

    @classmethod
    @torch.inference_mode(False)
    def load(cls, path: str | Path) -> ItemTrie:
        """
        Reads a trie written by [`ItemTrie.save`].

        Raises:
            `ValueError`: the file is truncated, is no trie, is of another version, or its content is not what was
                saved.
        """
        tensors, fingerprint = load_trie_tensors(path)
        return cls(**tensors, catalog_fingerprint=fingerprint)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What is saved, and what `__init__` takes."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return tensors if self._leaf_end is None else {**tensors, "leaf_end": self.leaf_end}


def _depth_ptr(row_ptr: np.ndarray) -> list[int]:
    """First node of every depth, then the number of nodes."""
    depth_ptr = [0, 1]
    while depth_ptr[-1] < len(row_ptr) - 1:
        depth_ptr.append(int(row_ptr[depth_ptr[-1]]) + 1)
    return depth_ptr


__all__ = ["Children", "ItemTrie"]
