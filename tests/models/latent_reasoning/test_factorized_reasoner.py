"""Factorized reasoning (FLR Eq. 2 to 4) against its slow definition, and what a batch must never change."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from hf_latentrec import Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.reasoners import FactorizedReasoner
from hf_latentrec.models.latent_reasoning.thought_state import ThoughtState

from .concatenated import slow_factorized_attention
from .test_modeling_latent_reasoning import HISTORIES, HISTORY_MASK, PAIRS, STARTS, gradients_of, unpadded


D, FACTORS = 8, {"num_thoughts": 1, "reasoner": "factorized_attention", "num_factors": 3, "num_iterations": 3}


def make_reasoner(num_factors=3, hidden_size=D):
    settings = {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": num_factors}
    reasoner = FactorizedReasoner(Qwen3LatentRecConfig(hidden_size=hidden_size, reasoner_config=settings))
    reasoner.reset_parameters(0.5)
    return reasoner.double()


def two_branches():
    """Two branches after a prompt of three tokens, padded on the left, of which the first sees only two."""
    hidden_BSD = torch.randn(1, 6, D, dtype=torch.float64)
    visible_BKS = torch.tensor([[[0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 0, 1]]]).bool()
    positions_BS = torch.tensor([[0, 0, 1, 2, 2, 3]])  # slots 4 and 5 are the thought slot of each branch
    return ThoughtState(None, visible_BKS, hidden_BSD[:, 4:], (hidden_BSD,), (positions_BS,), None, None)


def test_each_branch_attends_to_what_it_sees():
    reasoner, state = make_reasoner(), two_branches()
    thought = reasoner(state)
    for k, slots in enumerate([[1, 2, 4], [1, 2, 3, 5]]):
        embeds, factors, attentions, gates = slow_factorized_attention(reasoner, state.hidden_BSD[0, slots])
        torch.testing.assert_close(thought.embeds_BKD[0, k], embeds)
        torch.testing.assert_close(thought.factors_BKFD[0, k], factors)
        torch.testing.assert_close(thought.attentions_BKFS[0, k][:, slots], attentions)
        torch.testing.assert_close(thought.gates_BKF[0, k], gates)
        unseen = [s for s in range(6) if s not in slots]
        assert (thought.attentions_BKFS[0, k][:, unseen] == 0).all()


def test_reading_in_parts_equals_reading_at_once():
    """What was read in an earlier step is not read again."""
    reasoner, whole = make_reasoner(), two_branches()
    hidden, positions = whole.hidden_BSD, whole.positions_BS
    parts = ThoughtState(
        None, whole.visible_BKS, whole.hidden_BKD, hidden.split([4, 2], 1), positions.split([4, 2], 1), None, None
    )
    parts.read_parts = (reasoner.read(hidden[:, :4], positions[:, :4]),)
    read = []
    reasoner.k_proj.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape[1]))
    torch.testing.assert_close(reasoner(parts).embeds_BKD, reasoner(whole).embeds_BKD)
    assert read == [2, 6]


def test_one_factor_is_a_single_attention():
    reasoner, state = make_reasoner(num_factors=1), two_branches()
    thought = reasoner(state)
    assert (thought.gates_BKF == 1).all()
    query = reasoner.q_proj(reasoner.prototypes[0])
    keys = reasoner.rotate(reasoner.k_proj(state.hidden_BSD), state.positions_BS)
    scores = (keys @ query / D**0.5).masked_fill(~state.visible_BKS, -torch.inf)
    torch.testing.assert_close(thought.embeds_BKD, scores.softmax(-1) @ reasoner.v_proj(state.hidden_BSD))


def test_permuting_factors_permutes_what_they_give():
    """With them the gate's inputs and outputs; the thought is the same."""
    reasoner, permuted, state = make_reasoner(), make_reasoner(), two_branches()
    order = torch.tensor([2, 0, 1])
    permuted.load_state_dict(reasoner.state_dict())
    with torch.no_grad():
        permuted.prototypes.copy_(reasoner.prototypes[order])
        blocks = reasoner.gate[0].weight.view(D, 3, D)
        permuted.gate[0].weight.copy_(blocks[:, order].reshape(D, 3 * D))
        permuted.gate[2].weight.copy_(reasoner.gate[2].weight[order])
        permuted.gate[2].bias.copy_(reasoner.gate[2].bias[order])
    before, after = reasoner(state), permuted(state)
    torch.testing.assert_close(after.embeds_BKD, before.embeds_BKD)
    for name in ("factors_BKFD", "attentions_BKFS", "gates_BKF"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name)[:, :, order])


@pytest.mark.parametrize("num_factors", range(1, 9))
def test_gates_and_attentions_sum_to_one(num_factors):
    thought = make_reasoner(num_factors)(two_branches())
    assert thought.factors_BKFD.shape == (1, 2, num_factors, D)
    for shares in (thought.gates_BKF, thought.attentions_BKFS):
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))


def test_forward_exposes_every_iteration(make_model, prompts):
    model = make_model(dtype=torch.float64, **FACTORS)
    output = model(*prompts)
    assert [len(x) for x in (output.factors, output.factor_attentions, output.factor_gates)] == [3, 3, 3]
    L = prompts[0].shape[1]
    for b, prompt in enumerate(unpadded(prompts)):
        tokens, thought = model.get_input_embeddings()(prompt), model.reasoner.initial_thought
        for step in range(3):
            sequence = torch.cat([tokens, thought[None]])
            hidden = model.model(inputs_embeds=sequence[None], use_cache=False).last_hidden_state[0]
            thought, factors, attentions, gates = slow_factorized_attention(model.reasoner, hidden)
            torch.testing.assert_close(output.factors[step][b], factors)
            torch.testing.assert_close(output.factor_gates[step][b], gates)
            padding = L - len(prompt)
            torch.testing.assert_close(output.factor_attentions[step][b, :, padding:], attentions)
            assert (output.factor_attentions[step][b, :, :padding] == 0).all()
        torch.testing.assert_close(output.thought_embeds[b, 0], thought)
    assert not torch.allclose(output.factors[0], output.factors[1])  # an iteration changes something


def test_packed_histories_expose_what_separate_ones_do(make_model):
    model = make_model(dtype=torch.float64, **FACTORS)
    packed = model(HISTORIES, HISTORY_MASK, labels=PAIRS, branch_starts=STARTS)
    for b, g in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        start = STARTS[b, g]
        alone = model(HISTORIES[b, None, :start], labels=PAIRS[b, g, None])
        for step in range(3):
            torch.testing.assert_close(packed.factors[step][b, g], alone.factors[step][0])
            torch.testing.assert_close(packed.factor_gates[step][b, g], alone.factor_gates[step][0])
            weights = packed.factor_attentions[step][b, g]
            torch.testing.assert_close(weights[:, [*range(start), -1]], alone.factor_attentions[step][0])
            assert (weights[:, start:-1] == 0).all()


def test_latent_attention_exposes_its_head(make_model, prompts):
    output = make_model(num_thoughts=2, reasoner="latent_attention")(*prompts)
    assert [tuple(weights.shape) for weights in output.factor_attentions] == [(3, 1, 8), (3, 1, 8)]
    assert (output.factor_attentions[0][..., -1] == 0).all() and (output.factor_attentions[1][..., -1] > 0).all()
    assert output.factors is None and output.factor_gates is None
    assert make_model(num_thoughts=2)(*prompts).factor_attentions is None
    assert make_model(**{**FACTORS, "num_thoughts": 0})(*prompts).factors is None


def test_padding_and_batch_mates_never_change_a_factor(make_model, prompts):
    model = make_model(dtype=torch.float64, **FACTORS)
    input_ids, attention_mask = prompts
    together = model(*prompts)
    for b, real in enumerate(attention_mask.bool()):
        alone = model(input_ids[b, real][None])
        torch.testing.assert_close(together.factors[-1][b], alone.factors[-1][0])
    generous = torch.nn.functional.pad(input_ids, (5, 0)), torch.nn.functional.pad(attention_mask, (5, 0))
    torch.testing.assert_close(model(*generous).factors[-1], together.factors[-1])


def test_an_iteration_is_one_token(make_model, prompts):
    """The prompt is encoded once, with the slot's first content, and its keys are computed once."""
    model = make_model(**FACTORS)
    passes, read = [], []
    model.model.register_forward_hook(
        lambda _, __, kwargs, ___: passes.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    model.reasoner.k_proj.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape[1]))
    model(*prompts, labels=torch.tensor([[16, 24, 32]] * 3))
    assert passes == [7 + 1, 1, 1, 1 + 2]  # the last one with the answer
    assert read == [7 + 1, 1, 1]


def test_a_frozen_backbone_keeps_no_graph_of_the_prompt(make_model):
    """The slot's first content then has a pass of its own; the reasoner's gradients stay the same."""
    model = make_model(dtype=torch.float64, **FACTORS)
    labels = PAIRS[:, 0]

    def gradients():
        return gradients_of(model, model(HISTORIES, HISTORY_MASK, labels=labels).loss)

    expected = gradients()
    model.requires_grad_(False)
    for name, parameter in model.reasoner.named_parameters():
        parameter.requires_grad_(name != "loss_log_variances")
    trained = gradients()
    assert sorted(trained) == sorted(
        f"reasoner.{name}" for name, parameter in model.reasoner.named_parameters() if parameter.requires_grad
    )
    for name, gradient in trained.items():
        torch.testing.assert_close(gradient, expected[name])
    state = model.encode(HISTORIES, HISTORY_MASK, open_thoughts=True)
    assert not state.hidden_parts[0].requires_grad and state.hidden_BKD.requires_grad


def test_a_prompt_without_tokens_stays_finite(make_model, prompts):
    """In `forward`; `generate` names it."""
    model = make_model(**FACTORS)
    input_ids, attention_mask = prompts[0], prompts[1].clone()
    attention_mask[1] = 0
    output = model(input_ids, attention_mask, labels=torch.tensor([[16, 24, 32]] * 3))
    output.loss.backward()
    assert output.loss.isfinite() and all(weights.isfinite().all() for weights in output.factor_attentions)
    assert all(p.grad.isfinite().all() for p in model.reasoner.parameters() if p.requires_grad)
    assert (output.factor_attentions[-1][1, :, :-1] == 0).all()  # it looks at its own slot


def test_thinking_can_be_switched_off_but_not_repeated(make_model, prompts, catalog_trie):
    model = make_model(**FACTORS)
    assert model.generate(*prompts, item_trie=catalog_trie, num_thoughts=0).thoughts.shape == (3, 0, 32)
    with pytest.raises(ValueError, match="num_thoughts is 2.*refines one thought"):
        model.generate(*prompts, item_trie=catalog_trie, num_thoughts=2)


def test_initialized_and_loaded(make_model, make_plain, prompts, tmp_path):
    """A plain checkpoint gets a reasoner of its own; a saved one comes back."""
    model = make_model(**FACTORS)
    gram = model.reasoner.prototypes @ model.reasoner.prototypes.T
    torch.testing.assert_close(gram, 32 * torch.eye(3), atol=1e-4, rtol=0)
    assert model.reasoner.initial_thought.std().item() == pytest.approx(0.3, rel=0.5)
    assert model.reasoner.loss_log_variances.tolist() == [0, 0, 0]
    model.save_pretrained(tmp_path / "ours")
    loaded = AutoModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(loaded(*prompts).factors, model(*prompts).factors)
    make_plain(make_model()).save_pretrained(tmp_path / "plain")
    settings = {"reasoner": "factorized_attention", "num_thoughts": 1}
    fresh = Qwen3ForLatentReasoningRec.from_pretrained(tmp_path / "plain", reasoner_config=settings)
    gram = fresh.reasoner.prototypes @ fresh.reasoner.prototypes.T
    torch.testing.assert_close(gram, 32 * torch.eye(4), atol=1e-4, rtol=0)
    assert fresh(*prompts).factors[-1].isfinite().all()


def test_no_more_factors_than_can_be_orthogonal():
    assert make_reasoner(num_factors=D).prototypes.shape == (D, D)
    with pytest.raises(ValueError, match="num_factors is 9, but hidden_size is 8"):
        make_reasoner(num_factors=9)
