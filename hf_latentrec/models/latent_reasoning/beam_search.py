"""Catalog-constrained beam search over the branches of an encoded prompt.

Shapes: B prompts, K beams, C children of a trie node, T answer tokens, U tokens of one step's codebook, D hidden,
V vocabulary, S cache slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .item_trie import Children, ItemTrie
from .sub_catalog import SubCatalog
from .thought_state import ThoughtState


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin

NORMALIZATIONS = ("catalog", "vocabulary")


@dataclass
class Beams:
    """The K best answers of each prompt; a beam that does not exist has the score -inf."""

    tokens_BKT: torch.Tensor
    scores_BK: torch.Tensor
    nodes_BK: torch.Tensor


def child_log_probs(
    model: LatentReasoningMixin, hidden: torch.Tensor, trie: ItemTrie, children: Children, depth: int, normalize: str
) -> torch.Tensor:
    """
    Log-probabilities of the children of trie nodes, in float32.

    With `"catalog"` the softmax runs over the children alone (LASAR App. E.6.1: mask before softmax), and only the
    rows of the output projection that can occur at this depth are computed. With `"vocabulary"` it runs over the
    vocabulary and the children are picked afterwards, as beam search in transformers does.

    Args:
        model: the recommender, for its output projection.
        hidden (`torch.Tensor` [..., D]): hidden states that predict the next token.
        trie (`ItemTrie`): on the device of `hidden`.
        children (`Children` [..., C]): of the nodes that the states stand at.
        depth (`int`): depth of these nodes.
        normalize (`str`): `"catalog"` or `"vocabulary"`.

    Returns:
        `torch.Tensor` [..., C]: -inf where there is no child.
    """
    if normalize == "vocabulary":
        logits = model.lm_head(hidden).float()
        log_norm = logits.logsumexp(-1, keepdim=True)
        return (logits.gather(-1, children.tokens) - log_norm).masked_fill(~children.mask, -torch.inf)
    codebook_U = trie.tokens_at(depth)
    logits = torch.nn.functional.linear(hidden, model.lm_head.weight[codebook_U]).float()
    column = torch.searchsorted(codebook_U, children.tokens).clamp(max=len(codebook_U) - 1)
    log_probs = logits.gather(-1, column).masked_fill(~children.mask, -torch.inf).log_softmax(-1)
    # The softmax of a node without children is NaN; masked on both sides, it reaches neither values nor gradients.
    return log_probs.masked_fill(~children.mask, -torch.inf)


def beam_search(
    model: LatentReasoningMixin,
    state: ThoughtState,
    trie: ItemTrie,
    num_beams: int,
    normalize: str = "catalog",
    sub_catalog: SubCatalog | None = None,
) -> Beams:
    """
    The `num_beams` most probable answers of the catalog, level by level through the trie.

    The prompt stays as it was encoded: a step appends one token per beam to the cache, and each beam sees the prompt,
    the thoughts and its own ancestors only. Nothing in the loop waits for the device.

    Args:
        model: the recommender.
        state (`ThoughtState`): one branch per prompt, ready to answer.
        trie (`ItemTrie`): the catalog; all its sequences have one length.
        num_beams (`int`): beams per prompt, K; at most the number of answers in the catalog is used.
        normalize (`str`): see [`child_log_probs`].
        sub_catalog (`SubCatalog`, *optional*): what each prompt may be answered with. An item keeps the score that it
            has in the whole catalog, so this is a filter of the full ranking.

    Returns:
        `Beams`: best first.
    """
    num_beams = min(num_beams, trie.num_leaves)
    B, device = state.hidden_BKD.shape[0], state.hidden_BKD.device
    nodes_BK = torch.zeros(B, 1, dtype=torch.long, device=device)
    scores_BK = torch.zeros(B, 1, device=device)
    tokens_BKT = torch.empty(B, 1, 0, dtype=torch.long, device=device)

    for depth in range(trie.max_depth):
        if depth > 0:
            state, _ = model.extend(state, model.token_embeddings(tokens_BKT[:, :, -1:]))
        children = trie.children(nodes_BK, depth)
        children = children._replace(mask=children.mask & scores_BK.isfinite()[..., None])  # beams that exist
        log_probs_BKC = child_log_probs(model, state.hidden_BKD, trie, children, depth, normalize)
        if sub_catalog is not None:
            log_probs_BKC = log_probs_BKC.masked_fill(~sub_catalog.holds(children.nodes), -torch.inf)
        candidates = (scores_BK[..., None] + log_probs_BKC).flatten(1)
        scores_BK, index_BK = candidates.topk(min(num_beams, candidates.shape[1]), dim=1)
        parent_BK = index_BK // children.tokens.shape[-1]
        nodes_BK = children.nodes.flatten(1).gather(1, index_BK)
        new_token_BK1 = children.tokens.flatten(1).gather(1, index_BK)[..., None]
        history = tokens_BKT.gather(1, parent_BK[..., None].expand(-1, -1, depth))
        tokens_BKT = torch.cat([history, new_token_BK1], dim=-1)
        if depth + 1 < trie.max_depth:
            state = state.select_branches(parent_BK)
    return Beams(tokens_BKT, scores_BK, nodes_BK)


__all__ = ["NORMALIZATIONS", "Beams", "beam_search", "child_log_probs"]
