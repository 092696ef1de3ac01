"""Recommendation: from prompts to the best answers of the catalog.

Shapes: B prompts, K beams, L prompt, T answer, I items.
"""

from __future__ import annotations

import torch

from .argument_checks import check_generation
from .beam_search import beam_search
from .item_trie import ItemTrie
from .modeling_outputs import LatentRecGenerateOutput


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
        length_penalty: float = 0.0,
        num_thoughts: int | None = None,
    ) -> LatentRecGenerateOutput:
        """
        Recommends by beam search under the catalog's trie. Nothing is sampled, and no setting is inherited from a
        `generation_config.json`.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts (left-padded by the processor).
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            item_trie (`ItemTrie`): the catalog, `processor.item_trie`.
            num_beams (`int`, *optional*, defaults to 10): beams per prompt.
            num_return_sequences (`int`, *optional*): answers per prompt; `num_beams` by default.
            normalize (`str`, *optional*, defaults to `"catalog"`): softmax over the trie's children (`"catalog"`), or
                over the vocabulary as in transformers' beam search (`"vocabulary"`).
            allowed_items (`torch.BoolTensor` [B, I], *optional*): what each prompt may be answered with, in catalog
                order (in stock, not seen before): a filter of the ranking, which changes no score.
            length_penalty (`float`, *optional*, defaults to 0.0): scores are divided by `T ** length_penalty`.
            num_thoughts (`int`, *optional*): think for another number of steps than the configuration says.

        Returns:
            `LatentRecGenerateOutput`

        Raises:
            ValueError: for settings that do not fit, a trie with tokens beyond the vocabulary, or a prompt for which
                nothing is allowed.
        """
        num_return_sequences = num_beams if num_return_sequences is None else num_return_sequences
        num_thoughts = self.config.num_thoughts if num_thoughts is None else num_thoughts
        item_trie = item_trie.to(input_ids.device)
        check_generation(
            item_trie, self.config.vocab_size, num_beams, num_return_sequences, normalize, num_thoughts, allowed_items
        )
        state = self.encode(input_ids, attention_mask, open_thoughts=num_thoughts > 0)
        state = self.think(state, num_thoughts)
        beams = beam_search(self, state, item_trie, num_beams, normalize, allowed_items)
        returned_BK = beams.scores_BK.isfinite()
        returned_BK[:, num_return_sequences:] = False
        return LatentRecGenerateOutput(
            sequences=beams.tokens_BKT[returned_BK],
            sequences_scores=beams.scores_BK[returned_BK] / beams.tokens_BKT.shape[-1] ** length_penalty,
            item_nodes=beams.nodes_BK[returned_BK],
            user_indices=returned_BK.nonzero()[:, 0],
            num_users=len(input_ids),
            thoughts=state.thoughts_BKND[:, 0],
            num_thoughts=torch.full((len(input_ids),), num_thoughts, device=input_ids.device),
        )


__all__ = ["LatentGenerationMixin"]
