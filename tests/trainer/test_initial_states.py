"""States that belong to an item: any batch gives the same, and they are distributed as the model's own."""

from __future__ import annotations

import numpy as np
import torch

from hf_latentrec import LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.data import NumberedCollator
from hf_latentrec.trainer.initial_states import initial_states
from tests.trainer.lares_toys import make_toy


SETTINGS = {"num_items": 9, "hidden_size": 8, "max_history": 5, "initial_std": 0.5, "initial_scale": 4.0}
MODEL = LaresForSequentialRecommendation(LaresConfig(**SETTINGS))


def test_distribution():
    states = initial_states(torch.arange(1, 4001).view(40, 100), 5, MODEL, key=3)
    assert states.shape == (40, 5, 100, 8) and states.dtype == torch.float32
    assert states.abs().max() <= 6.0 and abs(float(states.mean())) < 0.01
    assert abs(float(states.std()) - 0.9866 * 2.0) < 0.01  # a normal cut at 3 standard deviations
    flat = states.transpose(1, 2).reshape(4000, 40)
    correlation = np.corrcoef(flat.T.numpy()) - np.eye(40)
    assert np.abs(correlation).max() < 0.08  # rollouts and dimensions are independent


def test_key_stream_and_item_tell_states_apart():
    tokens = torch.tensor([[1, 2]])
    states = initial_states(tokens, 2, MODEL, key=3)
    torch.testing.assert_close(states, initial_states(tokens, 2, MODEL, key=3))
    for other in (
        initial_states(tokens, 2, MODEL, key=4), initial_states(tokens, 2, MODEL, key=3, stream=1), states.flip(2),
        states.flip(1),
    ):  # fmt: skip
        assert not torch.isclose(states, other).any()


def test_a_window_has_a_state_for_each_slot():
    model = LaresForSequentialRecommendation(LaresConfig(**SETTINGS, backbone="fmlp"))
    states = initial_states(torch.tensor([[6, 7, 0], [11, 12, 13]]), 2, model, key=3)
    assert states.shape == (2, 2, 5, 8)
    assert len(states.flatten(0, 2).unique(dim=0)) == 2 * 2 * 5
    torch.testing.assert_close(states[0, :, :2], initial_states(torch.tensor([[6, 7]]), 2, MODEL, key=3)[0])


def test_any_batch_gives_the_same():
    dataset = make_toy().dataset
    collate = NumberedCollator(dataset)

    def by_token(batch):
        states = initial_states(batch["token_ids"], 2, MODEL, key=7).transpose(1, 2)
        is_item = batch["token_ids"] > 0
        assert (is_item == (batch["input_ids"] > 0)).all()
        numbers = batch["token_ids"][is_item].tolist()
        assert len(set(numbers)) == len(numbers)
        return dict(zip(numbers, states[is_item], strict=True))

    together = by_token(collate([dataset[row] for row in range(len(dataset))]))
    apart = {}
    for row in range(len(dataset)):
        apart |= by_token(collate([dataset[row]]))
    assert together.keys() == apart.keys()
    assert all(torch.equal(together[number], apart[number]) for number in apart)
