"""The catalog as a constraint on plain `transformers` generation.

Shapes: B prompts, R = B * num_beams rows, T answer tokens so far, C children, V vocabulary, I items,
H seen items.
"""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from .item_trie import ItemTrie
from .sub_catalog import SubCatalog


class ItemTrieLogitsProcessor(LogitsProcessor):
    """
    Allows only tokens that continue an item of the catalog; everything else becomes -inf.

    Stateless: where a row stands in the trie follows from its own tokens, so one processor serves any number of calls,
    in any order of beams. With `renormalize_logits=True`, `generate` scores are normalized over the catalog (softmax
    after the mask); without it, over the vocabulary.

    A row that has reached a leaf may only end (`eos_token_id`). A beam without a valid continuation, which beam search
    carries along at -inf when there are fewer items than beams, may only end as well; a prompt none of whose rows can
    go on is an error.

    Args:
        trie (`ItemTrie`): The catalog's prefix tree.
        prompt_length (`int`): Tokens in `input_ids` before the answer (padding included; 0 with `inputs_embeds`).
        num_beams (`int`, *optional*, defaults to 1): Rows per prompt; they are neighbours.
        eos_token_id (`int`, *optional*): Ends a finished row. Needed where items differ in length.
        allowed_items (`torch.BoolTensor` of shape `[I]` or `[B, I]`, *optional*): What all prompts, or each, may be
            answered with, in catalog order.
        seen_items (`torch.LongTensor` of shape `[B, H]`, *optional*): Catalog rows that each prompt may not be
            answered with, padded with -1.

    Example:
        >>> trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
        >>> processor = ItemTrieLogitsProcessor(trie, prompt_length=1)
        >>> scores = processor(torch.tensor([[3, 5]]), torch.zeros(1, 10))
        >>> scores.isfinite().nonzero()[:, 1].tolist()
        [8, 9]
    """

    def __init__(
        self,
        trie: ItemTrie,
        prompt_length: int,
        num_beams: int = 1,
        eos_token_id: int | None = None,
        allowed_items: torch.Tensor | None = None,
        seen_items: torch.Tensor | None = None,
    ):
        self.trie, self.prompt_length, self.num_beams, self.eos_token_id = trie, prompt_length, num_beams, eos_token_id
        self.allowed_items, self.seen_items = allowed_items, seen_items
        self._sub_catalog: SubCatalog | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `[R, prompt_length + T]`): Prompt and answer so far.
            scores (`torch.FloatTensor` of shape `[R, V]`): Scores of the next token.

        Returns:
            `torch.FloatTensor` of shape `[R, V]`: the scores, -inf where no item goes on.

        Raises:
            `ValueError`: no row of a prompt can go on, a row is finished and there is no `eos_token_id`, or
                `allowed_items` or `seen_items` do not fit.
        """
        self.trie = self.trie.to(scores.device)
        answer = input_ids[:, self.prompt_length :]
        path = self.trie.walk(answer)  # [R, T+1]
        depth = min(answer.shape[1], self.trie.max_depth)
        tokens, nodes, mask = self.trie.children(path[:, -1], depth)
        if self.allowed_items is not None or self.seen_items is not None:
            mask = mask & self._holds_allowed(nodes)
        goes_on = mask.any(dim=1)
        ends = self.trie.is_leaf(path).any(dim=1)
        self._check(answer, goes_on, ends)

        keep = torch.zeros_like(scores, dtype=torch.bool)
        keep[mask.nonzero()[:, 0], tokens[mask]] = True
        if self.eos_token_id is not None:
            keep[~goes_on, self.eos_token_id] = True
        return scores.masked_fill(~keep, float("-inf"))

    def _holds_allowed(self, nodes: torch.Tensor) -> torch.Tensor:
        """Whether something allowed lies beneath nodes [R, C]. Only now B and the device are known."""
        num_prompts = len(nodes) // self.num_beams
        known = self._sub_catalog
        if known is None or known.num_prompts != num_prompts or known.trie is not self.trie:
            self._sub_catalog = SubCatalog(self.trie, num_prompts, self.allowed_items, self.seen_items)
        return self._sub_catalog.holds(nodes.view(num_prompts, self.num_beams, -1)).view_as(nodes)

    def _check(self, answer: torch.Tensor, goes_on: torch.Tensor, ends: torch.Tensor) -> None:
        if self.eos_token_id is None and not goes_on.all():
            row = int(goes_on.int().argmin())
            reason = "is a whole item" if ends[row] else "leads to no (allowed) item"
            raise ValueError(
                f"ItemTrieLogitsProcessor: the answer {answer[row].tolist()} of row {row} {reason}; with items of one "
                f"length set max_new_tokens={self.trie.max_depth}, otherwise pass eos_token_id"
            )
        alive = (goes_on | ends).view(-1, self.num_beams).any(dim=1)
        if not alive.all():
            prompt = int(alive.int().argmin())
            tokens = answer[prompt * self.num_beams].tolist()
            raise ValueError(
                f"ItemTrieLogitsProcessor: no (allowed) item begins with the answer {tokens} of prompt {prompt}; "
                f"check prompt_length={self.prompt_length}, num_beams={self.num_beams}, allowed_items and seen_items"
            )


__all__ = ["ItemTrieLogitsProcessor"]
