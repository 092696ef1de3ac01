"""Search over answers of different lengths, against plain `generate` and a reference without any cache."""

from __future__ import annotations

import itertools

import pytest
import torch

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .plain_search import plain_beam_search
from .search_checks import TERMINAL, assert_batched_equals_unbatched, assert_filters_the_full_ranking, make_titles


@pytest.fixture(params=[0, 1])
def title_trie(request):
    return ItemTrie.from_sequences(make_titles(request.param))


def listed(sequences, users):
    """Rows as `(user, tokens)`; what follows the terminal is padding."""
    rows = [row[: row.index(TERMINAL) + 1] for row in sequences.tolist()]
    return list(zip(users.tolist(), rows, strict=True))


def assert_equals_plain(model, plain, prompts, trie, normalize, num_beams, num_thoughts=0, **settings):
    ours = model.generate(*prompts, item_trie=trie, num_beams=num_beams, normalize=normalize, **settings)
    sequences, scores = plain_beam_search(
        plain, prompts, trie, num_thoughts, normalize, num_beams, eos_token_id=TERMINAL, **settings
    )
    # Where beams are missing, `generate` carries ended ones on at about -1e9 over the length and lists them again.
    real = scores > -1e6
    users = torch.arange(len(prompts[0])).repeat_interleave(num_beams)
    assert listed(ours.sequences, ours.user_indices) == listed(sequences[real], users[real])
    torch.testing.assert_close(ours.sequences_scores, scores[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("length_penalty", "early_stopping"), [(0.0, False), (1.0, False), (1.0, "never"), (-0.5, False)]
)
@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("num_beams", [3, 20])
@torch.inference_mode()
def test_equals_plain_generate(
    make_model, make_plain, prompts, title_trie, num_beams, normalize, length_penalty, early_stopping
):
    model = make_model()
    assert_equals_plain(
        model,
        make_plain(model),
        prompts,
        title_trie,
        normalize,
        num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )


@pytest.mark.parametrize("num_thoughts", [0, 2])
@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_equals_plain_generate_for_every_backbone(
    make_model, make_plain, prompts, title_trie, family, attn, normalize, num_thoughts
):
    model = make_model(family, num_thoughts, attn)
    assert_equals_plain(model, make_plain(model, family), prompts, title_trie, normalize, 8, num_thoughts)


def reference_search(model, prompt, trie, num_beams, length_penalty, early_stopping):
    """One prompt, every beam read anew from its first token, Python lists, catalog normalization."""
    running, finished, is_open = [(0.0, [])], [], True
    for length in range(1, trie.max_depth + 1):
        candidates = []
        for score, tokens in running:
            ids = torch.cat([prompt, torch.tensor(tokens, dtype=torch.long)])[None]
            logits = model.lm_head(model.model(ids).last_hidden_state[0, -1])
            node = trie.walk(torch.tensor(tokens, dtype=torch.long))[-1]
            children = trie.children(node[None], len(tokens))
            allowed = children.tokens[0][children.mask[0]]
            for token, log_prob in zip(allowed.tolist(), logits[allowed].log_softmax(-1).tolist(), strict=True):
                candidates.append((score + log_prob, [*tokens, token]))
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * num_beams]
        for score, tokens in candidates[:num_beams]:
            if tokens[-1] == TERMINAL and is_open:
                finished.append((score / length**length_penalty, tokens))
        finished = sorted(finished, key=lambda candidate: -candidate[0])[:num_beams]
        running = [candidate for candidate in candidates if candidate[1][-1] != TERMINAL][:num_beams]
        is_open = is_open and len(running) > 0
        if is_open and len(finished) == num_beams:
            best_length = trie.max_depth if early_stopping == "never" and length_penalty > 0 else length
            can_improve = running[0][0] / best_length**length_penalty > finished[-1][0]
            is_open = can_improve and early_stopping is not True
        if not is_open:
            break
    return finished


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("num_beams", [1, 5])
@torch.no_grad()
def test_equals_the_slow_reference(make_model, prompts, title_trie, num_beams, length_penalty, early_stopping):
    model = make_model()
    settings = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    output = model.generate(*prompts, item_trie=title_trie, num_beams=num_beams, **settings)
    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        expected = reference_search(model, row[mask.bool()], title_trie, num_beams, **settings)
        mine = output.user_indices == user
        assert [row for _, row in listed(output.sequences[mine], output.user_indices[mine])] == [
            tokens for _, tokens in expected
        ]
        scores = torch.tensor([score for score, _ in expected])
        torch.testing.assert_close(output.sequences_scores[mine], scores, atol=1e-4, rtol=0)


@torch.no_grad()
def test_all_beams_list_the_whole_catalog(make_model, prompts, title_trie):
    output = make_model(num_thoughts=1).generate(*prompts, item_trie=title_trie, num_beams=200)
    assert output.user_indices.bincount().tolist() == [title_trie.num_items] * 3
    assert len({(user, tuple(row)) for user, row in listed(output.sequences, output.user_indices)}) == len(
        output.sequences
    )
    total = torch.zeros(3).index_add(0, output.user_indices, output.sequences_scores.exp())
    torch.testing.assert_close(total, torch.ones(3))


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_batched_equals_unbatched(make_model, prompts, title_trie, normalize):
    settings = {"item_trie": title_trie, "num_beams": 6, "normalize": normalize}
    assert_batched_equals_unbatched(make_model(num_thoughts=2), prompts, **settings)


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_sub_catalog_filters_the_full_ranking(make_model, prompts, title_trie, normalize):
    allowed = torch.rand(3, title_trie.num_items, generator=torch.Generator().manual_seed(1)) < 0.5
    assert_filters_the_full_ranking(make_model(num_thoughts=1), prompts, title_trie, normalize, allowed)


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@torch.no_grad()
def test_bfloat16(make_model, prompts, title_trie, attn, normalize):
    """Eight bits of mantissa: each score is near the one that scoring the same answer gives."""
    model = make_model(num_thoughts=2, attn=attn, dtype=torch.bfloat16)
    output = model.generate(*prompts, item_trie=title_trie, num_beams=6, normalize=normalize)
    assert output.user_indices.bincount().tolist() == [6, 6, 6]
    trie = title_trie if normalize == "catalog" else None
    rescored = model(*prompts, labels=output.sequences.view(3, 6, -1), item_trie=trie).logps.sum(-1)
    assert (rescored.flatten() - output.sequences_scores).abs().max() < 0.5


@torch.no_grad()
def test_forced_tokens_cost_no_pass(make_model, prompts, feeds):
    """Ten common tokens, one choice, ten more: one pass reads the first ten, the rest is never read. Nor is a title
    that has made its only choice at its first token."""
    passes, _ = feeds
    titles = [[*range(20, 30), choice, *range(30, 40), TERMINAL] for choice in (16, 17, 18)]
    trie = ItemTrie.from_sequences([*titles, [50, TERMINAL]])
    output = make_model().generate(*prompts, item_trie=trie, num_beams=64)
    assert len(output.sequences) == 12
    assert passes == [(3, 10)]


@torch.no_grad()
def test_memory_grows_with_living_branches(make_model, prompts, feeds):
    """A full binary tree: beams are pruned at every level, and others take their slots."""
    passes, sizes = feeds
    titles = list(itertools.product([16, 17], repeat=12))
    trie = ItemTrie.from_sequences([*titles, [50, TERMINAL]])
    make_model().generate(*prompts, item_trie=trie, num_beams=64)
    num_opened = sum(Q for _, Q in passes)
    assert sizes[-1] < 0.6 * num_opened
