"""PromptBlocks: prompts of whole batches of histories as one gather of token ids."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerFast

from .catalog import ItemCatalog


class PromptBlocks:
    """
    All that a prompt is made of, tokenized once and laid end to end; a prompt is then a gather of ids, not of text.

    Block `i < I` is the separator and catalog item `i`, block `I` the text before the history, block `I + 1` the text
    after it. The first item of a prompt is read without its separator.

    ```text
    blocks    | , item 0 | , item 1 | ... | before | after |
    prompt of [1, 0]:  before  item 1  , item 0  after
    ```

    Args:
        catalog (`ItemCatalog`): The items.
        tokenizer (`PreTrainedTokenizerFast`): Tokenizes the three texts; special tokens in them are honoured.
        before, separator, after (`str`): Texts around and between the items. Where nothing follows the last item, or a
            separator, a prompt can be `continuable`: it is then the beginning of the prompts of longer histories.
    """

    def __init__(
        self, catalog: ItemCatalog, tokenizer: PreTrainedTokenizerFast, before: str, separator: str, after: str
    ):
        text_ids = (tokenizer(text, add_special_tokens=False).input_ids for text in (before, separator, after))
        prefix, between, suffix = (np.array(ids, dtype=np.int64) for ids in text_ids)
        if _adds_bos(tokenizer):
            prefix = np.insert(prefix, 0, tokenizer.bos_token_id)
        self.separator_size, self.suffix_size = len(between), len(suffix)
        self.continuable = len(suffix) == 0 or np.array_equal(suffix, between)
        self._prefix, self._suffix = len(catalog), len(catalog) + 1

        has_terminal = catalog.terminal_token_id is not None
        items = np.delete(catalog.flat_tokens, catalog.offsets[1:] - 1) if has_terminal else catalog.flat_tokens
        size = np.diff(catalog.offsets) - has_terminal
        start = size.cumsum() - size
        items = np.insert(items.astype(np.int64), np.repeat(start, len(between)), np.tile(between, len(catalog)))
        self._ids = np.concatenate([items, prefix, suffix])
        self._size = np.concatenate([size + len(between), [len(prefix), len(suffix)]])
        self._start = self._size.cumsum() - self._size

    def encode(self, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Prompts of a batch of histories.

        Args:
            rows (`np.ndarray` of shape `[counts.sum()]`): Catalog rows of all histories, end to end.
            counts (`np.ndarray` of shape `[B]`): Items of each history, at least 1.

        Returns:
            `tuple` of two `np.ndarray`, int64: token ids of all prompts, end to end, and the number of tokens of every
            block of them, `[(counts + 2).sum()]`: text before, items, text after, and so on.
        """
        ends = counts.cumsum()
        starts = ends - counts
        texts = np.tile([self._prefix, self._suffix], len(counts))
        blocks = np.insert(rows, np.stack([starts, ends], axis=1).ravel(), texts)
        start, size = self._start[blocks], self._size[blocks]
        first_item = starts + 2 * np.arange(len(counts)) + 1
        start[first_item] += self.separator_size
        size[first_item] -= self.separator_size
        within = np.arange(size.sum()) - np.repeat(size.cumsum() - size, size)
        return self._ids[np.repeat(start, size) + within], size


def _adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer itself starts a text with its BOS (Llama's does, Qwen's has none)."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("").input_ids[:1] == [bos]


__all__ = ["PromptBlocks"]
