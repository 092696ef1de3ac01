"""Log-probabilities of what may come next in an answer, from hidden states.

Shapes: C children of a trie node, U tokens of one step's codebook, D hidden, V vocabulary, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from .beam_step import child_log_probs
from .item_trie import ItemTrie


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin

NORMALIZATIONS = ("catalog", "vocabulary")
# Logits that are in memory at once where the whole vocabulary is summed over: they should stay in the CPU's cache.
LOGITS_AT_ONCE = 2**21


def score_children(
    model: LatentReasoningMixin, hidden: torch.Tensor, trie: ItemTrie, nodes: torch.Tensor, depth: int, normalize: str
) -> torch.Tensor:
    """
    Log-probabilities of the children of trie nodes, in float32.

    With `"catalog"` the softmax runs over the children alone (LASAR App. E.6.1: mask before softmax), and only the
    rows of the output projection that can occur at this depth are computed. With `"vocabulary"` it runs over the
    vocabulary, as beam search in transformers does.

    Args:
        model: the recommender, for its output projection.
        hidden (`torch.Tensor` [..., D]): hidden states that predict the next token.
        trie (`ItemTrie`): on the device of `hidden`.
        nodes (`torch.LongTensor` [...]): nodes that the states stand at.
        depth (`int`): depth of these nodes.
        normalize (`str`): `"catalog"` or `"vocabulary"`.

    Returns:
        `torch.Tensor` [..., C]: in the order of the children; -inf where there is none.
    """
    weight_VD = model.lm_head.weight
    logits = nn.functional.linear(hidden, weight_VD[trie.tokens_at(depth)])
    log_norm = None if normalize == "catalog" else vocabulary_log_norm(hidden, weight_VD)
    return child_log_probs(logits, trie, nodes, depth, log_norm)


def score_steps(
    model: LatentReasoningMixin, hidden: torch.Tensor, tokens: torch.Tensor, trie: ItemTrie
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """
    Token by token of given answers, the log-probabilities over the catalog of all that the trie allows there, in
    float32 and with gradients, and which of it was given.

    Args:
        model: the recommender, for its output projection.
        hidden (`torch.Tensor` [..., T, D]): states that predict the tokens.
        tokens (`torch.LongTensor` [..., T]): answers from their first token on.
        trie (`ItemTrie`): on the device of `hidden`.

    Yields:
        `tuple`: log-probabilities [..., C] of the children, and the index [...] of the given one among them; -1 from
        the first token on that the trie does not allow.
    """
    nodes = trie.walk(tokens)
    # All codebooks in one lookup: each lookup has a gradient of the whole table.
    weight = nn.functional.embedding(trie.codebook, model.lm_head.weight)
    weights = weight.split([trie.codebook_size(depth) for depth in range(trie.max_depth)])
    for depth, weight_UD in zip(range(tokens.shape[-1]), weights, strict=False):
        logits = nn.functional.linear(hidden[..., depth, :], weight_UD)
        log_probs = child_log_probs(logits, trie, nodes[..., depth], depth)
        first_edge, _ = trie.edges(nodes[..., depth])
        given = nodes[..., depth + 1]
        yield log_probs, torch.where(given < 0, -1, given - first_edge - 1)


def score_answers(
    model: LatentReasoningMixin, hidden: torch.Tensor, tokens: torch.Tensor, trie: ItemTrie
) -> torch.Tensor:
    """
    Log-probabilities of the tokens of answers over the catalog, in float32 and with gradients.

    Args:
        model, hidden, tokens, trie: as in [`score_steps`].

    Returns:
        `torch.Tensor` [..., T]: -inf from the first token on that the trie does not allow.
    """
    columns = []
    for log_probs, given in score_steps(model, hidden, tokens, trie):
        picked = log_probs.gather(-1, given.clamp(min=0)[..., None])[..., 0]
        columns.append(picked.masked_fill(given < 0, -torch.inf))
    beyond = tokens.shape[-1] - len(columns)
    return nn.functional.pad(torch.stack(columns, dim=-1), (0, beyond), value=-torch.inf)


def greedy_matches(
    model: LatentReasoningMixin, hidden: torch.Tensor, tokens: torch.Tensor, trie: ItemTrie, padding: int
) -> torch.Tensor:
    """
    Whether greedy search under the trie would write exactly these answers, without searching: it does where the most
    probable child is the given token at every position.

    Args:
        model, hidden, tokens, trie: as in [`score_steps`].
        padding (`int`): token that fills up answers.

    Returns:
        `torch.BoolTensor` [...].
    """
    columns = [log_probs.max(-1).indices == given for log_probs, given in score_steps(model, hidden, tokens, trie)]
    best = nn.functional.pad(torch.stack(columns, dim=-1), (0, tokens.shape[-1] - len(columns)))
    return (best | (tokens == padding)).all(-1)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of distributions given as log-probabilities [..., C]; -inf is what cannot come."""
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1)


def vocabulary_log_norm(hidden: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
    """
    `logsumexp` of the logits over the whole vocabulary, without holding them: a slice of the vocabulary at a time.

    Args:
        hidden (`torch.Tensor` [..., D]): hidden states.
        weight_VD (`torch.Tensor`): output projection.

    Returns:
        `torch.Tensor` [...]: float32.
    """
    num_rows = max(1, hidden[..., 0].numel())
    slices = weight_VD.split(max(1, LOGITS_AT_ONCE // num_rows))
    parts = [nn.functional.linear(hidden, part).float().logsumexp(-1) for part in slices]
    return torch.stack(parts).logsumexp(0)


__all__ = [
    "NORMALIZATIONS",
    "entropy",
    "greedy_matches",
    "score_answers",
    "score_children",
    "score_steps",
    "vocabulary_log_norm",
]
