"""Recommendation: from prompts to the best answers of the catalog.

Shapes: B prompts, K beams or branches, L prompt, T answer, N thoughts, D hidden, I items, J leaves of the trie, H seen
items, R returned answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from .argument_checks import (
    check_depth_request,
    check_generation,
    check_grounding,
    check_item_embeddings,
    check_not_empty,
    check_prompts,
    check_scores,
    check_thought_samples,
    read_depths,
)
from .batch_splitting import merge_outputs, run_in_parts
from .beam_search import Beams, beam_search
from .branch_cache import BranchCache
from .greedy_search import greedy_search
from .grounding import embed_items, ground
from .item_trie import ItemTrie
from .modeling_outputs import LatentRecGenerateOutput
from .sub_catalog import SubCatalog
from .thought_state import ThoughtState
from .title_search import title_search


def _in_evaluation_mode(method: Callable) -> Callable:
    """Runs a method of a model without dropout; afterwards each module is in the mode of before."""

    @wraps(method)
    def run(self, *args: Any, **kwargs: Any) -> Any:
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            return method(self, *args, **kwargs)
        finally:
            for module, was_training in modes:
                module.training = was_training

    return run


class LatentGenerationMixin:
    """`generate` of the recommenders; made of `encode`, `think` and a search over branches."""

    @torch.no_grad()
    @_in_evaluation_mode
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
        num_thoughts: int | torch.Tensor | None = None,
        depth_noise: torch.Tensor | None = None,
        compile: bool = False,
        item_embeddings: torch.Tensor | None = None,
    ) -> LatentRecGenerateOutput:
        """
        Recommends by beam search under the catalog's trie. Nothing is sampled, also while the model is training (it
        runs in evaluation mode, without dropout), and no setting is inherited from a `generation_config.json`. A batch
        that does not fit into memory is split, with one warning.

        `allowed_items` and `seen_items` filter the ranking and change no score: an item that is left has the score
        that it has in the whole catalog.

        BIGRec's decoding is `length_penalty=1.0` with `normalize="vocabulary"`; D³'s, without its ensemble, the same
        with 0.0. With `item_embeddings` the model answers freely and the items nearest to its answer are returned
        (BIGRec's grounding, see [`ground`]); settings of the search are refused then.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts (left-padded by the processor).
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            item_trie (`ItemTrie`): the catalog, `processor.item_trie`.
            num_beams (`int`, *optional*, defaults to 10): beams per prompt; when grounding, items.
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
            num_thoughts (`int` or `torch.LongTensor` [B], *optional*): think for this number of steps, or for each
                prompt its own, instead of what the configuration says or the depth policy finds most probable.
            depth_noise (`torch.Tensor` [B], *optional*): numbers in [0, 1); with adaptive depth, draw each prompt's
                depth from the policy. All beams of a prompt share its depth.
            compile (`bool`, *optional*, defaults to `False`): run the steps of a search over answers of one length,
                whose shapes are fixed, through `torch.compile`. The first call with new sizes takes a minute or so.
                Meant for GPUs, where launching many small operations can take longer than running them; on a CPU it
                measured no gain.
            item_embeddings (`torch.Tensor` [J, D], *optional*): ground answers in these, from [`embed_items`].

        Returns:
            `LatentRecGenerateOutput`

        Raises:
            ValueError: for settings that do not fit, a prompt without a token or without an allowed item, a trie with
                tokens beyond the vocabulary, or a model whose scores are NaN.
            torch.OutOfMemoryError: not even one prompt fits into memory.
        """
        num_return_sequences = num_beams if num_return_sequences is None else num_return_sequences
        item_trie = item_trie.to(input_ids.device)
        num_thoughts = read_depths(num_thoughts, input_ids.shape[:1])
        check_depth_request(num_thoughts, depth_noise, len(input_ids), self.config.reasoner_config.adaptive_depth)
        check_generation(
            item_trie,
            self.config.vocab_size,
            num_beams,
            num_return_sequences,
            normalize,
            length_penalty,
            early_stopping,
            on_empty,
            compile,
        )
        check_prompts(input_ids, attention_mask)
        if item_embeddings is not None:
            check_grounding(
                normalize=normalize, length_penalty=length_penalty, early_stopping=early_stopping, compile=compile
            )
            check_item_embeddings(item_embeddings, item_trie, self.config.hidden_size)
            item_embeddings = item_embeddings.to(input_ids.device)
        sub_catalog = None
        if allowed_items is not None or seen_items is not None:
            sub_catalog = SubCatalog(item_trie, len(input_ids), allowed_items, seen_items)
            if on_empty == "error":
                check_not_empty(sub_catalog)

        def search(rows: slice) -> LatentRecGenerateOutput:
            """Prompts in, answers out, for some rows of the batch."""
            mask = None if attention_mask is None else attention_mask[rows]
            depths, noise = (x[rows, None] if isinstance(x, torch.Tensor) else x for x in (num_thoughts, depth_noise))
            num_slots = input_ids.shape[1] + self.config.reasoner_config.num_slots(self._most_thoughts(depths))
            num_slots += (
                item_trie.max_depth if item_embeddings is not None else _num_branch_slots(item_trie, num_beams)
            )
            cache = BranchCache(self.config.num_hidden_layers, num_slots)
            state = self.encode(input_ids[rows], mask, open_thoughts=self.thinks(depths), cache=cache)
            state = self.think(state, depths, depth_noise=noise)
            part = sub_catalog and sub_catalog.select(rows)
            if item_embeddings is not None:
                beams = ground(self, state, item_trie, item_embeddings, num_beams, part)
            elif item_trie.has_uniform_depth:
                beams = beam_search(self, state, item_trie, num_beams, normalize, part, compile=compile)
                beams.scores_BK = beams.scores_BK / item_trie.max_depth**length_penalty
            else:
                beams = title_search(
                    self, state, item_trie, num_beams, normalize, part, length_penalty, early_stopping
                )
            return _collect(beams, item_trie, num_return_sequences, state)

        output = merge_outputs(run_in_parts(search, len(input_ids)))
        output.sub_catalog = sub_catalog
        check_scores(output.sequences_scores, output.user_indices)
        return output

    @torch.no_grad()
    @_in_evaluation_mode
    def embed_items(self, item_trie: ItemTrie, batch_size: int = 64, *, show_progress: bool = False) -> torch.Tensor:
        """
        Embeddings of the catalog's texts, for `generate(item_embeddings=...)`. They change when the model does.

        Args:
            item_trie (`ItemTrie`): the catalog, `processor.item_trie`.
            batch_size (`int`, *optional*, defaults to 64): texts per pass; texts of similar length share one.
            show_progress (`bool`, *optional*, defaults to `False`): show a progress bar.

        Returns:
            `torch.FloatTensor` [J, D]: last-layer hidden state at the last token of each distinct answer, read alone
            and without its terminal; in the order of [`leaf_nodes`].

        Raises:
            ValueError: answers of different lengths that do not end in one token.
        """
        return embed_items(self, item_trie.to(self.device), batch_size, show_progress)

    @torch.no_grad()
    @_in_evaluation_mode
    def greedy_answers(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        item_trie: ItemTrie,
        thought_noise: torch.Tensor,
        relative_noise: bool = False,
    ) -> torch.Tensor:
        """
        The greedy answer of the catalog after each of K perturbed thoughts.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts (left-padded by the processor).
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            item_trie (`ItemTrie`): the catalog, `processor.item_trie`.
            thought_noise (`torch.Tensor` [B, K, D]): what is added to the last thought; see [`think`].
            relative_noise (`bool`, *optional*, defaults to `False`): see [`think`].

        Returns:
            `torch.LongTensor` [B, K, T]: answer tokens with their terminal, padded with -100 to the longest.

        Raises:
            ValueError: for a prompt without a token, a model that does not think, or one whose scores are NaN.
        """
        settings, num_thoughts = self.config.reasoner_config, self.config.num_thoughts
        check_prompts(input_ids, attention_mask)
        check_thought_samples(thought_noise, input_ids, num_thoughts, settings.adaptive_depth)
        item_trie = item_trie.to(input_ids.device)
        B, K, _ = thought_noise.shape
        num_slots = input_ids.shape[1] + settings.num_slots(num_thoughts)
        num_slots += 2 * K + _num_branch_slots(item_trie, K)  # the last thought and a marker after each of its samples
        cache = BranchCache(self.config.num_hidden_layers, num_slots)
        state = self.encode(input_ids, attention_mask, open_thoughts=True, cache=cache)
        state = self.think(state, num_thoughts, thought_noise=thought_noise, relative_noise=relative_noise)
        leaves_BK = greedy_search(self, state, item_trie)
        return item_trie.sequences(leaves_BK.flatten()).view(B, K, -1)

    def _most_thoughts(self, num_thoughts: int | torch.Tensor | None) -> int:
        """How many thoughts a prompt may have, for what was asked for."""
        if isinstance(num_thoughts, torch.Tensor):
            return int(num_thoughts.max())
        return self.config.num_thoughts if num_thoughts is None else num_thoughts


def _num_branch_slots(trie: ItemTrie, num_beams: int) -> int:
    """Cache slots for the beams of one prompt: all that answers of one length take, or a start for titles."""
    steps = trie.max_depth - 1 if trie.has_uniform_depth else 4
    return steps * min(num_beams, trie.num_leaves)


def _collect(beams: Beams, trie: ItemTrie, num_return_sequences: int, state: ThoughtState) -> LatentRecGenerateOutput:
    """The beams that exist, prompt by prompt. NaN scores stay, so that they are seen."""
    thoughts_BND = state.thoughts_BKND[:, 0]
    B, N = thoughts_BND.shape[:2]
    depths_B = torch.full((B,), N, device=thoughts_BND.device) if state.depths_BK is None else state.depths_BK[:, 0]
    returned_BK = beams.scores_BK != -torch.inf
    returned_BK[:, num_return_sequences:] = False
    nodes_R = beams.nodes_BK[returned_BK]
    return LatentRecGenerateOutput(
        sequences=trie.sequences(nodes_R),
        sequences_scores=beams.scores_BK[returned_BK],
        item_nodes=nodes_R,
        user_indices=returned_BK.nonzero()[:, 0],
        num_users=B,
        catalog_fingerprint=trie.catalog_fingerprint,
        thoughts=thoughts_BND,
        num_thoughts=depths_B,
        depth_logits=None if state.depth_logits_BKC is None else state.depth_logits_BKC[:, 0],
    )


__all__ = ["LatentGenerationMixin"]
