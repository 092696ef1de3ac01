"""One step through the trie, beside the model: scores of the children, and the best of them.

Shapes: B prompts, K beams, J beams of the next step, C children of a trie node, U tokens of one step's codebook.
"""

from __future__ import annotations

import torch

from .item_trie import ItemTrie


_GROUP = 16  # values of which one maximum is taken, see _topk


def child_log_probs(
    codebook_logits: torch.Tensor,
    trie: ItemTrie,
    nodes: torch.Tensor,
    depth: int,
    log_norm: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Log-probabilities of the children of trie nodes, in float32.

    They are `logit(child) - log_norm`. By default `log_norm` is the logsumexp over the children of the node: mask,
    then softmax (LASAR App. E.6.1).

    Args:
        codebook_logits (`torch.Tensor` of shape `[..., U]`): Logits of `trie.tokens_at(depth)`, in any float dtype.
        trie (`ItemTrie`): The catalog, on the device of the logits.
        nodes (`torch.LongTensor` of shape `[...]`): The nodes that the logits stand at, all of depth `depth`. -1
            (outside of the trie) has no children.
        depth (`int`): Depth of the nodes.
        log_norm (`torch.Tensor` of shape `[...]`, *optional*): Logsumexp of the logits of the whole vocabulary, for
            probabilities over the vocabulary.

    Returns:
        `torch.FloatTensor` of shape `[..., C]` with `C = trie.max_children[depth]`: -inf where there is no child.

    Example:
        >>> trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
        >>> log_probs = child_log_probs(torch.zeros(2, 3), trie, torch.tensor([1, 2]), depth=1)
        >>> log_probs.exp().tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    first, count = trie.edges(nodes)
    if trie.is_full(depth):  # the children are the codebook
        logits = codebook_logits.float()
    else:
        offset = torch.arange(trie.max_children[depth], device=count.device)
        behind_the_last = offset >= count.clamp(min=1).unsqueeze(-1)
        logits = (
            codebook_logits.gather(-1, trie.columns_from(first, depth))
            .float()
            .masked_fill(behind_the_last, -torch.inf)
        )
    log_probs = logits.log_softmax(-1) if log_norm is None else logits - log_norm.float().unsqueeze(-1)
    # A node without children has kept its first column until here, because the softmax of nothing is NaN.
    no_child = torch.zeros_like(count, dtype=torch.float32).masked_fill(count == 0, -torch.inf)
    return log_probs + no_child.unsqueeze(-1)


def select_children(
    scores_BK: torch.Tensor, log_probs_BKC: torch.Tensor, trie: ItemTrie, nodes_BK: torch.Tensor, num_beams: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The best `(beam, child)` pairs of every prompt.

    Args:
        scores_BK (`torch.FloatTensor` of shape `[B, K]`): Log-probability of each beam; -inf for a beam that does not
            exist.
        log_probs_BKC (`torch.FloatTensor` of shape `[B, K, C]`): From [`child_log_probs`]; -inf for what must not be
            chosen.
        trie (`ItemTrie`): The catalog.
        nodes_BK (`torch.LongTensor` of shape `[B, K]`): Node of each beam.
        num_beams (`int`): How many to keep; `J = min(num_beams, K * C)`.

    Returns:
        `tuple`: scores `[B, J]`, best first, the beam that each goes on from `[B, J]`, and its node `[B, J]`. Where
        there are fewer pairs than J, scores are -inf and nodes -1.

    Example:
        >>> trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
        >>> log_probs = torch.tensor([[[-0.1, -torch.inf], [-0.5, -0.9]]])
        >>> scores, parent, nodes = select_children(torch.zeros(1, 2), log_probs, trie, torch.tensor([[1, 2]]), 2)
        >>> parent.tolist(), nodes.tolist()
        ([[0, 1]], [[3, 4]])
    """
    width = log_probs_BKC.shape[-1]
    candidates = (scores_BK.unsqueeze(-1) + log_probs_BKC).flatten(1)
    scores_BJ, index_BJ = _topk(candidates, min(num_beams, candidates.shape[1]))
    parent_BJ = index_BJ // width
    first_BJ, _ = trie.edges(nodes_BK.gather(1, parent_BJ))
    child_BJ = first_BJ + (index_BJ - parent_BJ * width) + 1
    return scores_BJ, parent_BJ, child_BJ.masked_fill(scores_BJ == -torch.inf, -1)


def _topk(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `values.topk(k, dim=1)`, faster for wide rows.

    Cut into groups, the k best stand in the k groups with the best maxima: what is in any other group has k values
    before it.
    """
    width = values.shape[1]
    if width < 4 * _GROUP * k:
        return values.topk(k, dim=1)
    if width % _GROUP:
        values = torch.nn.functional.pad(values, (0, -width % _GROUP), value=-torch.inf)
    grouped = values.unflatten(1, (_GROUP, -1))  # a group is a column
    column = grouped.amax(1).topk(k, dim=1, sorted=False).indices
    row_start = torch.arange(_GROUP, device=values.device) * grouped.shape[2]
    index = (row_start.unsqueeze(1) + column.unsqueeze(1)).flatten(1)
    best, position = values.gather(1, index).topk(k, dim=1)
    return best, index.gather(1, position).clamp(max=width - 1)  # what was padded is -inf, like its neighbour


__all__ = ["child_log_probs", "select_children"]
