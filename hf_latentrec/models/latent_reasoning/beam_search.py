"""Catalog-constrained beam search over the branches of an encoded prompt, for answers of one length.

Shapes: B prompts, K beams, C children of a trie node, S cache slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .answer_scores import score_children
from .beam_step import select_children
from .branch_decoder import BranchDecoder
from .item_trie import ItemTrie
from .thought_state import ThoughtState


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin
    from .sub_catalog import SubCatalog


@dataclass
class Beams:
    """
    The K best answers of each prompt, best first.

    Args:
        scores_BK (`torch.Tensor`): -inf for a beam that does not exist.
        nodes_BK (`torch.LongTensor`): leaves of the trie.
    """

    scores_BK: torch.Tensor
    nodes_BK: torch.Tensor


def beam_search(
    model: LatentReasoningMixin,
    state: ThoughtState,
    trie: ItemTrie,
    num_beams: int,
    normalize: str = "catalog",
    sub_catalog: SubCatalog | None = None,
    compile: bool = False,
) -> Beams:
    """
    The `num_beams` most probable answers of a catalog whose sequences have one length, level by level.

    The prompt stays as it was encoded: a step runs one token per beam, and each beam sees the prompt, the thoughts and
    its own ancestors only. All shapes are known beforehand and nothing in the loop waits for the device.

    Args:
        model: the recommender.
        state (`ThoughtState`): one branch per prompt, ready to answer.
        trie (`ItemTrie`): the catalog; all its sequences have one length.
        num_beams (`int`): beams per prompt, K; at most the number of answers in the catalog is used.
        normalize (`str`): see [`score_children`].
        sub_catalog (`SubCatalog`, *optional*): what each prompt may be answered with. An item keeps the score that it
            has in the whole catalog, so this is a filter of the full ranking.
        compile (`bool`): see [`BranchDecoder`].

    Returns:
        `Beams`: best first.
    """
    num_beams = min(num_beams, trie.num_leaves)
    B, device = len(state.hidden_BKD), state.hidden_BKD.device
    decoder = BranchDecoder(model, state, compile)
    used = decoder.num_prompt_slots
    visible_BKS = decoder.prompt_visible_BKS
    hidden_BKD = state.hidden_BKD
    scores_BK = torch.zeros(B, 1, device=device)
    nodes_BK = torch.zeros(B, 1, dtype=torch.long, device=device)

    for depth in range(trie.max_depth):
        if depth > 0:
            K = nodes_BK.shape[1]
            slots_BK = torch.arange(used, used + K, device=device).expand(B, K)
            used += K
            visible_BKS = visible_BKS.scatter(2, slots_BK[..., None], True)
            tokens_BK = trie.tokens_into(nodes_BK, depth)
            hidden_BKD = decoder.feed(tokens_BK, depth - 1, visible_BKS, slots_BK, used)
        log_probs_BKC = score_children(model, hidden_BKD, trie, nodes_BK, depth, normalize)
        if sub_catalog is not None:
            log_probs_BKC = mask_children(log_probs_BKC, trie, nodes_BK, sub_catalog)
        scores_BK, parent_BK, nodes_BK = select_children(scores_BK, log_probs_BKC, trie, nodes_BK, num_beams)
        visible_BKS = visible_BKS.gather(1, parent_BK[..., None].expand(-1, -1, visible_BKS.shape[-1]))
    return Beams(scores_BK, nodes_BK)


def mask_children(
    log_probs_BKC: torch.Tensor, trie: ItemTrie, nodes_BK: torch.Tensor, sub_catalog: SubCatalog
) -> torch.Tensor:
    """-inf for children beneath which a prompt's sub-catalog has nothing."""
    first_BK, _ = trie.edges(nodes_BK)
    child_BKC = first_BK[..., None] + torch.arange(1, log_probs_BKC.shape[-1] + 1, device=nodes_BK.device)
    child_BKC = child_BKC.clamp(max=trie.num_nodes - 1)  # behind a node's own children, where it is -inf anyway
    return log_probs_BKC.masked_fill(~sub_catalog.holds(child_BKC), -torch.inf)


__all__ = ["Beams", "beam_search", "mask_children"]
