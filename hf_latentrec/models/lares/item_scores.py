"""Scores of a whole catalog that never hold a number for every state and every item at once.

Shapes: G states, D hidden, I items, C states of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch


# Scores that a loss holds at once. On a CPU they fit into a core's cache, which makes its matrix products three times
# as fast; elsewhere fewer and larger products count.
CACHED_SCORES, CHUNK_SCORES, LEAST_ROWS = 2**20, 2**25, 32
BLOCK_SCORES = 2**24  # in ranking


def item_cross_entropy(
    states: torch.Tensor, item_embeddings: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    r"""
    Sum of the cross entropies over the catalog, with its gradients made in the same pass over the scores.

    $$-\sum_g \log \mathrm{softmax}(h_g E^\top + b)_{y_g}$$

    Args:
        states (`torch.Tensor` [G, D]): h.
        item_embeddings (`torch.Tensor` [I, D]): E.
        targets (`torch.LongTensor` [G]): rows of E.
        bias (`torch.Tensor` [I], *optional*): b.

    Returns:
        `torch.Tensor`: a scalar in float32.

    Example:
        >>> states, items = torch.randn(5, 4), torch.randn(9, 4)
        >>> targets = torch.tensor([0, 8, 3, 3, 1])
        >>> expected = torch.nn.functional.cross_entropy(states @ items.T, targets, reduction="sum")
        >>> torch.allclose(item_cross_entropy(states, items, targets), expected)
        True
    """
    return _SummedCrossEntropy.apply(states, item_embeddings, targets, bias, torch.is_grad_enabled())


def item_log_probs(
    states: torch.Tensor, item_embeddings: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Log-probability of one item for every state, over the catalog; the scores are computed again for the gradient.

    Args:
        states (`torch.Tensor` [G, D]): as in [`item_cross_entropy`].
        item_embeddings (`torch.Tensor` [I, D]): as in [`item_cross_entropy`].
        targets (`torch.LongTensor` [G]): as in [`item_cross_entropy`].
        bias (`torch.Tensor` [I], *optional*): as in [`item_cross_entropy`].

    Returns:
        `torch.Tensor` [G], float32.

    Example:
        >>> states, items = torch.randn(5, 4), torch.randn(9, 4)
        >>> item_log_probs(states, items, torch.tensor([0, 8, 3, 3, 1])).shape
        torch.Size([5])
    """
    return _ItemLogProbs.apply(states, item_embeddings, targets, bias)


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, item_embeddings, targets, bias, with_gradients):
        states_GD, items_ID = states.detach().float(), item_embeddings.detach().float()
        grads = _Gradients(states_GD, items_ID, bias) if with_gradients else None
        loss = states_GD.new_zeros(())
        for rows, scores_CI in _chunks(states_GD, items_ID, bias):
            targets_C = targets[rows]
            target_scores_C = scores_CI.gather(1, targets_C[:, None])[:, 0]
            log_sums_C, sums_C1 = _exponentiate(scores_CI)
            loss += (log_sums_C - target_scores_C).sum()
            if with_gradients:
                grads.add(rows, scores_CI, 1 / sums_C1, targets_C, None)
        if with_gradients:
            ctx.save_for_backward(*grads.tensors)
            ctx.dtypes = [tensor.dtype for tensor in (states, item_embeddings, bias) if tensor is not None]
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grads = ((grad * grad_loss).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        grad_states, grad_items, *grad_bias = grads
        return grad_states, grad_items, None, *(grad_bias or [None]), None


class _ItemLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, item_embeddings, targets, bias):
        states_GD, items_ID = states.detach().float(), item_embeddings.detach().float()
        target_scores_G, log_sums_G = states_GD.new_empty(2, len(states))
        for rows, scores_CI in _chunks(states_GD, items_ID, bias):
            target_scores_G[rows] = scores_CI.gather(1, targets[rows, None])[:, 0]
            log_sums_G[rows], _ = _exponentiate(scores_CI)
        ctx.save_for_backward(states, item_embeddings, targets, log_sums_G, *([] if bias is None else [bias]))
        return target_scores_G - log_sums_G

    @staticmethod
    def backward(ctx, grad_G):
        states, item_embeddings, targets, log_sums_G, *biases = ctx.saved_tensors
        states_GD, items_ID = states.detach().float(), item_embeddings.detach().float()
        bias = biases[0].detach() if biases else None
        grads = _Gradients(states_GD, items_ID, bias)
        for rows, scores_CI in _chunks(states_GD, items_ID, bias):
            probs_CI = scores_CI.sub_(log_sums_G[rows, None]).exp_()
            grads.add(rows, probs_CI, -grad_G[rows, None], targets[rows], -grad_G[rows, None])
        grad_states, grad_items, *grad_bias = grads.tensors
        grad_bias = [grad.to(bias.dtype) for grad in grad_bias] or [None]
        return grad_states.to(states.dtype), grad_items.to(item_embeddings.dtype), None, *grad_bias


class _Gradients:
    """Gradients of cross entropies with respect to states, items and bias, chunk by chunk."""

    def __init__(self, states_GD: torch.Tensor, items_ID: torch.Tensor, bias: torch.Tensor | None):
        self.states_GD, self.items_ID = states_GD, items_ID
        self.tensors = [torch.empty_like(states_GD), torch.zeros_like(items_ID)]
        if bias is not None:
            self.tensors.append(torch.zeros_like(bias, dtype=torch.float32))

    def add(
        self,
        rows: slice,
        weights_CI: torch.Tensor,
        factors_C1: torch.Tensor,
        targets_C: torch.Tensor,
        target_factors_C1: torch.Tensor | None,
    ) -> None:
        """The gradient of the scores is `weights * factors - onehot(targets) * target_factors` (None: 1)."""
        grad_states, grad_items, *grad_bias = self.tensors
        states_CD, target_items_CD = self.states_GD[rows], self.items_ID[targets_C]
        weighted_CD = states_CD * factors_C1
        target_states_CD = states_CD
        if target_factors_C1 is not None:
            target_items_CD, target_states_CD = target_items_CD * target_factors_C1, states_CD * target_factors_C1
        # `out`: autocast, which would round this product, leaves such calls alone
        torch.mm(weights_CI, self.items_ID, out=grad_states[rows]).mul_(factors_C1).sub_(target_items_CD)
        grad_items.addmm_(weights_CI.T, weighted_CD).index_add_(0, targets_C, target_states_CD, alpha=-1)
        if grad_bias:
            grad_bias[0].addmv_(weights_CI.T, factors_C1[:, 0])
            ones_C = torch.ones_like(factors_C1[:, 0]) if target_factors_C1 is None else target_factors_C1[:, 0]
            grad_bias[0].index_add_(0, targets_C, ones_C, alpha=-1)


def _chunks(
    states_GD: torch.Tensor, items_ID: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows and their scores [C, I], in one buffer that the next chunk overwrites."""
    num_scores = CACHED_SCORES if states_GD.device.type == "cpu" else CHUNK_SCORES
    size = max(1, min(max(num_scores // len(items_ID), LEAST_ROWS), len(states_GD)))
    buffer_CI = states_GD.new_empty(size, len(items_ID))
    for start in range(0, len(states_GD), size):
        rows = slice(start, min(start + size, len(states_GD)))
        scores_CI = torch.mm(states_GD[rows], items_ID.T, out=buffer_CI[: rows.stop - rows.start])
        yield rows, scores_CI if bias is None else scores_CI.add_(bias)


def _exponentiate(scores_CI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms [C] of the sums of exp(score). In the place of the scores it leaves exp(score - the row's largest),
    whose sums [C, 1] come, too."""
    largest_C1 = scores_CI.amax(-1, keepdim=True)
    sums_C1 = scores_CI.sub_(largest_C1).exp_().sum(-1, keepdim=True)
    return (sums_C1.log() + largest_C1)[:, 0], sums_C1


def exact_scores(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Scores [B, I] of vectors [I, D] for states [B, D], in float32, also under autocast: rounded, many would tie."""
    with torch.autocast(states.device.type, enabled=False):
        return states.float() @ vectors.float().T


Scorer = Callable[[slice], torch.Tensor]
"""Scores [B, block] of a block of items."""


def top_items(
    score_block: Scorer, num_rows: int, num_items: int, k: int, block_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The `k` best items of every row, by blocks of the catalog.

    Args:
        score_block (`Callable`): gives the scores [B, block] of a slice of item rows; -inf for what is not allowed.
        num_rows (`int`): B.
        num_items (`int`): I.
        k (`int`): how many; at most I come back.
        block_size (`int`, *optional*): items scored at once; by default so many that 64 MiB hold the scores.

    Returns:
        `tuple` of `torch.Tensor` [B, k]: scores from the best on, and item rows; among equal scores the lower row
        comes first.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.7, 0.3]])
        >>> top_items(lambda block: scores[:, block], 1, 4, k=3, block_size=2)[1].tolist()
        [[1, 2, 3]]
    """
    best_scores = best_rows = None
    for block in item_blocks(num_rows, num_items, block_size):
        scores, rows = _stable_topk(score_block(block), k)
        rows = rows + block.start
        if best_scores is not None:  # earlier blocks first: their rows are lower
            scores, rows = torch.cat([best_scores, scores], dim=1), torch.cat([best_rows, rows], dim=1)
            scores, place = _stable_topk(scores, k)
            rows = rows.gather(1, place)
        best_scores, best_rows = scores, rows
    return best_scores, best_rows


def _stable_topk(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `topk`, of all columns where there are fewer; among equal scores the lower index comes first."""
    k = min(k, scores.shape[1])
    values, chosen = scores.topk(k, dim=1)
    border = values[:, -1:]
    if (_count(torch.ge, scores, border) > k).any():
        # More than fit stand at the border: above it everything is taken, and of those on it the lowest indices.
        key = torch.where(scores > border, 2, (scores == border).to(torch.int64)) * scores.shape[1]
        chosen = (key - torch.arange(scores.shape[1], device=scores.device)).topk(k, dim=1).indices
    chosen = chosen.sort(dim=1).values
    values, place = scores.gather(1, chosen).sort(dim=1, descending=True, stable=True)
    return values, chosen.gather(1, place)


def ranks_of(
    score_block: Scorer, targets: torch.Tensor, num_items: int, block_size: int | None = None
) -> torch.Tensor:
    """
    Rank of one item of every row among all, by blocks of the catalog.

    Args:
        score_block (`Callable`): as in [`top_items`]; it is asked twice for each block where there are several.
        targets (`torch.LongTensor` [B]): item rows.
        num_items (`int`): I.
        block_size (`int`, *optional*): as in [`top_items`].

    Returns:
        `torch.LongTensor` [B]: from 1; of equal scores the lower row ranks first. 0 where the target's score is -inf
            or NaN.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.7, 0.3]])
        >>> ranks_of(lambda block: scores[:, block], torch.tensor([2]), 4)
        tensor([2])
    """
    blocks = item_blocks(len(targets), num_items, block_size)
    target_scores = torch.full(targets.shape, -torch.inf, device=targets.device)
    for block in blocks:
        scores = score_block(block)
        inside = (targets >= block.start) & (targets < block.stop)
        found = scores.gather(1, torch.where(inside, targets - block.start, 0)[:, None])[:, 0].float()
        target_scores = torch.where(inside, found, target_scores)
    target_scores_B1, has_rank = target_scores[:, None], target_scores > -torch.inf
    ranks = torch.ones_like(targets)
    for block in blocks:
        if len(blocks) > 1:
            scores = score_block(block)
        higher = _count(torch.gt, scores, target_scores_B1)
        ranks += higher.long()
        if scores.device.type == "cpu":  # elsewhere to ask takes longer than to count
            inside = (targets >= block.start) & (targets < block.stop)
            tied = (_count(torch.ge, scores, target_scores_B1) - higher > inside) & has_rank
            if not tied.any():
                continue
        before = torch.arange(block.start, block.stop, device=targets.device) < targets[:, None]
        ranks += ((scores == target_scores_B1) & before).sum(-1)
    return torch.where(has_rank, ranks, 0)


def _count(compare: Callable[..., torch.Tensor], scores_BI: torch.Tensor, thresholds_B1: torch.Tensor) -> torch.Tensor:
    """How many scores of a row compare so, [B]. Float32 is exact up to 2^24, and on a CPU several times as fast as
    booleans."""
    return compare(scores_BI, thresholds_B1, out=torch.empty_like(scores_BI, dtype=torch.float32)).sum(-1)


def best_of_groups(
    score_block: Scorer, targets: torch.Tensor, item_groups: torch.Tensor, block_size: int | None = None
) -> torch.Tensor:
    """
    The best item of the group that each target belongs to.

    Args:
        score_block (`Callable`): as in [`top_items`].
        targets (`torch.LongTensor` [B]): item rows.
        item_groups (`torch.LongTensor` [I]): the group of each item.
        block_size (`int`, *optional*): as in [`top_items`].

    Returns:
        `torch.LongTensor` [B]: item rows; among equal scores the lower row.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.7, 0.3]])
        >>> best_of_groups(lambda block: scores[:, block], torch.tensor([3]), torch.tensor([0, 1, 0, 0]))
        tensor([2])
    """
    groups_I, row_I = item_groups.sort(stable=True)
    group_B = item_groups[targets]
    start_B, end_B = (torch.searchsorted(groups_I, group_B, right=right) for right in (False, True))
    member_M = torch.arange(int((end_B - start_B).max()), device=targets.device)
    # Smaller groups repeat their last member.
    members_BM = row_I[torch.minimum(start_B[:, None] + member_M, end_B[:, None] - 1)]
    scores_BM = torch.full(members_BM.shape, -torch.inf, device=targets.device)
    for block in item_blocks(len(targets), len(item_groups), block_size):
        inside = (members_BM >= block.start) & (members_BM < block.stop)
        found = score_block(block).gather(1, torch.where(inside, members_BM - block.start, 0)).float()
        scores_BM = torch.where(inside, found, scores_BM)
    return members_BM.gather(1, scores_BM.argmax(1, keepdim=True))[:, 0]


def exclusion(allowed: np.ndarray, device: torch.device) -> torch.Tensor:
    """
    What leaves items out once it is added to their scores; several times as fast on a CPU as to overwrite these.

    Args:
        allowed (`np.ndarray` [I], bool): which items may be recommended.
        device (`torch.device`): of the scores.

    Returns:
        `torch.Tensor` [I]: 0 for those, -inf for all others.

    Example:
        >>> exclusion(np.array([True, False]), "cpu")
        tensor([0., -inf])
    """
    return torch.zeros(len(allowed)).masked_fill_(torch.from_numpy(~allowed), -torch.inf).to(device)


def row_chunks(num_rows: int, num_items: int, device: torch.device) -> list[slice]:
    """
    Slices of rows to rank one after the other, at least one: on a CPU so few rows that their scores stay in a core's
    cache, elsewhere all of them.
    """
    size = CACHED_SCORES // num_items
    if device.type != "cpu" or size < LEAST_ROWS:
        size = max(1, num_rows)
    return [slice(start, min(start + size, num_rows)) for start in range(0, max(1, num_rows), size)]


def item_blocks(num_rows: int, num_items: int, block_size: int | None = None) -> list[slice]:
    """Slices of item rows that cover the catalog."""
    if block_size is None:
        block_size = max(1, BLOCK_SCORES // max(1, num_rows))
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; pass a positive number of items")
    return [slice(start, min(start + block_size, num_items)) for start in range(0, num_items, block_size)]


__all__ = [
    "best_of_groups",
    "exclusion",
    "item_blocks",
    "item_cross_entropy",
    "item_log_probs",
    "ranks_of",
    "row_chunks",
    "top_items",
]
