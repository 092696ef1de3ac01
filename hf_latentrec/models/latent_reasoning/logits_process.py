"""The catalog as a constraint on plain `transformers` generation.

Shapes: B prompts, R = B * num_beams rows, T answer tokens so far, V vocabulary, I items.
"""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from .item_trie import ItemTrie


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
        allowed_items (`torch.BoolTensor` of shape `[B, I]`, *optional*): Sub-catalog of each prompt.

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
    ):
        self.trie, self.prompt_length, self.num_beams, self.eos_token_id = trie, prompt_length, num_beams, eos_token_id
        prefix = None if allowed_items is None else trie.allowed_prefix(allowed_items)
        self._allowed_prefix = None if prefix is None else prefix.repeat_interleave(num_beams, dim=0)  # [R, I+1]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `[R, prompt_length + T]`): Prompt and answer so far.
            scores (`torch.FloatTensor` of shape `[R, V]`): Scores of the next token.

        Returns:
            `torch.FloatTensor` of shape `[R, V]`: the scores, -inf where no item goes on.

        Raises:
            `ValueError`: no row of a prompt can go on, or a row is finished and there is no `eos_token_id`.
        """
        self.trie = self.trie.to(scores.device)
        answer = input_ids[:, self.prompt_length :]
        path = self.trie.walk(answer)  # [R, T+1]
        depth = min(answer.shape[1], self.trie.max_depth)
        tokens, _, mask = self.trie.children(path[:, -1], depth, self._prefix(len(scores), scores.device))
        goes_on = mask.any(dim=1)
        ends = self.trie.is_leaf(path).any(dim=1)
        self._check(answer, goes_on, ends)

        keep = torch.zeros_like(scores, dtype=torch.bool)
        keep[mask.nonzero()[:, 0], tokens[mask]] = True
        if self.eos_token_id is not None:
            keep[~goes_on, self.eos_token_id] = True
        return scores.masked_fill(~keep, float("-inf"))

    def _prefix(self, num_rows: int, device: torch.device) -> torch.Tensor | None:
        if self._allowed_prefix is None:
            return None
        if len(self._allowed_prefix) != num_rows:
            raise ValueError(
                f"ItemTrieLogitsProcessor: allowed_items has {len(self._allowed_prefix) // self.num_beams} rows of "
                f"{self.num_beams} beams, but {num_rows} rows are generated; pass one row per prompt"
            )
        self._allowed_prefix = self._allowed_prefix.to(device)
        return self._allowed_prefix

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
                f"check prompt_length={self.prompt_length}, num_beams={self.num_beams} and allowed_items"
            )


__all__ = ["ItemTrieLogitsProcessor"]
