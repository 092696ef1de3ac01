"""LARES against Eq. 5 written out, its random states, and its number of steps."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec import LaresForSequentialRecommendation
from hf_latentrec.models.lares.configuration_lares import AGGREGATIONS
from tests.models.lares.toy_models import make_items, make_model
from tests.models.lares.written_out import info_nce, item_loss, lares_states


INPUT_IDS = torch.tensor([[3, 7, 1, 9], [5, 2, 0, 0]])
HISTORIES = [["i2", "i6", "i0", "i8"], ["i4", "i1"]]


def make_lares(**settings) -> LaresForSequentialRecommendation:
    model = make_model("lares", **settings)
    if model.config.aggregation == "linear":  # two weights that differ
        torch.nn.init.normal_(model.model.aggregation.state_weight)
        torch.nn.init.normal_(model.model.aggregation.input_weight)
    return model


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("num_pre_layers", [0, 1])
def test_every_step_is_equation_5(aggregation, num_pre_layers):
    model = make_lares(aggregation=aggregation, num_pre_layers=num_pre_layers)
    initial_state = 3 * torch.randn(2, 4, 8)
    states = model.model(INPUT_IDS, num_steps=3, initial_state=initial_state)
    assert len(states) == 3
    for row, length in [(0, 4), (0, 2), (1, 2), (1, 1)]:
        expected = lares_states(model, INPUT_IDS[row, :length].tolist(), initial_state[row, :length], 3)
        for step in range(3):
            torch.testing.assert_close(states[step][row, length - 1], expected[step], atol=1e-5, rtol=1e-4)


def test_rows_that_hold_several_sequences():
    model = make_lares(max_history=6).eval()
    input_ids, position_ids = torch.tensor([[3, 7, 1, 9, 4, 0]]), torch.tensor([[0, 1, 2, 0, 1, 0]])
    together = model.encode(input_ids, position_ids)[0]
    initial_state = model.model.initial_state(input_ids, position_ids)[0]
    for start, stop in [(0, 3), (3, 5)]:
        alone = model.encode(input_ids[:, start:stop])[0]
        torch.testing.assert_close(together[start:stop], alone, atol=1e-6, rtol=1e-5)
        expected = lares_states(model, input_ids[0, start:stop].tolist(), initial_state[start:stop], 3)[-1]
        torch.testing.assert_close(together[stop - 1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_steps", [None, 1, 5])
def test_a_step_is_one_pass_of_the_core_block(num_steps):
    model, calls = make_lares(), {"pre": 0, "core": 0}
    model.model.pre_block.register_forward_hook(lambda *_: calls.update(pre=calls["pre"] + 1))
    model.model.core_block.register_forward_hook(lambda *_: calls.update(core=calls["core"] + 1))
    model.recommend(HISTORIES, num_steps=num_steps)
    assert calls == {"pre": 1, "core": num_steps or model.config.mean_steps}


def test_the_number_of_steps_is_positive():
    with pytest.raises(ValueError, match="num_steps is 0; pass a positive number of reasoning steps"):
        make_lares()(INPUT_IDS, num_steps=0)


def test_t0_of_training_is_new_for_every_position_row_and_call():
    model = make_lares()
    first, second = model.model.initial_state(INPUT_IDS), model.model.initial_state(INPUT_IDS)
    states = torch.cat([first, second]).flatten(0, 1)
    assert len(states.unique(dim=0)) == len(states) == 16
    assert 3.0 < states.abs().max() <= 9.0


def test_t0_of_evaluation_belongs_to_the_seed_and_the_position():
    model = make_lares().eval()
    state = model.model.initial_state(INPUT_IDS)
    assert torch.equal(state[0], state[1]) and len(state[0].unique(dim=0)) == 4
    position_ids = torch.tensor([[0, 1, 0, 1]])
    assert torch.equal(model.model.initial_state(INPUT_IDS[:1], position_ids)[0], state[0, [0, 1, 0, 1]])
    assert torch.equal(model.model.initial_state(INPUT_IDS[:, :2]), state[:, :2])
    assert not torch.equal(model.model.initial_state(INPUT_IDS, seed=1), state)


def test_a_seed_gives_its_figures():
    model = make_lares()
    torch.manual_seed(1)
    first = model.rank_targets(HISTORIES, ["i3", "i5"]), model.recommend(HISTORIES)
    torch.manual_seed(2)
    again = model.rank_targets(HISTORIES, ["i3", "i5"], seed=0), model.recommend(HISTORIES, seed=0)
    assert first[0].tolist() == again[0].tolist() and first[1] == again[1]
    assert model.recommend(HISTORIES, seed=1) != first[1]


def test_states_of_every_step():
    model = make_lares(dropout=0.5)
    states = model.step_states(HISTORIES, num_steps=4, seed=3)
    assert states.shape == (4, 2, 8) and model.training
    for step in range(4):
        expected = model.eval().user_states(HISTORIES, num_steps=step + 1, seed=3)
        torch.testing.assert_close(states[step], expected)
    assert not torch.equal(states[0], states[3])


def test_states_and_scores_are_those_after_the_last_item():
    model = make_lares().eval()
    initial_state = model.model.initial_state(INPUT_IDS)
    rows = [(0, 4), (1, 2)]
    expected_BKD = torch.stack(
        [
            torch.stack(lares_states(model, INPUT_IDS[row, :length].tolist(), initial_state[row, :length], 3))
            for row, length in rows
        ]
    )
    how = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(model.step_states(HISTORIES, num_steps=3), expected_BKD.transpose(0, 1), **how)
    scores = model(INPUT_IDS, num_steps=3).logits
    torch.testing.assert_close(scores, expected_BKD[:, -1] @ model.item_embeddings.T, **how)


def test_losses_of_a_batch_with_two_views():
    """The recommendation pass and the views have depths and initial states of their own."""
    model = make_lares()
    labels = torch.tensor([[7, -100, 9, 4], [-100, 8, -100, -100]])
    view_input_ids = torch.tensor([[6, 3], [8, 11], [1, 0]])
    initial_state, view_state = 3 * torch.randn(2, 4, 8), 3 * torch.randn(3, 2, 8)
    output = model(
        INPUT_IDS,
        labels=labels,
        initial_state=initial_state,
        num_steps=4,
        intermediate_step=2,
        view_input_ids=view_input_ids,
        view_index=torch.tensor([1, 3, 4]),
        view_num_steps=2,
        view_initial_state=view_state,
    )
    samples = [(0, 0), (0, 2), (0, 3), (1, 1)]
    loss = 0
    for number, (row, place) in enumerate(samples):
        prefix = slice(0, place + 1)
        steps = lares_states(model, INPUT_IDS[row, prefix].tolist(), initial_state[row, prefix], 4)
        torch.testing.assert_close(output.user_states[number], steps[3], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.step_states[number], steps[1], atol=1e-5, rtol=1e-4)
        loss = loss + item_loss(steps[3], model.get_input_embeddings().weight, labels[row, place].item())
    torch.testing.assert_close(output.loss, loss / 4, atol=1e-5, rtol=1e-5)
    for number, (row, length) in enumerate([(0, 2), (1, 2), (2, 1)]):
        steps = lares_states(model, view_input_ids[row, :length].tolist(), view_state[row, :length], 2)
        torch.testing.assert_close(output.view_states[number], steps[1], atol=1e-5, rtol=1e-4)
    assert torch.isfinite(info_nce(output.step_states, output.user_states))


@pytest.mark.parametrize("step", [0, 4, -1])
def test_an_intermediate_step_that_there_is_not(step):
    with pytest.raises(ValueError, match=rf"intermediate_step is {step}; .* 1 to 3"):
        make_lares()(INPUT_IDS[:1], labels=INPUT_IDS[:1], num_steps=3, intermediate_step=step)


def test_every_parameter_has_a_gradient_after_one_step():
    for aggregation in AGGREGATIONS:
        model = make_lares(aggregation=aggregation)
        model(INPUT_IDS, labels=INPUT_IDS.masked_fill(INPUT_IDS == 0, -100), num_steps=1).loss.backward()
        without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not without


def test_a_model_without_items_scores_and_says_what_it_lacks():
    model = LaresForSequentialRecommendation(make_lares().config).eval()
    assert model(INPUT_IDS).logits.shape == (2, 12)
    with pytest.raises(ValueError, match="has no item table; build it with items="):
        model.recommend(HISTORIES)
    with pytest.raises(ValueError, match="num_items is 12, but the table has 5"):
        LaresForSequentialRecommendation(model.config, items=make_items(5))
