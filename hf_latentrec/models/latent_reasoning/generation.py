"""Recommendation: from prompts to the best answers of the catalog.

Shapes: B prompts, K beams, L prompt, T answer, N thoughts, D hidden, I items, H seen items, R returned answers.
"""

from __future__ import annotations

import torch

from .argument_checks import check_generation, check_not_empty, check_prompts, check_scores
from .batch_splitting import merge_outputs, run_in_parts
from .beam_search import Beams, beam_search
from .branch_cache import BranchCache
from .item_trie import ItemTrie
from .modeling_outputs import LatentRecGenerateOutput
from .sub_catalog import SubCatalog
from .title_search import title_search


class LatentGenerationMixin:
    """`generate` of the recommenders; made of `encode`, `think` and a beam search over branches."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        item_trie: ItemTrie,
        num_beams: int = 10,
        num_return_sequences: int | None = None,
        normalize: str = "catalog",
        allowed_items: torch.Tensor | None = None,
        seen_items: torch.Tensor | None = None,
        on_empty: str = "error",
        length_penalty: float = 0.0,
        early_stopping: bool | str = False,
        num_thoughts: int | None = None,
        compile: bool = False,
    ) -> LatentRecGenerateOutput:
        """
        Recommends by beam search under the catalog's trie. Nothing is sampled, and no setting is inherited from a
        `generation_config.json`. A batch that does not fit into memory is split, with one warning.

        `allowed_items` and `seen_items` filter the ranking and change no score: an item that is left has the score
        that it has in the whole catalog.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts (left-padded by the processor).
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            item_trie (`ItemTrie`): the catalog, `processor.item_trie`.
            num_beams (`int`, *optional*, defaults to 10): beams per prompt.
            num_return_sequences (`int`, *optional*): answers per prompt; `num_beams` by default.
            normalize (`str`, *optional*, defaults to `"catalog"`): softmax over the trie's children (`"catalog"`), or
                over the vocabulary as in transformers' beam search (`"vocabulary"`).
            allowed_items (`torch.BoolTensor` [I] or [B, I], *optional*): what all prompts, or each, may be answered
                with, in catalog order: in stock, of a category.
            seen_items (`torch.LongTensor` [B, H], *optional*): catalog rows that each prompt may not be answered
                with, padded with -1; `processor(histories, exclude_seen=True)` returns them.
            on_empty (`str`, *optional*, defaults to `"error"`): a prompt for which nothing is left is an `"error"`,
                or has no answers (`"skip"`).
            length_penalty (`float`, *optional*, defaults to 0.0): scores are divided by `T ** length_penalty`.
            early_stopping (`bool` or `"never"`, *optional*, defaults to `False`): when a search over answers of
                different lengths ends, as in transformers; see [`FinishedBeams`].
            num_thoughts (`int`, *optional*): think for another number of steps than the configuration says.
            compile (`bool`, *optional*, defaults to `False`): run the steps of a search over answers of one length,
                whose shapes are fixed, through `torch.compile`. The first call with new sizes takes a minute or so.
                Meant for GPUs, where launching many small operations can take longer than running them; on a CPU it
                measured no gain.

        Returns:
            `LatentRecGenerateOutput`

        Raises:
            ValueError: for settings that do not fit, a prompt without a token or without an allowed item, a trie with
                tokens beyond the vocabulary, or a model whose scores are NaN.
            torch.OutOfMemoryError: not even one prompt fits into memory.
        """
        num_return_sequences = num_beams if num_return_sequences is None else num_return_sequences
        num_thoughts = self.config.num_thoughts if num_thoughts is None else num_thoughts
        item_trie = item_trie.to(input_ids.device)
        check_generation(
            item_trie,
            self.config.vocab_size,
            num_beams,
            num_return_sequences,
            normalize,
            length_penalty,
            early_stopping,
            num_thoughts,
            on_empty,
            compile,
        )
        check_prompts(input_ids, attention_mask)
        sub_catalog = None
        if allowed_items is not None or seen_items is not None:
            sub_catalog = SubCatalog(item_trie, len(input_ids), allowed_items, seen_items)
            if on_empty == "error":
                check_not_empty(sub_catalog)

        def search(rows: slice) -> LatentRecGenerateOutput:
            """Prompts in, answers out, for some rows of the batch."""
            mask = None if attention_mask is None else attention_mask[rows]
            num_slots = input_ids.shape[1] + num_thoughts + 2 + _num_branch_slots(item_trie, num_beams)
            cache = BranchCache(self.config.num_hidden_layers, num_slots)
            state = self.encode(input_ids[rows], mask, open_thoughts=num_thoughts > 0, cache=cache)
            state = self.think(state, num_thoughts)
            settings = (item_trie, num_beams, normalize, sub_catalog and sub_catalog.select(rows))
            if item_trie.has_uniform_depth:
                beams = beam_search(self, state, *settings, compile=compile)
                beams.scores_BK = beams.scores_BK / item_trie.max_depth**length_penalty
            else:
                beams = title_search(self, state, *settings, length_penalty, early_stopping)
            return _collect(beams, item_trie, num_return_sequences, state.thoughts_BKND[:, 0])

        output = merge_outputs(run_in_parts(search, len(input_ids)))
        output.sub_catalog = sub_catalog
        check_scores(output)
        return output


def _num_branch_slots(trie: ItemTrie, num_beams: int) -> int:
    """Cache slots for the beams of one prompt: all that answers of one length take, or a start for titles."""
    steps = trie.max_depth - 1 if trie.has_uniform_depth else 4
    return steps * min(num_beams, trie.num_leaves)


def _collect(
    beams: Beams, trie: ItemTrie, num_return_sequences: int, thoughts_BND: torch.Tensor
) -> LatentRecGenerateOutput:
    """The beams that exist, prompt by prompt. NaN scores stay, so that they are seen."""
    B, N = thoughts_BND.shape[:2]
    returned_BK = beams.scores_BK != -torch.inf
    returned_BK[:, num_return_sequences:] = False
    nodes_R = beams.nodes_BK[returned_BK]
    return LatentRecGenerateOutput(
        sequences=trie.sequences(nodes_R),
        sequences_scores=beams.scores_BK[returned_BK],
        item_nodes=nodes_R,
        user_indices=returned_BK.nonzero()[:, 0],
        num_users=B,
        thoughts=thoughts_BND,
        num_thoughts=torch.full((B,), N, device=thoughts_BND.device),
    )


__all__ = ["LatentGenerationMixin"]
