"""Losses and ranks over a catalog in chunks, against all scores at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_latentrec.models.lares import item_scores
from hf_latentrec.models.lares.item_scores import (
    exact_scores,
    item_blocks,
    item_cross_entropy,
    item_log_probs,
    ranks_of,
    row_chunks,
    top_items,
)


NUM_STATES, NUM_ITEMS, HIDDEN = 7, 11, 5
CHUNKS = [1, 2 * NUM_ITEMS, 2**22]  # one state, two states (the last chunk is one), all at once


def make_inputs(with_bias: bool) -> list[torch.Tensor]:
    tensors = [torch.randn(NUM_STATES, HIDDEN), torch.randn(NUM_ITEMS, HIDDEN)]
    if with_bias:
        tensors.append(torch.randn(NUM_ITEMS))
    return [(3 * tensor).requires_grad_() for tensor in tensors]


TARGETS = torch.tensor([0, 10, 3, 3, 3, 7, 1])  # the first, the last, and one several times


def expected_losses(states, items, bias=None) -> torch.Tensor:
    scores = states @ items.T
    return F.cross_entropy(scores if bias is None else scores + bias, TARGETS, reduction="none")


def check_gradients(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    expected = torch.autograd.grad(theirs, inputs)
    for found, wanted in zip(torch.autograd.grad(ours, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_cross_entropy_and_its_gradients(monkeypatch, chunk, with_bias):
    monkeypatch.setattr(item_scores, "CACHED_SCORES", chunk)
    monkeypatch.setattr(item_scores, "LEAST_ROWS", 1)
    states, items, *bias = inputs = make_inputs(with_bias)
    loss, expected = item_cross_entropy(states, items, TARGETS, *bias), expected_losses(*inputs).sum()
    torch.testing.assert_close(loss, expected)
    check_gradients(2.5 * loss, 2.5 * expected, inputs)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_log_probs_and_their_gradients(monkeypatch, chunk, with_bias):
    monkeypatch.setattr(item_scores, "CACHED_SCORES", chunk)
    monkeypatch.setattr(item_scores, "LEAST_ROWS", 1)
    states, items, *bias = inputs = make_inputs(with_bias)
    log_probs, expected = item_log_probs(states, items, TARGETS, *bias), -expected_losses(*inputs)
    torch.testing.assert_close(log_probs, expected)
    weights = torch.randn(NUM_STATES)
    check_gradients(log_probs @ weights, expected @ weights, inputs)


def test_large_scores_do_not_overflow():
    states, items = 100 * torch.randn(NUM_STATES, HIDDEN), 100 * torch.randn(NUM_ITEMS, HIDDEN)
    expected = expected_losses(states, items)
    torch.testing.assert_close(item_cross_entropy(states, items, TARGETS), expected.sum())
    torch.testing.assert_close(item_log_probs(states, items, TARGETS), -expected)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("function", [item_cross_entropy, item_log_probs])
def test_half_precision_is_summed_in_float32(function, with_bias):
    states, items, *bias = inputs = [tensor.detach().bfloat16().requires_grad_() for tensor in make_inputs(with_bias)]
    result = function(states, items, TARGETS, *bias).sum()
    assert result.dtype == torch.float32
    expected = expected_losses(*(tensor.float() for tensor in inputs)).sum()
    torch.testing.assert_close(result.abs(), expected)
    for found, wanted in zip(torch.autograd.grad(result, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.abs(), wanted.abs())


@pytest.mark.parametrize("function", [item_cross_entropy, item_log_probs])
def test_autocast_changes_nothing(function):
    inputs = make_inputs(False)
    plain = function(*inputs, TARGETS).sum()
    with torch.autocast("cpu", torch.bfloat16):
        cast = function(*inputs, TARGETS).sum()
    torch.testing.assert_close(cast, plain)
    for found, wanted in zip(torch.autograd.grad(cast, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_loss_without_gradients_makes_none(monkeypatch):
    states, items = make_inputs(False)
    expected = item_cross_entropy(states, items, TARGETS)
    monkeypatch.setattr(item_scores, "_Gradients", None)
    with torch.no_grad():
        torch.testing.assert_close(item_cross_entropy(states, items, TARGETS), expected.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_not_rounded_under_autocast(dtype):
    states, items = (tensor.detach().to(dtype) for tensor in make_inputs(False))
    with torch.autocast("cpu", torch.bfloat16):
        found = exact_scores(states, items)
    torch.testing.assert_close(found, states.float() @ items.float().T)


@pytest.mark.parametrize("function", [item_cross_entropy, item_log_probs])
def test_nothing_of_the_size_of_all_scores_is_kept(function):
    sizes = []
    states, items = torch.randn(60, 2, requires_grad=True), torch.randn(50, 2, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda x: x):
        function(states, items, torch.zeros(60, dtype=torch.long))
    assert sizes and max(sizes) < 60 * 50 / 10


def test_no_states_give_no_loss():
    items = torch.randn(NUM_ITEMS, HIDDEN, requires_grad=True)
    loss = item_cross_entropy(torch.empty(0, HIDDEN), items, torch.empty(0, dtype=torch.long))
    assert loss == 0 and not torch.autograd.grad(loss, items)[0].any()


@pytest.fixture
def scores() -> torch.Tensor:
    """Many ties; some items that may not be recommended; a row where none may."""
    scores = torch.randint(0, 4, (6, 13)).float()
    scores[torch.rand(6, 13) < 0.3] = -torch.inf
    scores[5] = -torch.inf
    return scores


def best_first(row: torch.Tensor) -> list[int]:
    return sorted(range(len(row)), key=lambda item: (-row[item].item(), item))


@pytest.mark.parametrize("block_size", [1, 3, 13, 100, None])
@pytest.mark.parametrize("k", [1, 4, 13, 20])
def test_top_items_by_blocks(scores, k, block_size):
    found_scores, found = top_items(lambda block: scores[:, block], 6, 13, k, block_size)
    assert found.tolist() == [best_first(row)[:k] for row in scores]
    assert torch.equal(found_scores, scores.gather(1, found))


@pytest.mark.parametrize("block_size", [1, 3, 13, 100, None])
def test_ranks_by_blocks(scores, block_size):
    for target in range(13):
        targets = torch.full((6,), target)
        found = ranks_of(lambda block: scores[:, block], targets, 13, block_size).tolist()
        expected = [0 if row[target] == -torch.inf else 1 + best_first(row).index(target) for row in scores]
        assert found == expected


@pytest.mark.parametrize("block_size", [2, None])
def test_a_target_without_a_score_has_no_rank(block_size):
    scores = torch.tensor([[0.5, torch.nan, 0.1], [0.5, -torch.inf, 0.1]])
    assert ranks_of(lambda block: scores[:, block], torch.tensor([1, 1]), 3, block_size).tolist() == [0, 0]


def test_blocks_cover_the_catalog():
    assert item_blocks(4, 7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert item_blocks(2, 2 * item_scores.BLOCK_SCORES) == [
        slice(start, start + item_scores.BLOCK_SCORES // 2)
        for start in range(0, 2 * item_scores.BLOCK_SCORES, item_scores.BLOCK_SCORES // 2)
    ]
    with pytest.raises(ValueError, match="block_size is 0; pass a positive number"):
        item_blocks(4, 7, 0)


@pytest.mark.parametrize(
    ("num_rows", "num_items", "device", "sizes"),
    [
        (200, 2**14, "cpu", [64, 64, 64, 8]),
        (64, 2**14, "cpu", [64]),
        (200, 2**15, "cpu", [32] * 6 + [8]),
        (200, 2**15 + 1, "cpu", [200]),  # fewer than 32 rows would be in the cache
        (200, 2**14, "cuda", [200]),
        (0, 2**14, "cpu", [0]),
        (0, 2**20, "cpu", [0]),
    ],
)
def test_chunks_of_rows(num_rows, num_items, device, sizes):
    chunks = row_chunks(num_rows, num_items, torch.device(device))
    assert [chunk.stop - chunk.start for chunk in chunks] == sizes
    assert chunks[0].start == 0 and chunks[-1].stop == num_rows
    assert all(before.stop == after.start for before, after in zip(chunks, chunks[1:], strict=False))
