"""A step through the trie against loops over its children."""

from __future__ import annotations

import math

import pytest
import torch

from hf_latentrec.models.latent_reasoning.beam_step import _topk, child_log_probs, select_children
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie


RAGGED = [[5, 9, 1], [5, 8, 1], [5, 8, 2], [2, 7, 1], [2, 0], [3, 0], [5, 9, 3], [5, 9, 4, 0], [5, 0]]
FULL = [[a, b, c] for a in (1, 2) for b in (3, 4, 5) for c in ((6,) if b == 4 else (6, 7))]  # full up to depth 1
CATALOGS = [RAGGED, FULL]


def all_nodes(trie: ItemTrie, depth: int) -> torch.Tensor:
    """The nodes of a depth, and one outside of the trie."""
    return torch.tensor([*range(trie.depth_ptr[depth], trie.depth_ptr[depth + 1]), -1])


def slow_log_probs(logits: list, trie: ItemTrie, node: int, depth: int, log_norm: float | None) -> list[float]:
    children = trie.children(torch.tensor([node]), depth)
    codebook = trie.tokens_at(depth).tolist()
    of_child = [
        logits[codebook.index(token)] if there else -math.inf
        for token, there in zip(children.tokens[0].tolist(), children.mask[0].tolist(), strict=True)
    ]
    total = sum(math.exp(logit) for logit in of_child)
    if log_norm is None:
        log_norm = math.log(total) if total else 0.0
    return [logit - log_norm for logit in of_child]


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("sequences", CATALOGS)
def test_child_log_probs_equal_a_loop(sequences, with_norm):
    trie = ItemTrie.from_sequences(sequences)
    assert trie.is_full(0) and trie.is_full(1) == (sequences is FULL)
    for depth in range(trie.max_depth):
        nodes = all_nodes(trie, depth).expand(2, -1)
        logits = torch.randn(*nodes.shape, trie.codebook_size(depth))
        log_norm = torch.randn(nodes.shape) if with_norm else None
        found = child_log_probs(logits, trie, nodes, depth, log_norm)
        assert found.shape == (*nodes.shape, trie.max_children[depth])
        for b in range(2):
            for k, node in enumerate(nodes[b].tolist()):
                norm = log_norm[b, k].item() if with_norm else None
                expected = slow_log_probs(logits[b, k].tolist(), trie, node, depth, norm)
                assert found[b, k].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("sequences", CATALOGS)
def test_gradients_equal_those_of_a_dense_softmax(sequences, with_norm):
    """Of one chosen child per node, as in training; a node without children gets the gradient 0."""
    trie = ItemTrie.from_sequences(sequences)
    for depth in range(trie.max_depth):
        nodes = all_nodes(trie, depth)
        children = trie.children(nodes, depth)
        has_child = children.mask.any(-1)
        logits = torch.randn(len(nodes), trie.codebook_size(depth), requires_grad=True)
        log_norm = logits.logsumexp(-1) if with_norm else None
        last = (children.mask.sum(-1) - 1).clamp(min=0)[:, None]
        picked = child_log_probs(logits, trie, nodes, depth, log_norm).gather(1, last)[:, 0]
        assert picked[~has_child].eq(-torch.inf).all() and (~has_child).any()
        (found,) = torch.autograd.grad(picked.masked_fill(~has_child, 0.0).sum(), logits)

        target = torch.searchsorted(trie.tokens_at(depth), children.tokens.gather(1, last)[has_child])
        dense = logits[has_child]
        if not with_norm:
            allowed = torch.zeros_like(dense, dtype=torch.bool)
            for row, node in enumerate(nodes[has_child].tolist()):
                one = trie.children(torch.tensor(node), depth)
                allowed[row, torch.searchsorted(trie.tokens_at(depth), one.tokens[one.mask])] = True
            dense = dense.masked_fill(~allowed, -torch.inf)
        (expected,) = torch.autograd.grad(dense.log_softmax(-1).gather(1, target).sum(), logits)
        assert found.isfinite().all() and found[~has_child].eq(0).all()
        torch.testing.assert_close(found, expected)


def test_low_precision_logits_give_float32_probabilities():
    trie = ItemTrie.from_sequences(RAGGED)
    nodes = all_nodes(trie, 1)
    logits = torch.randn(len(nodes), trie.codebook_size(1)).bfloat16()
    found = child_log_probs(logits, trie, nodes, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, child_log_probs(logits.float(), trie, nodes, 1))


@pytest.mark.parametrize("num_beams", [1, 3, 100])
@pytest.mark.parametrize("sequences", CATALOGS)
def test_select_children_equals_a_sort(sequences, num_beams):
    trie = ItemTrie.from_sequences(sequences)
    for depth in range(trie.max_depth):
        nodes = all_nodes(trie, depth).expand(2, -1)
        scores = torch.randn(nodes.shape)
        scores[0, 0] = -torch.inf  # a beam that does not exist
        log_probs = child_log_probs(torch.randn(*nodes.shape, trie.codebook_size(depth)), trie, nodes, depth)
        log_probs[1, 0, 0] = -torch.inf  # a child that the caller has masked
        found = select_children(scores, log_probs, trie, nodes, num_beams)
        num_candidates = nodes.shape[1] * trie.max_children[depth]
        assert all(tensor.shape == (2, min(num_beams, num_candidates)) for tensor in found)
        children = trie.children(nodes, depth)
        for b in range(2):
            candidates = [
                (scores[b, k].item() + log_probs[b, k, c].item(), k, children.nodes[b, k, c].item())
                for k in range(nodes.shape[1])
                for c in range(trie.max_children[depth])
                if scores[b, k] > -math.inf and log_probs[b, k, c] > -math.inf
            ]
            best = sorted(candidates, reverse=True)[:num_beams]
            assert found[0][b, : len(best)].tolist() == pytest.approx([score for score, _, _ in best])
            assert found[1][b, : len(best)].tolist() == [parent for _, parent, _ in best]
            assert found[2][b, : len(best)].tolist() == [node for _, _, node in best]
            assert found[0][b, len(best) :].eq(-torch.inf).all() and found[2][b, len(best) :].eq(-1).all()


@pytest.mark.parametrize("width", [63, 64, 127, 128, 129, 1000, 1001])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_topk_of_groups_equals_topk(width, k):
    values = torch.randn(5, width)
    values[1] = -torch.inf
    values[2, 3:] = -torch.inf  # fewer than k that count
    values[3] = values[3].sort().values
    values[4] = values[4].sort(descending=True).values
    found, index = _topk(values, k)
    assert found.equal(values.topk(k, dim=1).values)
    real = found.isfinite()
    rows = torch.arange(5)[:, None].expand_as(index)
    assert values[rows[real], index[real]].equal(found[real])
    assert all(len(set(index[row][real[row]].tolist())) == real[row].sum() for row in range(5))


def test_a_search_with_as_many_beams_as_items_ranks_all_items():
    sequences = [list(sequence) for sequence in {tuple(torch.randint(1, 6, (3,)).tolist()) for _ in range(50)}]
    trie = ItemTrie.from_sequences(sequences)
    vocabulary_logits = torch.randn(2, trie.max_depth, 6)
    scores, nodes = torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.long)
    for depth in range(trie.max_depth):
        logits = vocabulary_logits[:, None, depth, trie.tokens_at(depth)].expand(-1, nodes.shape[1], -1)
        log_probs = child_log_probs(logits, trie, nodes, depth)
        scores, _, nodes = select_children(scores, log_probs, trie, nodes, len(sequences))
    for b in range(2):
        expected = []
        for row, sequence in enumerate(sequences):
            score = 0.0
            for depth, token in enumerate(sequence):
                follow = {s[depth] for s in sequences if s[:depth] == sequence[:depth]}
                logits = vocabulary_logits[b, depth]
                score += (logits[token] - logits[sorted(follow)].logsumexp(0)).item()
            expected.append((score, row))
        expected.sort(reverse=True)
        assert trie.leaf_items(nodes[b])[0].tolist() == [row for _, row in expected]
        assert scores[b].tolist() == pytest.approx([score for score, _ in expected], abs=1e-4)
