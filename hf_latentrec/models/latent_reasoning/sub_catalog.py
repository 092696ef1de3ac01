"""SubCatalog: what each prompt of a batch may be answered with, over the trie as it is.

Shapes: B prompts, I items, H seen items of a prompt, M items asked about.
"""

from __future__ import annotations

import torch

from .item_trie import ItemTrie


class SubCatalog:
    """
    The items that each prompt of a batch may be answered with: in stock, of a category, not seen before.

    The trie is not rebuilt. Its items are sorted, so the items beneath a node are a range of ranks, and all that is
    needed is how many of the first `r` sorted items are allowed:

    `below(r) = #{allowed rank < r} - #{seen and allowed rank < r}`, and `[a, b)` holds something if
    `below(b) > below(a)`.

    The first term is a prefix sum over a mask, the second a binary search among the few items that a user has seen, so
    that millions of items need no mask per user.

    Args:
        trie (`ItemTrie`): the whole catalog.
        num_prompts (`int`): B.
        allowed_items (`torch.BoolTensor` [I] or [B, I], *optional*): what may be answered, for all prompts or for
            each, in catalog order; everything by default.
        seen_items (`torch.LongTensor` [B, H], *optional*): catalog rows that are taken out of it, padded with -1;
            duplicates do not matter.

    Raises:
        ValueError: a wrong shape or type, or a row that the catalog does not have.

    Example:
        >>> trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
        >>> unseen = SubCatalog(trie, num_prompts=2, seen_items=torch.tensor([[0, 2], [1, -1]]))
        >>> unseen.num_allowed().tolist()
        [1, 2]
        >>> children = trie.children(torch.tensor([0, 0]), depth=0)
        >>> children.tokens.tolist(), unseen.holds(children.nodes).tolist()
        ([[2, 5], [2, 5]], [[True, False], [False, True]])
    """

    def __init__(
        self,
        trie: ItemTrie,
        num_prompts: int,
        allowed_items: torch.Tensor | None = None,
        seen_items: torch.Tensor | None = None,
    ):
        self.trie, self.num_prompts, self.device = trie, num_prompts, trie.item_order.device
        self._allowed_prefix = self._seen_ranks = None
        if allowed_items is not None:
            _check_allowed(allowed_items, num_prompts, trie.num_items)
            in_order = allowed_items.to(self.device)[..., trie.item_order]
            prefix = torch.nn.functional.pad(in_order.cumsum(-1, dtype=torch.int32), (1, 0))
            self._allowed_prefix = prefix.expand(num_prompts, -1)  # [B, I+1]; one row in memory where all share it
        if seen_items is not None:
            _check_seen(seen_items, num_prompts, trie.num_items)
            self._seen_ranks = self._sorted_ranks(seen_items.to(self.device))  # [B, H]

    def select(self, prompts: slice) -> SubCatalog:
        """The sub-catalog of some of the prompts; views, no copies."""
        part = SubCatalog(self.trie, len(range(self.num_prompts)[prompts]))
        part._allowed_prefix = None if self._allowed_prefix is None else self._allowed_prefix[prompts]
        part._seen_ranks = None if self._seen_ranks is None else self._seen_ranks[prompts]
        return part

    def holds(self, nodes: torch.Tensor) -> torch.Tensor:
        """
        Whether something allowed lies beneath nodes.

        Args:
            nodes (`torch.LongTensor` [B, ...]): nodes of the trie.

        Returns:
            `torch.BoolTensor` [B, ...]
        """
        start, end = self.trie.leaf_range(nodes)
        prompts = self._prompts().view(-1, *[1] * (nodes.dim() - 1))
        return self._holds_range(start, end, prompts)

    def keeps(self, rows: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """
        Whether single items are allowed.

        Args:
            rows (`torch.LongTensor` [M]): catalog rows.
            prompts (`torch.LongTensor` [M]): whom each is for.

        Returns:
            `torch.BoolTensor` [M]
        """
        rank = self.trie.item_rank[rows.to(self.device)].long()
        return self._holds_range(rank, rank + 1, prompts.to(self.device))

    def num_allowed(self) -> torch.Tensor:
        """Number of items that each prompt may be answered with, `torch.LongTensor` [B]."""
        everything = torch.full((self.num_prompts,), self.trie.num_items, device=self.device)
        return self._count_below(everything, self._prompts())

    def _prompts(self) -> torch.Tensor:
        return torch.arange(self.num_prompts, device=self.device)

    def _holds_range(self, start: torch.Tensor, end: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        return self._count_below(end, prompts) > self._count_below(start, prompts)

    def _count_below(self, rank: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """How many of the first `rank` sorted items are allowed; `prompts` broadcasts to the shape of `rank`."""
        count = rank if self._allowed_prefix is None else self._allowed_prefix[prompts, rank]
        if self._seen_ranks is None:
            return count
        # One sorted list for the whole batch: a prompt's ranks, I at most, lie between those of its neighbours.
        stride, H = self.trie.num_items + 1, self._seen_ranks.shape[1]
        keys = (self._seen_ranks + self._prompts()[:, None] * stride).flatten()
        return count - (torch.searchsorted(keys, prompts * stride + rank) - prompts * H)

    def _sorted_ranks(self, seen_items: torch.Tensor) -> torch.Tensor:
        """Ranks of the seen items, each once and only if allowed; the rest of a row is I, which is below nothing."""
        nowhere = self.trie.num_items
        rank = self.trie.item_rank[seen_items.clamp(min=0)].long()
        counts = (seen_items >= 0) & self._holds_range(rank, rank + 1, self._prompts()[:, None])
        rank = rank.masked_fill(~counts, nowhere).sort(dim=1).values
        repeated = torch.zeros_like(counts)
        repeated[:, 1:] = rank[:, 1:] == rank[:, :-1]
        return rank.masked_fill(repeated, nowhere).sort(dim=1).values


def _check_allowed(allowed_items: torch.Tensor, num_prompts: int, num_items: int) -> None:
    shape = tuple(allowed_items.shape)
    if allowed_items.dtype != torch.bool or shape not in ((num_items,), (num_prompts, num_items)):
        raise ValueError(
            f"allowed_items is {allowed_items.dtype} of shape {shape}; pass torch.bool in catalog order, of shape "
            f"({num_items},) for all prompts or ({num_prompts}, {num_items}) for each"
        )


def _check_seen(seen_items: torch.Tensor, num_prompts: int, num_items: int) -> None:
    shape = tuple(seen_items.shape)
    if seen_items.dtype not in (torch.int64, torch.int32) or len(shape) != 2 or shape[0] != num_prompts:
        raise ValueError(
            f"seen_items is {seen_items.dtype} of shape {shape}; pass torch.int64 of shape ({num_prompts}, H): "
            "catalog rows, padded with -1"
        )
    unknown = ((seen_items < -1) | (seen_items >= num_items)).nonzero()
    if len(unknown) > 0:
        prompt, column = unknown[0].tolist()
        raise ValueError(
            f"seen_items of prompt {prompt} holds row {int(seen_items[prompt, column])}, but the catalog has the rows "
            f"0 to {num_items - 1}; pad with -1"
        )


__all__ = ["SubCatalog"]
