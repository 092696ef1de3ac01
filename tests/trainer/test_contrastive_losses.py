"""InfoNCE against double loops."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.trainer.contrastive_losses import GlobalSamples, contrast, info_nce
from tests.models.lares import written_out


def cosine(rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([row / row.square().sum().sqrt() for row in rows])


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_info_nce_and_its_gradients(similarity, temperature):
    first, second = (torch.randn(5, 3, requires_grad=True) for _ in range(2))
    views = (cosine(first), cosine(second)) if similarity == "cosine" else (first, second)
    losses, expected = info_nce(first, second, temperature, similarity), written_out.info_nce(*views, temperature)
    assert losses.shape == (5,)
    torch.testing.assert_close(losses.sum(), expected)
    for found, wanted in zip(
        torch.autograd.grad(losses.sum(), (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_losses_are_those_of_the_samples():
    """Two alike views that differ from all others cost nothing; a sample whose views differ costs."""
    first = 10 * torch.eye(4)
    second = first.clone()
    second[2] = 0
    losses = info_nce(first, second)
    assert losses[[0, 1, 3]].max() < 1e-2 < 1 < losses[2]


def test_one_sample_has_nothing_to_be_confused_with():
    assert info_nce(torch.randn(1, 3), torch.randn(1, 3)).tolist() == [0]


def test_samples_of_a_user_are_no_negatives_of_each_other():
    first, second = torch.randn(2, 5, 3)
    users = torch.tensor([7, 3, 7, 7, 0])
    samples = GlobalSamples(users)
    losses = info_nce(first, second, samples=samples)
    torch.testing.assert_close(losses.sum(), written_out.info_nce(first, second, users=users.tolist()))
    assert (losses[[0, 2, 3]] < info_nce(first, second)[[0, 2, 3]]).all()
    torch.testing.assert_close(losses[[1, 4]], info_nce(first, second)[[1, 4]])
    there, back = contrast(first, second, samples), contrast(second, first, samples)
    torch.testing.assert_close((there + back) / 2, losses)


@pytest.mark.parametrize("users", [None, [7, 3, 7, 7, 0]])
def test_negatives_of_both_views(users):
    first, second = torch.randn(2, 5, 3)
    samples = None if users is None else GlobalSamples(torch.tensor(users))
    found = info_nce(first, second, 0.5, samples=samples, within_views=True).sum()
    torch.testing.assert_close(found, written_out.info_nce(first, second, 0.5, users, within_views=True))


def test_half_precision_is_compared_in_float32():
    first, second = torch.randn(2, 5, 3).bfloat16()
    losses = info_nce(first, second)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, info_nce(first.float(), second.float()))


def test_a_state_finds_its_counterpart_in_one_direction():
    states, counterparts = torch.randn(2, 5, 3)
    losses = contrast(states, counterparts)
    for row, state in enumerate(states):
        scores = torch.stack([state @ other for other in counterparts])
        torch.testing.assert_close(losses[row], -scores.log_softmax(0)[row])


def test_an_unknown_similarity():
    with pytest.raises(ValueError, match="similarity is 'euclid'; choose one of"):
        info_nce(torch.randn(2, 3), torch.randn(2, 3), similarity="euclid")


def test_a_batch_that_does_not_say_whose_its_samples_are():
    with pytest.raises(ValueError, match="has no sample_users; let the collator add them"):
        info_nce(torch.randn(2, 3), torch.randn(2, 3), samples=GlobalSamples(None))
