"""Each baseline against its own equations, written out slowly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hf_latentrec.models.sequential.rearec import step_divergence
from hf_latentrec.trainer.contrastive_losses import contrast

from .toy_baselines import NUM_ITEMS


BATCH = torch.tensor([[4, 8, 2, 0, 0, 0], [3, 0, 0, 0, 0, 0], [6, 5, 10, 1, 12, 9], [2, 7, 3, 11, 0, 0]])
LENGTHS = [3, 1, 6, 4]


# GRU4Rec


def test_gru_by_its_recurrence(make_model):
    model = make_model("gru4rec").requires_grad_(False)
    gru = model.gru
    state = torch.zeros(16)
    for position, item in enumerate([6, 5, 10, 1]):
        given = gru.weight_ih_l0 @ model.item_embedding.weight[item] + gru.bias_ih_l0
        kept = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        reset, update = torch.sigmoid(given[:16] + kept[:16]), torch.sigmoid(given[16:32] + kept[16:32])
        new = torch.tanh(given[32:] + reset * kept[32:])
        state = (1 - update) * new + update * state
        expected = model.out.weight @ state + model.out.bias
        torch.testing.assert_close(model.encode(BATCH)[2, position], expected, atol=1e-5, rtol=1e-4)


# Caser


def test_caser_by_its_convolutions(make_model):
    model = make_model("caser").requires_grad_(False)
    states = model.encode(BATCH)
    for row, length in enumerate(LENGTHS):
        window = [0] * (6 - length) + BATCH[row, :length].tolist()
        image = model.item_embedding.weight[torch.tensor(window)]  # [W, D]
        features = []
        for height, convolution in enumerate(model.horizontal, start=1):
            for number in range(model.config.num_horizontal_filters):
                kernel, bias = convolution.weight[number].T, convolution.bias[number]  # [height, D]
                places = [(image[t : t + height] * kernel).sum() + bias for t in range(6 - height + 1)]
                features.append(torch.stack(places).relu().max())
        for dim in range(16):
            for number in range(model.config.num_vertical_filters):
                features.append(sum(model.vertical.weight[number, t] * image[t, dim] for t in range(6)))
        expected = (model.out.weight @ torch.stack(features) + model.out.bias).relu()
        torch.testing.assert_close(states[row, 0], expected, atol=1e-5, rtol=1e-4)


# BERT4Rec


def test_bert_sees_both_sides_but_not_what_is_hidden(make_model):
    model = make_model("bert4rec")
    sequences = torch.tensor([[4, 8, 2, 6, 0]])
    hidden = torch.tensor([[False, True, False, False, False]])
    states = model.encode_hidden(sequences, hidden)
    other = sequences.clone()
    other[0, 1] = 11
    assert torch.equal(model.encode_hidden(other, hidden)[0, :4], states[0, :4])
    for place in (0, 2, 3):
        other = sequences.clone()
        other[0, place] = 11
        assert not torch.allclose(model.encode_hidden(other, hidden)[0, 1], states[0, 1], atol=1e-3)


def test_bert_learns_a_hidden_item_at_the_end_as_it_recommends(make_model):
    model = make_model("bert4rec")
    sequences = torch.tensor([[4, 8, 2, 6]])
    hidden = torch.tensor([[False, False, False, True]])
    torch.testing.assert_close(model.encode_hidden(sequences, hidden)[0, 3], model.encode(BATCH[:1])[0, 0])


def test_bert_loss_is_the_mean_over_hidden_items_times_the_labels(make_model, monkeypatch):
    settings = {"dropout": 0.0, "attention_dropout": 0.0, "mask_probability": 0.6, "last_only_probability": 0.0}
    model = make_model("bert4rec", **settings).train()
    torch.nn.init.normal_(model.item_bias)
    labels = torch.full_like(BATCH, -100)
    for row, length in enumerate(LENGTHS):
        labels[row, length - 1] = row + 1
    sequences, newest = model.with_label(BATCH, labels)
    assert sequences.tolist() == [
        [4, 8, 2, 1, 0, 0, 0], [3, 2, 0, 0, 0, 0, 0], [6, 5, 10, 1, 12, 9, 3], [2, 7, 3, 11, 4, 0, 0],
    ]  # fmt: skip
    hidden = model.draw_hidden(sequences, newest)
    monkeypatch.setattr(model, "draw_hidden", lambda *_: hidden)
    states, losses = model.encode_hidden(sequences, hidden), []
    for row, place in hidden.nonzero().tolist():
        scores = model.embeddings.items.weight[1:] @ states[row, place] + model.item_bias
        losses.append(-scores.log_softmax(0)[sequences[row, place] - 1])
    mean = torch.stack(losses).mean()
    assert len(losses) > 4
    torch.testing.assert_close(model(BATCH, labels=labels).loss, mean)
    torch.testing.assert_close(model(BATCH, labels=labels, num_items_in_batch=16).loss, mean * 4 / 16)
    model.eval()  # the loss of the label alone
    scores = model(BATCH).logits
    torch.testing.assert_close(model(BATCH, labels=labels).loss, F.cross_entropy(scores, torch.arange(4)))


def test_bert_hides_as_often_as_it_should(make_model):
    model = make_model("bert4rec", mask_probability=0.3, last_only_probability=0.25)
    sequences = torch.tensor([[4, 8, 2, 6, 0], [3, 2, 0, 0, 0]]).repeat(4000, 1)
    newest = torch.tensor([3, 1]).repeat(4000)
    hidden = model.draw_hidden(sequences, newest)
    assert not hidden[sequences == 0].any() and hidden.any(1).all()
    # one at least: where chance hides none of n items, each is the one with probability 1 / n
    for start, length in ((0, 4), (1, 2)):
        drawn = 0.3 + 0.7**length / length
        expected = [0.75 * drawn + 0.25 * (place == length - 1) for place in range(length)]
        shares = hidden[start::2, :length].float().mean(0)
        torch.testing.assert_close(shares, torch.tensor(expected), atol=0.03, rtol=0)


def test_bert_has_no_contrastive_views(make_model):
    labels = torch.full_like(BATCH, -100)
    with pytest.raises(ValueError, match="views are given"):
        make_model("bert4rec").train()(BATCH, labels=labels, view_input_ids=BATCH, view_index=torch.arange(4))


# ReaRec


def slow_thoughts(model, items: list[int], num_thoughts: int, starts: list | None = None) -> list[torch.Tensor]:
    """The states after 0, 1, .. thoughts of one history, each from a pass over everything so far."""
    inputs = model.embeddings(torch.tensor([items]))
    states = []
    for step in range(num_thoughts + 1):
        states.append(model.layers(inputs)[0, -1])
        if step < num_thoughts:
            start = states[-1] if starts is None else starts[step]
            thought = model.embeddings.norm(start + model.thought_positions.weight[step])
            inputs = torch.cat([inputs, thought[None, None]], dim=1)
    return states


@pytest.mark.parametrize("variant", ["erl", "prl"])
def test_thoughts_equal_a_longer_and_longer_sequence(make_model, variant):
    model = make_model(f"rearec-{variant}", num_thoughts=3)
    states = model.think(*model.read(BATCH))
    recommended = model.encode(BATCH)
    for row, length in enumerate(LENGTHS):
        for end in range(1, length + 1):  # every position thinks for itself
            slow = slow_thoughts(model, BATCH[row, :end].tolist(), 3)
            for step in range(4):
                torch.testing.assert_close(states[step][row, end - 1], slow[step], atol=1e-5, rtol=1e-4)
            expected = sum(slow) / 4 if variant == "erl" else slow[-1]
            torch.testing.assert_close(recommended[row, end - 1], expected, atol=1e-5, rtol=1e-4)


def test_disturbed_thoughts_start_from_the_undisturbed_ones(make_model):
    model = make_model("rearec-prl", num_thoughts=2, noise_std=0.0)
    history = model.read(BATCH)
    states = model.think(*history)
    for state, twin in zip(states, model.think(*history, disturbed=states), strict=True):
        torch.testing.assert_close(state, twin)
    model.config.noise_std = 0.5
    torch.manual_seed(3)
    noises = [torch.randn(*BATCH.shape, 16) * 0.5 for _ in range(2)]
    torch.manual_seed(3)
    twins = model.think(*history, disturbed=states)
    starts = [states[step][2, 5] + noises[step][2, 5] for step in range(2)]
    slow = slow_thoughts(model, BATCH[2].tolist(), 2, starts)
    torch.testing.assert_close(twins[2][2, 5], slow[2], atol=1e-5, rtol=1e-4)


def make_labels() -> torch.Tensor:
    labels = BATCH % NUM_ITEMS + 1
    labels[BATCH == 0] = -100
    labels[2, 1] = -100
    return labels


def test_erl_losses(make_model):
    model = make_model("rearec-erl", diversity_weight=0.3, temperature=0.5)
    output, labels = model(BATCH, labels=make_labels(), num_items_in_batch=20), make_labels()
    items, loss, divergence = model.embeddings.items.weight[1:], 0.0, 0.0
    for row, position in labels.ne(-100).nonzero().tolist():
        steps = slow_thoughts(model, BATCH[row, : position + 1].tolist(), 2)
        loss -= (items @ (sum(steps) / 3) / 0.5).log_softmax(0)[labels[row, position] - 1]
        probs = [(items @ step / 0.5).softmax(0) for step in steps]
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        divergence += sum((probs[i] * (probs[i] / probs[j]).log()).sum() for i, j in pairs) / len(pairs)
    torch.testing.assert_close(output.loss, loss / 20)
    assert set(output.auxiliary_losses) == {"diversity"}
    torch.testing.assert_close(output.auxiliary_losses["diversity"], -0.3 * divergence / 20)


def test_divergence_in_chunks_has_the_gradient_of_the_first_distribution(monkeypatch):
    steps, items = [torch.randn(7, 4, requires_grad=True) for _ in range(3)], torch.randn(9, 4, requires_grad=True)
    whole = torch.autograd.grad(step_divergence(steps, items), [*steps, items])
    monkeypatch.setattr("hf_latentrec.models.sequential.rearec.CHUNK_SCORES", 60)  # two rows at once
    chunked = torch.autograd.grad(step_divergence(steps, items), [*steps, items])
    logits = [step @ items.T for step in steps]
    slow = sum(
        F.kl_div(logits[j].detach().log_softmax(-1), logits[i].softmax(-1), reduction="sum")
        for i in range(3)
        for j in range(3)
        if i != j
    )
    for one, other, expected in zip(whole, chunked, torch.autograd.grad(slow / 6, [*steps, items]), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(other, expected, atol=1e-5, rtol=1e-4)


def test_prl_losses(make_model):
    settings = {"temperature": 0.5, "temperature_scale": 3.0, "progressive_weight": 0.7, "contrastive_weight": 0.2}
    model = make_model("rearec-prl", dropout=0.0, attention_dropout=0.0, noise_std=0.3, **settings).train()
    labels = make_labels()
    torch.manual_seed(5)
    output = model(BATCH, labels=labels, num_items_in_batch=20)
    torch.manual_seed(5)
    history = model.read(BATCH)
    states = model.think(*history)
    twins = model.think(*history, disturbed=states)
    places, items = labels.ne(-100).nonzero().tolist(), model.embeddings.items.weight[1:]
    loss = progressive = contrastive = 0.0
    for number, (row, position) in enumerate(places):
        steps = slow_thoughts(model, BATCH[row, : position + 1].tolist(), 2)
        target = labels[row, position] - 1
        loss -= (items @ steps[2] / 0.5).log_softmax(0)[target]
        for step, temperature in ((0, 0.5 * 9), (1, 0.5 * 3)):
            progressive -= (items @ steps[step] / temperature).log_softmax(0)[target] / 2
        for step in (1, 2):
            similarity = torch.stack([twins[step][row, position] @ states[step][r, p] for r, p in places]) / 0.5
            contrastive -= similarity.log_softmax(0)[number] / 2
    torch.testing.assert_close(output.loss, loss / 20)
    torch.testing.assert_close(output.auxiliary_losses["progressive"], 0.7 * progressive / 20)
    found = torch.stack([contrast(*pair).sum() for pair in output.contrasts]).mean()
    torch.testing.assert_close(found, contrastive)


# TedRec


def test_tedrec_scores_by_cosines(make_model):
    model = make_model("tedrec")
    state = model.encode(BATCH)[:, 0]
    vectors = model.fusion.item_vectors(model.embeddings.items.weight)
    expected = torch.stack([F.cosine_similarity(row[None], vectors) for row in state]) / 0.07
    torch.testing.assert_close(model(BATCH).logits, expected, atol=1e-4, rtol=1e-4)
    labels = torch.full_like(BATCH, -100)
    for row, length in enumerate(LENGTHS):
        labels[row, length - 1] = row + 1
    torch.testing.assert_close(model(BATCH, labels=labels).loss, F.cross_entropy(expected, torch.arange(4)))
