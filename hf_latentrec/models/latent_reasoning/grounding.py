"""Grounding (BIGRec): answer freely, then recommend the items whose texts are nearest to the answer's text.

Shapes: B prompts, T answer, R texts, D hidden, J leaves of the trie, K returned leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from .beam_search import Beams
from .item_trie import ItemTrie
from .thought_state import ThoughtState


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin
    from .sub_catalog import SubCatalog

_PADDING = -100


def leaf_nodes(trie: ItemTrie) -> torch.Tensor:
    """The leaves, `[J]`, in the order of [`embed_items`]: ascending."""
    return (trie.row_ptr.diff() == 0).nonzero()[:, 0]


def terminal_token(trie: ItemTrie) -> int | None:
    """
    The token that ends every sequence of a trie and is no part of its text; None if there is none.

    Args:
        trie (`ItemTrie`): of titles, which end in one token, or of semantic IDs, which all have one length.

    Raises:
        ValueError: sequences of different lengths that do not end in one token: a free answer would have no end.

    Example:
        >>> terminal_token(ItemTrie.from_sequences([[7, 9], [7, 8, 9]]))
        9
        >>> terminal_token(ItemTrie.from_sequences([[7, 9], [7, 8]])) is None
        True
    """
    leaves = leaf_nodes(trie)
    last_tokens = trie.path_tokens(leaves, trie.depth_of(leaves) - 1).unique()
    if len(last_tokens) == 1:
        return int(last_tokens)
    if trie.has_uniform_depth:
        return None
    raise ValueError(
        f"grounding: the trie's sequences have different lengths and {len(last_tokens)} different last tokens, so a "
        "free answer would not know where to end; end all of them with one terminal, as ItemCatalog does with titles"
    )


def embed_items(
    model: LatentReasoningMixin, trie: ItemTrie, batch_size: int = 64, show_progress: bool = False
) -> torch.Tensor:
    """
    Embeddings of the texts of all leaves, without their terminal; see [`embed_texts`].

    Args:
        model: the recommender.
        trie (`ItemTrie`): the catalog, on the device of the model.
        batch_size (`int`, *optional*, defaults to 64): texts per pass; texts of similar length share one.
        show_progress (`bool`, *optional*, defaults to `False`): show a progress bar.

    Returns:
        `torch.FloatTensor` [J, D]: one row per leaf, in the order of [`leaf_nodes`].
    """
    leaves, terminal = leaf_nodes(trie), terminal_token(trie)
    by_length = trie.depth_of(leaves).argsort(descending=True, stable=True)
    batches = by_length.split(batch_size)
    embeddings = [
        embed_texts(model, _texts(trie, leaves[rows], terminal), terminal)
        for rows in tqdm(batches, desc="embed items", unit="batch", disable=not show_progress)
    ]
    return torch.cat(embeddings)[by_length.argsort()]


def embed_texts(model: LatentReasoningMixin, tokens_RT: torch.Tensor, terminal: int | None) -> torch.Tensor:
    """
    The last-layer hidden state at the last token of a text that the backbone reads alone: no prompt before it, no
    thoughts, no terminal after it. An empty text is read as its terminal alone.

    Args:
        model: the recommender.
        tokens_RT (`torch.LongTensor`): texts as tokens, padded with -100 on the right.
        terminal (`int`, *optional*): the token that ends a text; without one, no text is empty.

    Returns:
        `torch.FloatTensor` [R, D]
    """
    real_RT = tokens_RT != _PADDING
    # Nothing sees what is on its right, so padding needs no mask; it is read where there is nothing else.
    tokens_RT = tokens_RT.masked_fill(~real_RT, 0 if terminal is None else terminal)
    last_R = (real_RT.sum(1) - 1).clamp(min=0)
    hidden_RTD = model.model(tokens_RT, use_cache=False).last_hidden_state
    return hidden_RTD[torch.arange(len(last_R), device=last_R.device), last_R].float()


def ground(
    model: LatentReasoningMixin,
    state: ThoughtState,
    trie: ItemTrie,
    item_embeddings: torch.Tensor,
    num_answers: int,
    sub_catalog: SubCatalog | None = None,
) -> Beams:
    """
    The leaves nearest to what the model answers when nothing constrains it (BIGRec; LatentR³, Table 4): greedily, over
    the whole vocabulary.

    `score = -||e(answer) - e(item)||_2`, with `e` of [`embed_texts`].

    Args:
        model: the recommender.
        state (`ThoughtState`): one branch per prompt, ready to answer.
        trie (`ItemTrie`): the catalog.
        item_embeddings (`torch.Tensor` [J, D]): from [`embed_items`].
        num_answers (`int`): leaves per prompt, K; at most those of the catalog.
        sub_catalog (`SubCatalog`, *optional*): see [`beam_search`].

    Returns:
        `Beams`: nearest first.
    """
    leaves_J, terminal = leaf_nodes(trie), terminal_token(trie)
    # A state that is NaN must not look like an answer; its tokens would be numbers all the same.
    is_broken_B1 = state.hidden_BKD[:, 0].isnan().any(-1, keepdim=True)
    answer_BD = embed_texts(model, answer_freely(model, state, trie.max_depth, terminal), terminal)
    # Not by way of a matrix product, which loses the small distances.
    distance_BJ = torch.cdist(answer_BD, item_embeddings.float(), compute_mode="donot_use_mm_for_euclid_dist")
    scores_BJ = -distance_BJ.masked_fill(is_broken_B1, torch.nan)
    if sub_catalog is not None:
        scores_BJ = scores_BJ.masked_fill(~sub_catalog.holds(leaves_J.expand(len(scores_BJ), -1)), -torch.inf)
    scores_BK, index_BK = scores_BJ.topk(min(num_answers, trie.num_leaves), dim=1)
    return Beams(scores_BK, leaves_J[index_BK])


def answer_freely(
    model: LatentReasoningMixin, state: ThoughtState, max_length: int, terminal: int | None
) -> torch.Tensor:
    """
    Greedy answers over the whole vocabulary.

    Args:
        model: the recommender.
        state (`ThoughtState`): one branch per prompt, ready to answer.
        max_length (`int`): tokens at most.
        terminal (`int`, *optional*): the token that ends an answer; without one, answers have `max_length` tokens.

    Returns:
        `torch.LongTensor` [B, T]: without the terminal, padded with -100.
    """
    tokens: list[torch.Tensor] = []
    ended_B1 = torch.zeros(len(state.hidden_BKD), 1, dtype=torch.bool, device=state.hidden_BKD.device)
    while True:
        token_B1 = model.lm_head(state.hidden_BKD[:, 0]).argmax(-1, keepdim=True)
        if terminal is not None:
            ended_B1 = ended_B1 | (token_B1 == terminal)
        tokens.append(token_B1.masked_fill(ended_B1, _PADDING))
        if len(tokens) == max_length or ended_B1.all():
            return torch.cat(tokens, dim=1)
        state, _ = model.extend(state, model.token_embeddings(token_B1)[:, None])


def _texts(trie: ItemTrie, leaves_R: torch.Tensor, terminal: int | None) -> torch.Tensor:
    """Tokens of leaves without the terminal, [R, T], padded with -100."""
    tokens_RT = trie.sequences(leaves_R)
    if terminal is None:
        return tokens_RT
    position_T = torch.arange(tokens_RT.shape[1], device=tokens_RT.device)
    return tokens_RT.masked_fill(position_T == trie.depth_of(leaves_R)[:, None] - 1, _PADDING)


__all__ = ["answer_freely", "embed_items", "embed_texts", "ground", "leaf_nodes", "terminal_token"]
