"""The trie constraint in plain `generate`, against scoring every item by itself."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.latent_reasoning.logits_process import ItemTrieLogitsProcessor


EOS, PAD = 0, 1
FIXED = [[5, 20], [5, 21], [6, 20], [7, 22], [7, 23], [6, 24]]
TITLES = [[5, EOS], [5, 6, EOS], [7, EOS], [7, 8, 9, EOS], [7, 8, EOS]]
PROMPTS = torch.tensor([[3, 4, 11], [12, 10, 9]])
NEG_INF = float("-inf")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        pad_token_id=PAD,
        eos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


@torch.no_grad()
def score(model, prompt: torch.Tensor, item: list[int], catalog: list[list[int]], normalize: str) -> float:
    """Log-probability of one item, token by token."""
    total, ids = 0.0, prompt.tolist()
    for depth, token in enumerate(item):
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        if normalize == "catalog":
            allowed = sorted({other[depth] for other in catalog if other[:depth] == item[:depth]})
            logits = torch.full_like(logits, NEG_INF).index_copy(0, torch.tensor(allowed), logits[allowed])
        total += float(logits.log_softmax(-1)[token])
        ids.append(token)
    return total


def generate(model, trie, num_beams, normalize="vocabulary", allowed_items=None, seen_items=None, eos=None):
    processor = ItemTrieLogitsProcessor(trie, PROMPTS.shape[1], num_beams, eos, allowed_items, seen_items)
    return model.generate(
        PROMPTS,
        attention_mask=torch.ones_like(PROMPTS),
        logits_processor=[processor],
        renormalize_logits=normalize == "catalog",
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=trie.max_depth,
        length_penalty=0.0,
        do_sample=False,
        eos_token_id=eos,
        return_dict_in_generate=True,
        output_scores=True,
    )


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_beam_search_ranks_the_catalog(model, normalize):
    num_beams = len(FIXED)
    output = generate(model, ItemTrie.from_sequences(FIXED), num_beams, normalize)
    for row, prompt in enumerate(PROMPTS):
        expected = sorted(((score(model, prompt, item, FIXED, normalize), item) for item in FIXED), reverse=True)
        own = slice(row * num_beams, (row + 1) * num_beams)
        assert output.sequences[own, PROMPTS.shape[1] :].tolist() == [item for _, item in expected]
        torch.testing.assert_close(
            output.sequences_scores[own], torch.tensor([s for s, _ in expected]), atol=1e-4, rtol=0
        )


def test_items_of_different_length_end_in_eos(model):
    output = generate(model, ItemTrie.from_sequences(TITLES), len(TITLES), eos=EOS)
    for row, prompt in enumerate(PROMPTS):
        expected = sorted(((score(model, prompt, i, TITLES, "vocabulary"), i) for i in TITLES), reverse=True)
        own = slice(row * len(TITLES), (row + 1) * len(TITLES))
        answers = [[t for t in answer if t != PAD] for answer in output.sequences[own, PROMPTS.shape[1] :].tolist()]
        assert answers == [item for _, item in expected]


@pytest.mark.parametrize(
    "left, sub_catalog",
    [
        ([[0, 3, 5], [1, 2, 4]], {"allowed_items": torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]]).bool()}),
        ([[0, 3, 5], [1, 2, 4]], {"seen_items": torch.tensor([[1, 4, 2, -1], [0, 3, 5, 3]])}),
        (
            [[0, 3, 5], [2, 4, 5]],
            {
                "allowed_items": torch.tensor([1, 0, 1, 1, 1, 1]).bool(),
                "seen_items": torch.tensor([[2, 4, 1], [0, 3, -1]]),
            },
        ),
    ],
)
def test_sub_catalogs_per_prompt(model, left, sub_catalog):
    """The three items that are left to each prompt, with the scores that they have among all."""
    output = generate(model, ItemTrie.from_sequences(FIXED), num_beams=3, **sub_catalog)
    answers = output.sequences[:, PROMPTS.shape[1] :].tolist()
    for row, items in enumerate(left):
        own = slice(row * 3, row * 3 + 3)
        scores = {tuple(FIXED[i]): score(model, PROMPTS[row], FIXED[i], FIXED, "vocabulary") for i in items}
        assert [tuple(answer) for answer in answers[own]] == sorted(scores, key=scores.get, reverse=True)
        torch.testing.assert_close(
            output.sequences_scores[own].tolist(), sorted(scores.values(), reverse=True), atol=1e-4, rtol=0
        )


def test_one_mask_for_all_prompts_serves_any_number_of_them():
    in_stock = torch.tensor([0, 0, 1, 1, 0, 0]).bool()
    processor = ItemTrieLogitsProcessor(ItemTrie.from_sequences(FIXED), 1, allowed_items=in_stock)
    for num_prompts in (2, 1, 3):
        scores = processor(torch.full((num_prompts, 1), 3), torch.zeros(num_prompts, 32))
        assert [row.isfinite().nonzero().flatten().tolist() for row in scores] == [[6, 7]] * num_prompts


def test_one_allowed_token_per_row_keeps_its_score():
    trie = ItemTrie.from_sequences(FIXED)
    scores = torch.randn(3, 32)
    output = ItemTrieLogitsProcessor(trie, prompt_length=1)(torch.tensor([[9, 5], [9, 6], [9, 7]]), scores)
    for row, tokens in enumerate([[20, 21], [20, 24], [22, 23]]):
        assert output[row].isfinite().nonzero().flatten().tolist() == tokens
        assert output[row, tokens].equal(scores[row, tokens])


def test_it_is_stateless():
    processor = ItemTrieLogitsProcessor(ItemTrie.from_sequences(FIXED), prompt_length=1)
    second, first = torch.tensor([[9, 5]]), torch.tensor([[9]])
    expected = [processor(ids, torch.zeros(1, 32)) for ids in (first, second)]
    assert processor(second, torch.zeros(1, 32)).equal(expected[1])
    assert processor(first, torch.zeros(1, 32)).equal(expected[0])


def test_a_finished_or_dead_row_may_only_end():
    processor = ItemTrieLogitsProcessor(ItemTrie.from_sequences(TITLES), 0, num_beams=2, eos_token_id=EOS)
    finished_then_padded, alive, dead = [5, EOS, PAD], [7, 8, 9], [9, 9, 9]
    scores = processor(torch.tensor([finished_then_padded, dead, alive, dead]), torch.zeros(4, 32))
    assert [row.isfinite().nonzero().flatten().tolist() for row in scores] == [[EOS]] * 4
    longer_than_any_item = torch.tensor([[5, EOS, PAD, PAD, PAD, PAD]] * 2)
    assert processor(longer_than_any_item, torch.zeros(2, 32)).isfinite().sum() == 2


def test_unsatisfiable_prefixes_are_loud():
    trie = ItemTrie.from_sequences(FIXED)
    with pytest.raises(ValueError, match=r"answer \[9\] of row 1 leads to no \(allowed\) item"):
        ItemTrieLogitsProcessor(trie, 1)(torch.tensor([[3, 5], [3, 9]]), torch.zeros(2, 32))
    with pytest.raises(ValueError, match=r"\[5, 20\] of row 0 is a whole item; .* max_new_tokens=2"):
        ItemTrieLogitsProcessor(trie, 0)(torch.tensor([[5, 20]]), torch.zeros(1, 32))
    with pytest.raises(ValueError, match=r"begins with the answer \[9\] of prompt 1; check prompt_length=0"):
        processor = ItemTrieLogitsProcessor(trie, 0, num_beams=2, eos_token_id=EOS)
        processor(torch.tensor([[5], [9], [9], [9]]), torch.zeros(4, 32))
    nothing = torch.zeros(1, len(FIXED), dtype=torch.bool)
    with pytest.raises(ValueError, match=r"answer \[\] of row 0 leads to no \(allowed\) item"):
        ItemTrieLogitsProcessor(trie, 1, allowed_items=nothing)(torch.tensor([[3]]), torch.zeros(1, 32))
    with pytest.raises(ValueError, match=r"allowed_items .* shape \(1, 6\); .* \(2, 6\) for each"):
        ItemTrieLogitsProcessor(trie, 1, allowed_items=~nothing)(torch.tensor([[3], [3]]), torch.zeros(2, 32))
