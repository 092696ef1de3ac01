"""The way from the root to a node of an ItemTrie, and on from it as far as there is no choice.

Shapes: R nodes, T tokens of a sequence.
"""

from __future__ import annotations

from functools import cached_property

import torch


_PADDING = -100  # as in labels


class TriePaths:
    """
    The part of [`ItemTrie`] that titles need: which tokens lead to a node, and where it leads by force.

    What it looks up is computed at the first call and kept; a trie that is never asked holds none of it.
    """

    def depth_of(self, nodes: torch.Tensor) -> torch.Tensor:
        """Number of tokens from the root to each node; -1 for -1. Shape of `nodes`, `torch.LongTensor`."""
        return torch.searchsorted(self._first_of_depth, nodes, right=True) - 1

    def forced_end(self, nodes: torch.Tensor) -> torch.Tensor:
        """
        Where nodes lead without a choice: follows edges while a node has exactly one child.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes.

        Returns:
            `torch.LongTensor` of shape `[...]`: a leaf or a node with several children, maybe the node itself.
        """
        return torch.where(nodes < 0, nodes, self._forced_end[nodes])

    def path_tokens(self, nodes: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """
        Single tokens of the sequences that lead to, and on from, nodes: any ragged selection, in one pass.

        Args:
            nodes (`torch.LongTensor` of shape `[...]`): Nodes.
            depths (`torch.LongTensor` of shape `[...]`, broadcast with `nodes`): Position of each token, from 0.

        Returns:
            `torch.LongTensor`: that token of the first sorted sequence beneath the node. Up to the depth of the node,
            and on to its [`ItemTrie.forced_end`], all sequences beneath it share it. -100 where the sequence is
            shorter, and for node -1.
        """
        item, level = self._leaf_start[nodes].long(), (depths + 1) * (self.num_items + 1)
        node = (
            torch.searchsorted(self._depth_and_item, level + item, right=True) - 1
        )  # of depth `depths + 1` above item
        known = (depths >= 0) & (self._depth_and_item[node] >= level) & (self.leaf_range(node)[1] > item)
        edge, depth = (node - 1).clamp(min=0), depths.clamp(0, self.max_depth - 1)
        column = (self.codebook_ptr[depth] + self._column[edge]).clamp(max=len(self.codebook) - 1)
        return self.codebook[column].masked_fill(~known, _PADDING)

    def sequences(self, nodes: torch.Tensor) -> torch.Tensor:
        """
        Tokens from the root to nodes.

        Args:
            nodes (`torch.LongTensor` of shape `[R]`): Nodes.

        Returns:
            `torch.LongTensor` of shape `[R, T]`: padded with -100 to `max_depth` if all sequences have one length (no
            wait for the device), else to the deepest of the nodes; nothing but padding for -1.
        """
        depths = self.depth_of(nodes)
        if self.has_uniform_depth:
            return self._climb(nodes, depths)
        position = torch.arange(int(depths.max()) if len(depths) else 0, device=depths.device)
        return self.path_tokens(nodes[:, None], position).masked_fill(position >= depths[:, None], _PADDING)

    def _climb(self, nodes: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """[`sequences`] from parent to parent: slower than [`path_tokens`], but without its index of all nodes."""
        tokens = []
        for depth in range(self.max_depth, 0, -1):
            on_path = depths >= depth
            tokens.append(self.tokens_into(nodes, depth).masked_fill(~on_path, _PADDING))
            edge = (nodes - 1).clamp(min=0).to(self.row_ptr.dtype)
            parent = torch.searchsorted(self.row_ptr, edge, right=True) - 1
            nodes = torch.where(on_path, parent, nodes)
        return torch.stack(tokens[::-1], dim=-1)

    @cached_property
    @torch.inference_mode(False)
    def _first_of_depth(self) -> torch.Tensor:
        return torch.tensor(self.depth_ptr[:-1], device=self.row_ptr.device)

    @cached_property
    @torch.inference_mode(False)
    def _forced_end(self) -> torch.Tensor:
        nodes = torch.arange(self.num_nodes, device=self.row_ptr.device)
        first, count = self.edges(nodes)
        end = torch.where(count == 1, first + 1, nodes)
        for _ in range(self.max_depth.bit_length()):  # each round doubles the number of edges followed
            end = end[end]
        return end.int()

    @cached_property
    @torch.inference_mode(False)
    def _depth_and_item(self) -> torch.Tensor:
        """Depth and first item of every node in one ascending number, so that a search finds an item's ancestor."""
        depth = self.depth_of(torch.arange(self.num_nodes, device=self.row_ptr.device))
        return depth * (self.num_items + 1) + self.leaf_start


__all__ = ["TriePaths"]
