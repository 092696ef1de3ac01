"""Catalog-constrained greedy search from many branches of a prompt: one answer after each of its thoughts.

Shapes: B prompts, K branches, C children of a trie node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .answer_scores import score_children
from .argument_checks import check_scores
from .branch_decoder import BranchDecoder
from .item_trie import ItemTrie
from .thought_state import ThoughtState
from .title_search import RunningBeams, read_up_to_choice


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin


def greedy_search(model: LatentReasoningMixin, state: ThoughtState, item_trie: ItemTrie) -> torch.Tensor:
    """
    Every branch follows its most probable child until it stands at a leaf. Branches do not compete: each has its own
    answer, also where it is the same as another's.

    As in [`title_search`], tokens that the catalog forces are not asked for: a pass reads all tokens up to the next
    choice of a branch, and what follows its last choice is never read. The most probable child is the same over the
    catalog and over the vocabulary.

    Args:
        model: the recommender.
        state (`ThoughtState`): K branches of one length per prompt, ready to answer, encoded into a [`BranchCache`].
        item_trie (`ItemTrie`): the catalog, on the device of the state.

    Returns:
        `torch.LongTensor` [B, K]: leaves of the trie.

    Raises:
        ValueError: for a model whose scores are NaN.
    """
    decoder = BranchDecoder(model, state)
    nodes_BK = torch.zeros(state.hidden_BKD.shape[:2], dtype=torch.long, device=state.hidden_BKD.device)
    running = RunningBeams(
        scores_BK=torch.zeros_like(nodes_BK, dtype=torch.float32),
        nodes_BK=nodes_BK,
        hidden_BKD=state.hidden_BKD,
        num_read_BK=torch.zeros_like(nodes_BK),
        visible_BKS=decoder.prompt_visible_BKS,
    )
    depth = 0
    while not item_trie.is_leaf(item_trie.forced_end(running.nodes_BK)).all():
        running = read_up_to_choice(decoder, running, item_trie, depth, skip_forced=True)
        running = _follow_best_child(model, running, item_trie, depth)
        depth += 1
    prompt_B1 = torch.arange(len(nodes_BK), device=nodes_BK.device)[:, None]
    check_scores(running.scores_BK, prompt_B1.expand_as(nodes_BK))
    return item_trie.forced_end(running.nodes_BK)


def _follow_best_child(model: LatentReasoningMixin, running: RunningBeams, trie: ItemTrie, depth: int) -> RunningBeams:
    """One step of every branch. One that has ended stays where it is; its score of -inf frees what it has read."""
    log_probs_BKC = score_children(model, running.hidden_BKD, trie, running.nodes_BK, depth, "catalog")
    best_BK = log_probs_BKC.max(-1)
    first_edge_BK, _ = trie.edges(running.nodes_BK)
    ended_BK = trie.is_leaf(running.nodes_BK)
    return replace(
        running,
        scores_BK=running.scores_BK + best_BK.values,
        nodes_BK=torch.where(ended_BK, running.nodes_BK, first_edge_BK + best_BK.indices + 1),
    )


__all__ = ["greedy_search"]
