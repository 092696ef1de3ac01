"""The transformer layer, embeddings and masks against their equations, position by position."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.lares.fast_dropout import FastDropout
from hf_latentrec.models.lares.sequence_encoders import dropped_attention, last_positions, sequence_mask
from tests.models.lares.toy_models import MAX_HISTORY, make_model
from tests.models.lares.written_out import embed, run_layer, sasrec_state


def test_a_layer_is_its_equations():
    layer = make_model().layers.layers[0]
    hidden = torch.randn(2, 5, 8)
    found = layer(hidden)
    for row in range(2):
        torch.testing.assert_close(found[row], torch.stack(run_layer(layer, hidden[row])), atol=1e-5, rtol=1e-4)


def test_embeddings_are_items_and_positions_normalized():
    embeddings = make_model().embeddings
    torch.testing.assert_close(embeddings(torch.tensor([[3, 12, 3]]))[0], torch.stack(embed(embeddings, [3, 12, 3])))
    found = embeddings(torch.tensor([[3, 12, 7]]), torch.tensor([[0, 1, 0]]))[0]
    torch.testing.assert_close(found, torch.stack(embed(embeddings, [3, 12]) + embed(embeddings, [7])))


def test_padding_embeds_as_zero():
    assert not make_model().embeddings.items.weight[0].any()


def test_too_many_positions():
    with pytest.raises(ValueError, match=r"hold 5 positions, but the model has 4 \(max_history\)"):
        make_model()(torch.ones(1, MAX_HISTORY + 1, dtype=torch.long))


def test_states_of_rows_that_hold_several_sequences():
    model = make_model(max_history=6)
    input_ids = torch.tensor([[3, 7, 1, 9, 4, 0], [5, 2, 8, 6, 11, 12]])
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]])
    states = model.encode(input_ids, position_ids)
    for row, start, stop in [(0, 0, 3), (0, 3, 5), (1, 0, 1), (1, 1, 6)]:
        for end in range(start + 1, stop + 1):
            expected = sasrec_state(model, input_ids[row, start:end].tolist())
            torch.testing.assert_close(states[row, end - 1], expected, atol=1e-5, rtol=1e-4)


def test_a_later_item_changes_no_earlier_state():
    model = make_model()
    first, second = model.encode(torch.tensor([[3, 7, 1, 9], [3, 7, 1, 4]]))
    assert torch.equal(first[:3], second[:3]) and not torch.equal(first[3], second[3])


def test_who_may_attend_to_whom():
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]])
    mask = sequence_mask(position_ids)
    for row in range(2):
        for t in range(6):
            first = t - position_ids[row, t].item()
            assert mask[row, 0, t].tolist() == [first <= s <= t for s in range(6)]
    assert sequence_mask(None) is None


@pytest.mark.parametrize("packed", [False, True])
def test_attention_with_dropout_is_attention(packed):
    """The path with dropout, at a probability that drops nothing, against the fused one."""
    query, key, value = torch.randn(3, 2, 2, 4, 3)
    mask = sequence_mask(torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])) if packed else None
    fused, written_out = (
        dropped_attention(query, key, value, mask, dropout) for dropout in (FastDropout(0.0), FastDropout(1e-9))
    )
    torch.testing.assert_close(written_out, fused)


def test_dropout_of_attention_weights():
    """A value for every key, so that the output shows the weights: each is 0 or twice what it was."""
    query, key, value = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 6, 6), torch.eye(6)[None, None]
    weights = dropped_attention(query, key, value, None, FastDropout(0.0))
    dropped = dropped_attention(query, key, value, None, FastDropout(0.5))
    kept = dropped != 0
    torch.testing.assert_close(dropped, torch.where(kept, 2 * weights, 0))
    assert 0 < kept.sum() < weights.ne(0).sum()


def test_the_last_items_of_rows():
    assert last_positions(torch.tensor([[3, 7, 0], [1, 2, 3], [5, 0, 0], [0, 0, 0]])).tolist() == [1, 2, 0, 0]
