"""Rollouts of a whole batch against one history, one rollout and one step at a time."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.models.lares import item_scores
from hf_latentrec.models.lares.rollouts import IGNORE_INDEX


NUM_ITEMS, NUM_ROLLOUTS, NUM_STEPS = 12, 3, 4
# Two rows; the second holds two histories, and padding.
INPUT_IDS = torch.tensor([[3, 7, 1, 12, 5, 2], [9, 4, 6, 8, 11, 0]])
POSITION_IDS = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]])
LABELS = torch.tensor([[IGNORE_INDEX, 1, 12, 5, IGNORE_INDEX, 8], [4, 6, IGNORE_INDEX, 11, 10, IGNORE_INDEX]])
# Row, position and start of the history, in the order of the labels.
SAMPLES = [(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 5, 0), (1, 0, 0), (1, 1, 0), (1, 3, 3), (1, 4, 3)]


@pytest.fixture
def model():
    config = LaresConfig(
        num_items=NUM_ITEMS, hidden_size=16, intermediate_size=32, max_history=6, mean_steps=2, initializer_range=0.5,
        dropout=0.5, attention_dropout=0.5,
    )  # fmt: skip
    return LaresForSequentialRecommendation(config).eval()


@pytest.fixture
def states():
    return 3 * torch.randn(2, NUM_ROLLOUTS, 6, 16)


@pytest.fixture
def batch(states):
    return {
        "input_ids": INPUT_IDS, "position_ids": POSITION_IDS, "labels": LABELS, "rollout_states": states,
        "num_steps": NUM_STEPS,
    }  # fmt: skip


def loop_scores(model, states) -> list[list[list[torch.Tensor]]]:
    """Scores [I] of every item, by sample, rollout and step: each in a pass of its own over its history alone."""
    return [
        [
            [
                model(
                    INPUT_IDS[row : row + 1, start : place + 1],
                    initial_state=states[row : row + 1, rollout, start : place + 1],
                    num_steps=step + 1,
                ).logits[0]
                for step in range(NUM_STEPS)
            ]
            for rollout in range(NUM_ROLLOUTS)
        ]
        for row, place, start in SAMPLES
    ]


def rank(scores: torch.Tensor, item: int) -> int:
    return sorted(range(len(scores)), key=lambda other: (-scores[other].item(), other)).index(item) + 1


def test_log_probabilities_equal_the_loop(model, batch, states):
    items = torch.randint(NUM_ITEMS, (len(SAMPLES), NUM_ROLLOUTS, NUM_STEPS))
    logps = model(**batch, judged_items=items).logps
    for by_rollout, of_sample, judged in zip(loop_scores(model, states), logps, items, strict=True):
        for by_step, of_rollout, row in zip(by_rollout, of_sample, judged, strict=True):
            expected = [scores.log_softmax(-1)[item] for scores, item in zip(by_step, row.tolist(), strict=True)]
            torch.testing.assert_close(of_rollout, torch.stack(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rows_at_once", [1, 4, 1000])
@pytest.mark.parametrize("policy", ["target", "hybrid", "top"])
def test_ranks_and_top_items_equal_the_loop(model, batch, states, policy, rows_at_once, monkeypatch):
    monkeypatch.setattr(item_scores, "LEAST_ROWS", 1)
    monkeypatch.setattr(item_scores, "CACHED_SCORES", rows_at_once * NUM_ITEMS)
    output = model(**batch, policy=policy)
    assert output.logps is None and (output.top_items is None) == (policy == "target")
    targets = [int(LABELS[row, place]) - 1 for row, place, _ in SAMPLES]
    num_negatives = 0
    for sample, (by_rollout, target) in enumerate(zip(loop_scores(model, states), targets, strict=True)):
        for rollout, by_step in enumerate(by_rollout):
            assert output.ranks[sample, rollout] == rank(by_step[-1], target)
            if policy == "top":
                expected = [int(scores.argmax()) for scores in by_step]
                assert output.top_items[sample, rollout].tolist() == expected
            elif policy == "hybrid":
                best = by_step[-1].argsort(descending=True).tolist()
                negative = best[1] if best[0] == target else best[0]
                num_negatives += best[0] == target
                assert output.top_items[sample, rollout].tolist() == [negative] * NUM_STEPS
    assert policy != "hybrid" or 0 < num_negatives < len(SAMPLES) * NUM_ROLLOUTS


def test_items_that_are_not_recommended_have_no_rank(model, batch):
    popularity = [0 if item == 5 else 1 for item in range(NUM_ITEMS)]  # a target
    ranks = model(**batch).ranks
    model.items = ItemTable([f"i{item}" for item in range(NUM_ITEMS)], popularity=popularity)
    output = model(**batch, policy="top")
    targets = LABELS[LABELS != IGNORE_INDEX] - 1
    assert (output.ranks[targets == 5] == 0).all() and (output.ranks[targets != 5] > 0).all()
    assert (output.ranks <= ranks).all() and (output.top_items != 5).all()


def test_gradients_are_those_of_the_loop(model, batch, states):
    targets = (LABELS[LABELS != IGNORE_INDEX] - 1)[:, None, None].expand(-1, NUM_ROLLOUTS, NUM_STEPS)
    weights = torch.randn(len(SAMPLES), NUM_ROLLOUTS, NUM_STEPS)
    (model(**batch, judged_items=targets).logps * weights).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss = sum(
        (scores.log_softmax(-1)[target] * weight)
        for by_rollout, target, by_sample in zip(
            loop_scores(model, states), targets[:, 0, 0].tolist(), weights, strict=True
        )
        for by_step, by_weight in zip(by_rollout, by_sample, strict=True)
        for scores, weight in zip(by_step, by_weight, strict=True)
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert found[name].abs().max() > 0
        torch.testing.assert_close(found[name], parameter.grad, atol=2e-4, rtol=1e-4, msg=name)


def test_the_pre_block_runs_once(model, batch):
    calls = []
    model.model.pre_block.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    model(**batch)
    assert calls == [(2, 6, 16)]
