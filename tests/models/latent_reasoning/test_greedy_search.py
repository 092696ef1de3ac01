"""Greedy answers of many branches, against plain loops that read every prompt anew for every token."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning.branch_cache import BranchCache
from hf_latentrec.models.latent_reasoning.greedy_search import greedy_search
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .search_checks import TERMINAL, make_titles


NUM_BRANCHES = 4


@pytest.fixture
def title_trie():
    return ItemTrie.from_sequences(make_titles(0))


@pytest.fixture
def noise():
    return torch.randn(3, NUM_BRANCHES, 32)


def branched_state(model, prompts, embeds_BKD):
    """Every prompt goes on with K embeddings, each in a branch of its own."""
    cache = BranchCache(model.config.num_hidden_layers, 100)
    state = model.encode(*prompts, cache=cache).expand(embeds_BKD.shape[1])
    return model.extend(state, embeds_BKD[:, :, None])[0]


def slow_greedy(model, embeds, trie):
    """Tokens of one branch: the best child of the trie, token by token, all read anew each time."""
    tokens = []
    while True:
        node = trie.walk(torch.tensor(tokens, dtype=torch.long))[-1:]
        children = trie.children(node, len(tokens))
        allowed = children.tokens[0][children.mask[0]]
        if len(allowed) == 0:
            return tokens
        ids = torch.tensor(tokens, dtype=torch.long)
        sequence = torch.cat([embeds, model.get_input_embeddings()(ids)])
        logits = model.lm_head(model.model(inputs_embeds=sequence[None]).last_hidden_state[0, -1])
        tokens.append(int(allowed[logits[allowed].argmax()]))


def without_padding(rows):
    return [[token for token in row if token != -100] for row in rows]


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["titles", "codes"])
@torch.no_grad()
def test_equals_plain_loops(make_model, prompts, title_trie, catalog_trie, noise, kind, attn):
    model = make_model(attn=attn)
    trie = title_trie if kind == "titles" else catalog_trie
    leaves = greedy_search(model, branched_state(model, prompts, noise), trie)
    assert leaves.shape == (3, NUM_BRANCHES) and trie.is_leaf(leaves).all()
    embed = model.get_input_embeddings()
    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        prompt = embed(row[mask.bool()])
        expected = [slow_greedy(model, torch.cat([prompt, thought[None]]), trie) for thought in noise[user]]
        assert without_padding(trie.sequences(leaves[user]).tolist()) == expected
    assert len(leaves.unique()) > 3  # the branches do differ


@torch.no_grad()
def test_branches_do_not_compete(make_model, prompts, title_trie, noise):
    same = noise[:, :1].expand(-1, NUM_BRANCHES, -1)
    model = make_model()
    leaves = greedy_search(model, branched_state(model, prompts, same), title_trie)
    assert torch.equal(leaves, leaves[:, :1].expand(-1, NUM_BRANCHES))
    mixed = torch.cat([noise, same], dim=1)
    assert torch.equal(
        greedy_search(model, branched_state(model, prompts, mixed), title_trie),
        torch.cat([greedy_search(model, branched_state(model, prompts, noise), title_trie), leaves], dim=1),
    )


@torch.no_grad()
def test_forced_tokens_cost_no_pass(make_model, prompts, noise, feeds):
    """Ten common tokens, one choice, ten more: one pass reads the first ten of all branches, and that is all."""
    titles = [[*range(20, 30), choice, *range(30, 40), TERMINAL] for choice in (16, 17, 18)]
    model, trie = make_model(), ItemTrie.from_sequences(titles)
    greedy_search(model, branched_state(model, prompts, noise), trie)
    assert feeds[0] == [(3, NUM_BRANCHES * 10)]


@torch.no_grad()
def test_a_catalog_of_one_item_costs_no_pass(make_model, prompts, noise, feeds):
    model, trie = make_model(), ItemTrie.from_sequences([[20, 21, TERMINAL]])
    leaves = greedy_search(model, branched_state(model, prompts, noise), trie)
    assert leaves.eq(3).all() and feeds[0] == []


@torch.no_grad()
def test_a_broken_branch_is_no_answer(make_model, prompts, title_trie, noise):
    model = make_model()
    noise[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"scores of prompt\(s\) \[1\] are NaN"):
        greedy_search(model, branched_state(model, prompts, noise), title_trie)
