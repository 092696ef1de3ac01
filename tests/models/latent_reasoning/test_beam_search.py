"""Tree beam search against plain `generate` of transformers, exhaustive scoring and its own promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_latentrec.models.latent_reasoning import answer_scores, branch_decoder
from hf_latentrec.models.latent_reasoning.beam_search import beam_search
from hf_latentrec.models.latent_reasoning.branch_cache import BranchCache
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.latent_reasoning.sub_catalog import SubCatalog

from .conftest import SIZES, VOCAB_SIZE
from .plain_search import plain_beam_search
from .search_checks import assert_batched_equals_unbatched, assert_filters_the_full_ranking


NUM_BEAMS = 10


@pytest.mark.parametrize("num_thoughts", [0, 3])
@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_equals_plain_generate(make_model, make_plain, prompts, catalog_trie, family, attn, normalize, num_thoughts):
    model = make_model(family, num_thoughts, attn)
    ours = model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, normalize=normalize)
    sequences, scores = plain_beam_search(make_plain(model, family), prompts, catalog_trie, num_thoughts, normalize)
    assert torch.equal(ours.sequences, sequences)
    torch.testing.assert_close(ours.sequences_scores, scores, atol=1e-4, rtol=0)


@torch.no_grad()
def test_allowed_items_equal_plain_generate(make_model, make_plain, prompts, catalog_trie):
    model = make_model(num_thoughts=1)
    allowed = torch.rand(3, catalog_trie.num_items, generator=torch.Generator().manual_seed(1)) < 0.5
    ours = model.generate(
        *prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, normalize="vocabulary", allowed_items=allowed
    )
    sequences, scores = plain_beam_search(
        make_plain(model), prompts, catalog_trie, 1, "vocabulary", sub_catalog={"allowed_items": allowed}
    )
    assert torch.equal(ours.sequences, sequences)
    torch.testing.assert_close(ours.sequences_scores, scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@torch.no_grad()
def test_equals_plain_generate_in_bfloat16(make_model, make_plain, prompts, catalog_trie, family, attn, normalize):
    """Eight bits of mantissa: near ties may swap, so the beams are compared as sets, and the scores they share."""
    model = make_model(family, 3, attn, torch.bfloat16)
    ours = model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, normalize=normalize)
    sequences, scores = plain_beam_search(make_plain(model, family), prompts, catalog_trie, 3, normalize)
    for b in range(3):
        rows = slice(b * NUM_BEAMS, (b + 1) * NUM_BEAMS)
        mine = dict(zip(map(tuple, ours.sequences[rows].tolist()), ours.sequences_scores[rows].tolist(), strict=True))
        plain = dict(zip(map(tuple, sequences[rows].tolist()), scores[rows].tolist(), strict=True))
        shared = mine.keys() & plain.keys()
        assert len(shared) >= 0.7 * NUM_BEAMS
        assert all(abs(mine[s] - plain[s]) < 0.25 for s in shared)


@pytest.mark.parametrize("num_thoughts", [0, 2])
@torch.no_grad()
def test_all_beams_list_the_whole_catalog(make_model, prompts, catalog_trie, num_thoughts):
    """More beams than items: every item once, finite, best first, and the probabilities sum to one."""
    model = make_model(num_thoughts=num_thoughts)
    output = model.generate(*prompts, item_trie=catalog_trie, num_beams=500)
    num_items = catalog_trie.num_items
    assert output.sequences.shape == (3 * num_items, 3)
    scores = output.sequences_scores.view(3, num_items)
    assert scores.isfinite().all()
    assert (scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    sequences = output.sequences.view(3, num_items, 3)
    assert all(len(rows.unique(dim=0)) == num_items for rows in sequences)
    rescored = model(*prompts, labels=sequences, item_trie=catalog_trie).logps.sum(-1)
    torch.testing.assert_close(scores, rescored, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_batched_equals_unbatched(make_model, prompts, catalog_trie):
    assert_batched_equals_unbatched(make_model(num_thoughts=2), prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS)


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_allowed_items_filter_the_full_ranking(make_model, prompts, catalog_trie, normalize):
    """Each prompt has its own sub-catalog, the last one smaller than the number of beams."""
    model = make_model(num_thoughts=1)
    num_items = catalog_trie.num_items
    allowed = torch.rand(3, num_items, generator=torch.Generator().manual_seed(1)) < 0.5
    allowed[2] = False
    allowed[2, :4] = True
    assert_filters_the_full_ranking(model, prompts, catalog_trie, normalize, allowed)
    settings = {"item_trie": catalog_trie, "num_beams": NUM_BEAMS, "normalize": normalize}
    fewer = model.generate(*prompts, **settings, allowed_items=allowed)
    assert fewer.user_indices.bincount().tolist() == [NUM_BEAMS, NUM_BEAMS, 4]


@torch.no_grad()
def test_prompt_is_encoded_once_and_never_repeated(make_model, prompts, catalog_trie, monkeypatch):
    model = make_model(num_thoughts=2)
    shapes = []
    forward = type(model.model).forward

    def counting(self, *args, inputs_embeds, **kwargs):
        shapes.append(tuple(inputs_embeds.shape[:2]))
        return forward(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", counting)
    model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS)
    first_level = len(catalog_trie.tokens_at(0))
    # prompt and <s>; a thought; the last thought with <e>; one token per beam and further level
    assert shapes == [(3, 8), (3, 1), (3, 2), (3, min(NUM_BEAMS, first_level)), (3, NUM_BEAMS)]


@torch.no_grad()
def test_return_fewer_and_length_penalty(make_model, prompts, catalog_trie):
    model = make_model()
    full = model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS)
    some = model.generate(
        *prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, num_return_sequences=4, length_penalty=1.0
    )
    assert torch.equal(some.sequences, full.sequences.view(3, NUM_BEAMS, 3)[:, :4].flatten(0, 1))
    torch.testing.assert_close(some.sequences_scores, full.sequences_scores.view(3, -1)[:, :4].flatten() / 3)
    forced = model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, num_thoughts=2)
    assert forced.num_thoughts.tolist() == [2, 2, 2]
    assert not torch.equal(forced.sequences_scores, full.sequences_scores)


class OperationLog(TorchDispatchMode):
    """Names and output shapes of all operations."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        shapes = [tuple(tensor.shape) for tensor in tree_leaves(output) if isinstance(tensor, torch.Tensor)]
        masks = [arg for arg in tree_leaves(args) if isinstance(arg, torch.Tensor) and arg.dtype == torch.bool]
        name = func.overloadpacket.__name__
        self.calls.append(("index by mask" if name == "index" and masks else name, shapes))
        return output


@pytest.fixture
def log_of_search(make_model, prompts, catalog_trie):
    """`log_of_search(normalize)`: the operations of a beam search, the prompt and the thoughts left out."""

    def run(normalize):
        model = make_model(num_thoughts=1)
        cache = BranchCache(model.config.num_hidden_layers, 40)
        state = model.think(model.encode(*prompts, open_thoughts=True, cache=cache))
        sub_catalog = SubCatalog(catalog_trie, 3, seen_items=torch.tensor([[0, 1], [2, -1], [-1, -1]]))
        with OperationLog() as log:
            beams = beam_search(model, state, catalog_trie, NUM_BEAMS, normalize, sub_catalog)
        assert beams.scores_BK.isfinite().all()
        return log.calls

    return run


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_no_step_waits_for_the_device(log_of_search, normalize):
    waits = {"_local_scalar_dense", "nonzero", "masked_select", "index by mask", "equal", "is_nonzero"}
    assert not waits & {name for name, _ in log_of_search(normalize)}


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@torch.no_grad()
def test_logits_of_all_beams_never_exist(log_of_search, normalize, monkeypatch):
    """Neither [B, K, V] nor anything as large."""
    monkeypatch.setattr(answer_scores, "LOGITS_AT_ONCE", 3 * NUM_BEAMS * VOCAB_SIZE // 4)
    shapes = [shape for _, shapes in log_of_search(normalize) for shape in shapes if shape[-1:] == (VOCAB_SIZE,)]
    views_of_the_weights = {(SIZES["hidden_size"], VOCAB_SIZE)}
    assert all(math.prod(shape[:-1]) < 3 * NUM_BEAMS for shape in set(shapes) - views_of_the_weights)


@torch.no_grad()
def test_compiled_steps_share_one_graph(make_model, prompts, catalog_trie, monkeypatch):
    """Fixed shapes: two searches of two steps each compile the backbone once, and find the same."""
    torch._dynamo.reset()
    counter = CompileCounter()  # runs the traced graph as it is, so that the test needs no compiler
    compiled = torch.compile(branch_decoder._forward, backend=counter, dynamic=False, fullgraph=True)
    monkeypatch.setattr(branch_decoder, "_compiled_forward", lambda: compiled)
    model = make_model(num_thoughts=1)
    settings = {"item_trie": catalog_trie, "num_beams": len(catalog_trie.tokens_at(0))}
    expected = model.generate(*prompts, **settings)
    for _ in range(2):
        output = model.generate(*prompts, **settings, compile=True)
        assert torch.equal(output.sequences, expected.sequences)
        torch.testing.assert_close(output.sequences_scores, expected.sequences_scores)
    assert counter.frame_count == 1


def test_bad_settings_are_named(make_model, prompts, catalog_trie):
    model = make_model()
    for settings, message in [
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3"),
        ({"normalize": "items"}, "normalize is 'items'"),
        ({"num_thoughts": -1}, "num_thoughts is -1"),
        ({"allowed_items": torch.zeros(3, catalog_trie.num_items, dtype=torch.bool)}, "prompt\\(s\\) \\[0, 1, 2\\]"),
        ({"item_trie": ItemTrie.from_sequences([[1, 2], [3, 1000]])}, "token 1000"),
        ({"item_trie": ItemTrie.from_sequences([[1, 2], [3]]), "compile": True}, "different lengths"),
        ({"early_stopping": "always"}, "early_stopping is 'always'"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.generate(*prompts, **{"item_trie": catalog_trie, **settings})
