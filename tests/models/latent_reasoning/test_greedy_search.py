"""Greedy answers of many branches, against plain loops that read every prompt anew for every token."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hf_latentrec.models.latent_reasoning.branch_cache import BranchCache
from hf_latentrec.models.latent_reasoning.greedy_search import greedy_search
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .concatenated import concatenated_logits
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


def slow_greedy(next_logits, trie):
    """Tokens of one branch: the best child of the trie, token by token. `next_logits(tokens)` reads all of it anew."""
    tokens = []
    while True:
        node = trie.walk(torch.tensor(tokens, dtype=torch.long))[-1:]
        children = trie.children(node, len(tokens))
        allowed = children.tokens[0][children.mask[0]]
        if len(allowed) == 0:
            return tokens
        tokens.append(int(allowed[next_logits(tokens)[allowed].argmax()]))


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

    def next_logits(start, tokens):
        sequence = torch.cat([start, embed(torch.tensor(tokens, dtype=torch.long))])
        return model.lm_head(model.model(inputs_embeds=sequence[None]).last_hidden_state[0, -1])

    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        starts = [torch.cat([embed(row[mask.bool()]), thought[None]]) for thought in noise[user]]
        expected = [slow_greedy(partial(next_logits, start), trie) for start in starts]
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
    model = make_model(num_thoughts=2)  # whose thoughts still need their room in the cache
    answers = model.greedy_answers(*prompts, item_trie=trie, thought_noise=noise)
    assert answers.tolist() == [[[20, 21, TERMINAL]] * NUM_BRANCHES] * 3 and feeds[0] == []


@torch.no_grad()
def test_a_broken_branch_is_no_answer(make_model, prompts, title_trie, noise):
    model = make_model()
    noise[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"scores of prompt\(s\) \[1\] are NaN"):
        greedy_search(model, branched_state(model, prompts, noise), title_trie)


SETTINGS = [
    {"num_thoughts": 1, "reasoner": "latent_attention"},
    {"num_thoughts": 2, "reasoner": "latent_attention", "thought_markers": True},
    {"num_thoughts": 2, "reasoner": "feedback"},
    {"num_thoughts": 1, "reasoner": "feedback", "thought_markers": False},
    {"num_thoughts": 1, "reasoner": "factorized_attention", "num_factors": 3},
]


@pytest.mark.parametrize("relative_noise", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@torch.no_grad()
def test_answers_equal_plain_loops(make_model, prompts, title_trie, noise, settings, relative_noise):
    model, noise = make_model(**settings), noise[:, :2]
    answers = model.greedy_answers(*prompts, item_trie=title_trie, thought_noise=noise, relative_noise=relative_noise)

    def next_logits(prompt, sample, tokens):
        answer = torch.tensor([*tokens, 0])  # the last one is not read
        return concatenated_logits(model, prompt, answer, settings["num_thoughts"], sample, relative_noise)[0][-1]

    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        prompt = row[mask.bool()]
        expected = [slow_greedy(partial(next_logits, prompt, sample), title_trie) for sample in noise[user]]
        assert without_padding(answers[user].tolist()) == expected


@pytest.mark.parametrize("kind", ["titles", "codes"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_answers_equal_a_beam_for_each_thought(
    make_model, prompts, title_trie, catalog_trie, noise, settings, kind, monkeypatch
):
    model = make_model(**settings)
    trie = title_trie if kind == "titles" else catalog_trie
    noise[:, 0] = 0
    answers = model.greedy_answers(*prompts, item_trie=trie, thought_noise=noise)
    assert answers.shape[:2] == (3, NUM_BRANCHES) and not answers.requires_grad
    think = model.think
    for k in range(NUM_BRANCHES):
        if k > 0:  # the first one is not perturbed
            sample = noise[:, k : k + 1]
            monkeypatch.setattr(model, "think", lambda *args, sample=sample, **_: think(*args, thought_noise=sample))
        beams = model.generate(*prompts, item_trie=trie, num_beams=1)
        assert without_padding(answers[:, k].tolist()) == without_padding(beams.sequences.tolist())


@pytest.mark.parametrize("kind", ["titles", "codes"])
@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[-1]])
def test_forward_tells_which_answers_greedy_search_would_write(
    make_model, prompts, title_trie, catalog_trie, noise, settings, kind
):
    """Each sample of a thought is asked for the answer of the next one, and for its own."""
    model, trie = make_model(**settings), title_trie if kind == "titles" else catalog_trie
    answers = model.greedy_answers(*prompts, item_trie=trie, thought_noise=noise)
    for labels in (answers, answers.roll(1, dims=1)):
        output = model(*prompts, labels=labels, thought_noise=noise, greedy_trie=trie)
        assert output.greedy_matches.tolist() == (labels == answers).all(-1).tolist()
    assert not output.greedy_matches.all() and output.greedy_matches.any()  # some samples agree on an answer
    foreign = torch.full((3, 2), 1)
    assert not model(*prompts, labels=foreign, thought_noise=noise, greedy_trie=trie).greedy_matches.any()
    longer = torch.nn.functional.pad(answers, (0, trie.max_depth), value=-100)
    assert model(*prompts, labels=longer, thought_noise=noise, greedy_trie=trie).greedy_matches.all()


def test_bad_arguments_are_named(make_model, prompts, title_trie, noise):
    model = make_model(num_thoughts=1, reasoner="latent_attention")
    with pytest.raises(ValueError, match=r"thought_noise has shape \(2, 4, 32\); expected \[3, K"):
        model.greedy_answers(*prompts, item_trie=title_trie, thought_noise=noise[:2])
    with pytest.raises(ValueError, match=r"prompt\(s\) \[0, 1, 2\] hold no token"):
        model.greedy_answers(prompts[0], prompts[1] * 0, item_trie=title_trie, thought_noise=noise)
    with pytest.raises(ValueError, match="num_thoughts 0; there is no thought to perturb"):
        make_model().greedy_answers(*prompts, item_trie=title_trie, thought_noise=noise)
