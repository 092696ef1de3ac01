"""ItemTrie: the prefix tree of a catalog's token sequences, as flat tensors.

Shapes: B batch, C children, I items, T tokens of a sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .item_trie_builder import build_trie_arrays


_TENSORS = ("row_ptr", "child_token", "leaf_start", "leaf_end", "item_order")


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


class ItemTrie:
    """
    Prefix tree of the catalog's token sequences as flat CSR tensors, with no Python object per node.

    Nodes are numbered breadth first and edges are stored in that order, so edge `e` leads to node `e + 1` and the
    children of a node are neighbours, ordered by token. Items are sorted by sequence, so the items beneath a node are
    a range of the sorted items: a prefix sum over an allowed subset tells whether something allowed lies beneath it.

    ```text
    sequences            sorted items      the tree                row_ptr     [0, 2, 3, 5, 5, 5, 5]
    row 0: [5, 9]        0: row 1                0                 child_token [2, 5, 7, 8, 9]
    row 1: [2, 7]        1: row 2            2 /   \\ 5             leaf_start  [0, 0, 1, 0, 1, 2]
    row 2: [5, 8]        2: row 0            1       2             leaf_end    [3, 1, 3, 1, 2, 3]
                                           7 |    8 / \\ 9          item_order  [1, 2, 0]
                                             3     4   5           depth_ptr   [0, 1, 3, 6]
    ```

    Use [`ItemTrie.from_sequences`] to build one and [`ItemTrie.load`] to read one.

    Args:
        row_ptr (`torch.IntTensor` of shape `[num_nodes + 1]`): Edges of node `n` are `row_ptr[n]:row_ptr[n + 1]`.
        child_token (`torch.IntTensor` of shape `[num_nodes - 1]`): Token on each edge.
        leaf_start, leaf_end (`torch.IntTensor` of shape `[num_nodes]`): Node `n` covers the sorted items
            `leaf_start[n]:leaf_end[n]`.
        item_order (`torch.IntTensor` of shape `[I]`): Catalog row of each sorted item. Items that share one sequence
            stand in the order in which they should be recommended.
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
    """

    def __init__(
        self,
        row_ptr: torch.Tensor,
        child_token: torch.Tensor,
        leaf_start: torch.Tensor,
        leaf_end: torch.Tensor,
        item_order: torch.Tensor,
        catalog_fingerprint: str = "",
    ):
        self.row_ptr, self.child_token = row_ptr, child_token
        self.leaf_start, self.leaf_end, self.item_order = leaf_start, leaf_end, item_order
        self.catalog_fingerprint = catalog_fingerprint

        num_children = row_ptr.diff()
        self.num_nodes, self.num_items = len(leaf_start), len(item_order)
        self.num_leaves = int((num_children == 0).sum())
        self.depth_ptr = _depth_ptr(row_ptr.cpu().numpy())
        self.max_depth = len(self.depth_ptr) - 2
        # Host integers, so that no decoding step waits for the device.
        counts = num_children.cpu().numpy()
        self.max_children: list[int] = np.maximum.reduceat(counts, self.depth_ptr[:-1]).tolist()

        self.max_token = int(child_token.max())
        self.has_uniform_depth = self.num_leaves == self.depth_ptr[-1] - self.depth_ptr[-2]

        # Edges are sorted by (parent, token), hence by this key: one binary search follows one token.
        self._key_base = self.max_token + 1
        parent = torch.arange(self.num_nodes, device=row_ptr.device).repeat_interleave(num_children)
        self._edge_key = parent * self._key_base + child_token
        # Computed here, because a tensor that decoding made under inference_mode could not be used in training.
        edges_ptr = [first - 1 for first in self.depth_ptr[1:]]  # edge e leads to node e + 1
        self._tokens_at = [
            child_token[first:last].long().unique() for first, last in zip(edges_ptr, edges_ptr[1:], strict=False)
        ]

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray],
        *,
        priority: Sequence[float] | np.ndarray | None = None,
        vocab_size: int | None = None,
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
            catalog_fingerprint (`str`, *optional*, defaults to `""`): Kept with the trie.

        Returns:
            `ItemTrie`: the trie, on the CPU.

        Raises:
            `ValueError`: no sequence, an empty one, one that is a proper prefix of another, a token out of range.
        """
        arrays = build_trie_arrays(sequences, priority, vocab_size)
        tensors = {name: torch.from_numpy(array.astype(np.int32)) for name, array in arrays.items()}
        return cls(**tensors, catalog_fingerprint=catalog_fingerprint)

    def children(self, nodes: torch.Tensor, depth: int, allowed_prefix: torch.Tensor | None = None) -> Children:
        """
        Children of a batch of nodes of one depth, in one gather.

        Args:
            nodes (`torch.LongTensor` of shape `[...]` or `[B, ...]`): Nodes of depth `depth`. -1 (outside of the trie)
                has no children.
            depth (`int`): Depth of all the nodes; the root has depth 0.
            allowed_prefix (`torch.IntTensor` of shape `[B, I + 1]`, *optional*): From [`ItemTrie.allowed_prefix`]; row
                `b` drops the children of `nodes[b]` beneath which nothing is allowed.

        Returns:
            `Children`: tokens, nodes and mask of shape `[..., C]` with `C = max_children[depth]`.
        """
        first = self.row_ptr[nodes].long()
        num_children = self.row_ptr[nodes + 1].long() - first  # negative for node -1, which reads the last entry first
        offset = torch.arange(self.max_children[depth], device=first.device)
        mask = offset < num_children.unsqueeze(-1)
        edge = (first.unsqueeze(-1) + offset).masked_fill(~mask, 0)
        child = edge + 1
        if allowed_prefix is not None:
            mask = mask & self.holds_allowed(child, allowed_prefix)
        tokens = self.child_token[edge].long()
        return Children(tokens.masked_fill(~mask, 0), child.masked_fill(~mask, 0), mask)

    def tokens_at(self, depth: int) -> torch.Tensor:
        """
        Distinct tokens that may follow any sequence of `depth` tokens: the codebook of that step.

        Args:
            depth (`int`): Number of tokens before.

        Returns:
            `torch.LongTensor`: sorted tokens.
        """
        return self._tokens_at[depth]

    def allowed_prefix(self, allowed_items: torch.Tensor) -> torch.Tensor:
        """
        Prefix sums that restrict the trie to a sub-catalog: of the sorted items `a:b`, `p[b] - p[a]` are allowed.

        Args:
            allowed_items (`torch.BoolTensor` of shape `[B, I]`): What each row may recommend, in catalog order.

        Returns:
            `torch.IntTensor` of shape `[B, I + 1]`.

        Raises:
            `ValueError`: the mask does not have one column per item.
        """
        if allowed_items.dim() != 2 or allowed_items.shape[1] != self.num_items:
            raise ValueError(
                f"ItemTrie: allowed_items has shape {tuple(allowed_items.shape)}; expected [batch, {self.num_items}], "
                "one column per catalog item"
            )
        in_order = allowed_items.to(self.item_order.device)[:, self.item_order]
        return torch.nn.functional.pad(in_order.cumsum(1, dtype=torch.int32), (1, 0))

    def holds_allowed(self, nodes: torch.Tensor, allowed_prefix: torch.Tensor) -> torch.Tensor:
        """
        Whether something allowed lies beneath nodes.

        Args:
            nodes (`torch.LongTensor` of shape `[B, ...]`): Nodes.
            allowed_prefix (`torch.IntTensor` of shape `[B, I + 1]`): From [`ItemTrie.allowed_prefix`].

        Returns:
            `torch.BoolTensor`: of the shape of `nodes`.
        """
        start, end = self.leaf_range(nodes.flatten(1))
        return (allowed_prefix.gather(1, end) > allowed_prefix.gather(1, start)).view_as(nodes)

    def leaf_range(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Which of the sorted items lie beneath nodes: `item_order[start:end]`.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes.

        Returns:
            `tuple` of two `torch.LongTensor` of shape `[...]`: start and end.
        """
        return self.leaf_start[nodes].long(), self.leaf_end[nodes].long()

    def walk(self, sequences: torch.Tensor) -> torch.Tensor:
        """
        Follows token sequences from the root, one binary search per token.

        Args:
            sequences (`torch.LongTensor` of shape `[..., T]`): Tokens; any token that is no child (-100 padding too)
                leaves the trie.

        Returns:
            `torch.LongTensor` of shape `[..., T + 1]`: node before each token and after the last; -1 from where the
            sequence has left the trie.
        """
        node = torch.zeros(sequences.shape[:-1], dtype=torch.long, device=self.row_ptr.device)
        path = [node]
        for token in sequences.to(node.device).unbind(-1):
            key = node * self._key_base + token
            edge = torch.searchsorted(self._edge_key, key).clamp(max=len(self._edge_key) - 1)
            # Outside of the trie keys are negative. A token beyond the base could pass for the child of another node.
            known = (token >= 0) & (token < self._key_base) & (self._edge_key[edge] == key)
            node = torch.where(known, edge + 1, -1)
            path.append(node)
        return torch.stack(path, dim=-1)

    def is_leaf(self, nodes: torch.Tensor) -> torch.Tensor:
        """True where a node ends a sequence; False for -1. Shape of `nodes`, `torch.BoolTensor`."""
        return self.row_ptr[nodes + 1] == self.row_ptr[nodes]

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
        tensors = {name: getattr(self, name).to(device) for name in _TENSORS}
        return ItemTrie(**tensors, catalog_fingerprint=self.catalog_fingerprint)

    def save(self, path: str | Path) -> None:
        """Writes the trie to a safetensors file, with a digest of its content."""
        tensors = {name: getattr(self, name).cpu().contiguous() for name in _TENSORS}
        digest = _digest(tensors, self.catalog_fingerprint)
        save_file(tensors, path, {"catalog_fingerprint": self.catalog_fingerprint, "digest": digest, "format": "pt"})

    @classmethod
    def load(cls, path: str | Path) -> ItemTrie:
        """
        Reads a trie written by [`ItemTrie.save`].

        Raises:
            `ValueError`: the file is truncated, is no trie, or its content is not what was saved.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(
                f"ItemTrie: {path} is truncated or is no trie ({error}); save the processor again"
            ) from error
        fingerprint = metadata.get("catalog_fingerprint", "")
        if metadata.get("digest") != _digest(tensors, fingerprint):
            raise ValueError(f"ItemTrie: the content of {path} does not match its digest; save the processor again")
        return cls(**tensors, catalog_fingerprint=fingerprint)


def _depth_ptr(row_ptr: np.ndarray) -> list[int]:
    """First node of every depth, then the number of nodes."""
    depth_ptr = [0, 1]
    while depth_ptr[-1] < len(row_ptr) - 1:
        depth_ptr.append(int(row_ptr[depth_ptr[-1]]) + 1)
    return depth_ptr


def _digest(tensors: dict[str, torch.Tensor], fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for name in _TENSORS:
        digest.update(f"{name}:{tensors[name].dtype}:{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


__all__ = ["Children", "ItemTrie"]
