"""Scores of what may come next, against logits of the whole vocabulary."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning import answer_scores
from hf_latentrec.models.latent_reasoning.answer_scores import score_answers, score_children, vocabulary_log_norm

from .conftest import SIZES, VOCAB_SIZE


@pytest.fixture
def hidden():
    return torch.randn(2, 5, SIZES["hidden_size"], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("logits_at_once", [1, 100, 230, 10**6])
@torch.no_grad()
def test_log_norm_in_slices_is_that_of_the_vocabulary(make_model, hidden, monkeypatch, logits_at_once):
    monkeypatch.setattr(answer_scores, "LOGITS_AT_ONCE", logits_at_once)
    model = make_model()
    log_norm = vocabulary_log_norm(hidden, model.lm_head.weight)
    torch.testing.assert_close(log_norm, model.lm_head(hidden).logsumexp(-1))


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_children_against_all_logits(make_model, hidden, catalog_trie, normalize):
    model = make_model()
    nodes = torch.arange(*catalog_trie.depth_ptr[1:3])[:5].expand(2, 5)
    scores = score_children(model, hidden, catalog_trie, nodes, 1, normalize)
    children = catalog_trie.children(nodes, 1)
    logits = model.lm_head(hidden)
    for row in range(2):
        for column in range(5):
            mask = children.mask[row, column]
            tokens = children.tokens[row, column][mask]
            over = logits[row, column] if normalize == "vocabulary" else logits[row, column, tokens]
            expected = logits[row, column, tokens] - over.logsumexp(-1)
            torch.testing.assert_close(scores[row, column][mask], expected)
            assert scores[row, column][~mask].eq(-torch.inf).all()


def test_answers_and_their_gradients_against_a_masked_softmax(make_model, hidden, catalog_trie):
    """A prefix of an answer, a whole one, and one that leaves the catalog at its second token."""
    model = make_model()
    tokens = torch.tensor([[16, -100, -100], [17, 0, 0], [20, VOCAB_SIZE - 1, 33]])
    tokens[1] = catalog_trie.sequences(torch.tensor([catalog_trie.num_nodes - 1]))[0]
    states = hidden.flatten(0, 1)[:9].view(3, 3, -1).clone().requires_grad_()
    scores = score_answers(model, states, tokens, catalog_trie)
    assert scores[0, 1:].eq(-torch.inf).all() and scores[2, 1:].eq(-torch.inf).all()

    real = scores.isfinite()
    assert real.sum(1).tolist() == [1, 3, 1]
    expected, nodes = [], catalog_trie.walk(tokens)
    for row, position in real.nonzero().tolist():
        children = catalog_trie.children(nodes[row, position, None], position)
        allowed = torch.zeros(VOCAB_SIZE, dtype=torch.bool)
        allowed[children.tokens[children.mask]] = True
        logits = model.lm_head(states[row, position]).masked_fill(~allowed, -torch.inf)
        expected.append(logits.log_softmax(-1)[tokens[row, position]])
    torch.testing.assert_close(scores[real], torch.stack(expected))

    inputs = [states, model.lm_head.weight]
    ours = torch.autograd.grad(scores[real].sum(), inputs, retain_graph=True)
    slow = torch.autograd.grad(torch.stack(expected).sum(), inputs)
    for mine, theirs in zip(ours, slow, strict=True):
        torch.testing.assert_close(mine, theirs)
