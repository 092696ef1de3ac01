"""LatentRATT (LatentR³ Eq. 2 and 3) against its slow definition, and what must never change a thought."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec import Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.reasoners import LatentAttentionReasoner
from hf_latentrec.models.latent_reasoning.thought_state import ThoughtState

from .concatenated import slow_latent_attention


D = 8


@pytest.fixture
def reasoner():
    return LatentAttentionReasoner(Qwen3LatentRecConfig(hidden_size=D)).double()


def state_of(hidden_BSD, positions_BS, visible_BKS, newest_BK):
    hidden_BKD = hidden_BSD.gather(1, newest_BK[..., None].expand(-1, -1, D))
    return ThoughtState(None, visible_BKS, hidden_BKD, (hidden_BSD,), (positions_BS,), None, None)


def test_each_branch_attends_to_what_it_sees(reasoner):
    """Two branches after a prompt of three tokens, padded on the left, of which the first sees only two."""
    hidden_BSD = torch.randn(1, 6, D, dtype=torch.float64)
    positions_BS = torch.tensor([[0, 0, 1, 2, 2, 3]])  # slots 4 and 5 are the newest token of each branch
    visible_BKS = torch.tensor([[[0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 0, 1]]]).bool()
    thoughts = reasoner(state_of(hidden_BSD, positions_BS, visible_BKS, torch.tensor([[4, 5]]))).embeds_BKD
    for k, slots in enumerate([[1, 2, 4], [1, 2, 3, 5]]):
        torch.testing.assert_close(thoughts[0, k], slow_latent_attention(reasoner, hidden_BSD[0, slots]))


def test_a_thought_by_hand():
    """Keys and queries are 0, so the thought is the value of the mean hidden state."""
    reasoner = LatentAttentionReasoner(Qwen3LatentRecConfig(hidden_size=2))
    with torch.no_grad():
        for layer in (reasoner.q_proj, reasoner.k_proj):
            layer.weight.zero_()
            layer.bias.zero_()
        reasoner.v_proj.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        reasoner.v_proj.bias.copy_(torch.tensor([1.0, -1.0]))
        hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
        state = ThoughtState(
            None, torch.ones(1, 1, 2).bool(), hidden[:, -1:], (hidden,), (torch.arange(2)[None],), None, None
        )
        assert reasoner(state).embeds_BKD.tolist() == [[[5.0, 11.0]]]  # 2 * 2 + 1, 3 * 4 - 1


def test_rotation_is_relative_and_turns(reasoner):
    """Positions shifted together change nothing; another distance does."""
    hidden, visible = torch.randn(1, 3, D, dtype=torch.float64), torch.ones(1, 1, 3).bool()
    near = reasoner.rotate(hidden, torch.tensor([[0, 1, 2]]))
    far = reasoner.rotate(hidden, torch.tensor([[50, 51, 52]]))
    torch.testing.assert_close(near @ near.mT, far @ far.mT)
    other = reasoner.rotate(hidden, torch.tensor([[0, 1, 9]]))
    assert not torch.allclose(near @ near.mT, other @ other.mT)
    thought = reasoner(state_of(hidden, torch.tensor([[0, 1, 2]]), visible, torch.tensor([[2]]))).embeds_BKD
    moved = reasoner(state_of(hidden, torch.tensor([[0, 5, 2]]), visible, torch.tensor([[2]]))).embeds_BKD
    assert not torch.allclose(thought, moved)


@pytest.mark.parametrize("num_thoughts", [1, 2])
def test_padding_batch_mates_and_cache_never_change_a_thought(make_model, prompts, num_thoughts):
    model = make_model(num_thoughts=num_thoughts, reasoner="latent_attention", dtype=torch.float64)
    input_ids, attention_mask = prompts
    together = model(*prompts).thought_embeds
    for b, real in enumerate(attention_mask.bool()):
        alone = model(input_ids[b, real][None]).thought_embeds[0]
        torch.testing.assert_close(together[b], alone)
    generous = torch.nn.functional.pad(input_ids, (5, 0)), torch.nn.functional.pad(attention_mask, (5, 0))
    torch.testing.assert_close(model(*generous).thought_embeds, together)


def test_initialized_as_the_backbone_is():
    config = Qwen3LatentRecConfig(
        vocab_size=32, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, initializer_range=0.5, num_thoughts=1, reasoner_config={"reasoner": "latent_attention"},
    )  # fmt: skip
    reasoner = Qwen3ForLatentReasoningRec(config).reasoner
    for layer in (reasoner.q_proj, reasoner.k_proj, reasoner.v_proj):
        assert layer.weight.std().item() == pytest.approx(0.5, rel=0.1) and (layer.bias == 0).all()


def test_odd_hidden_sizes_are_refused():
    with pytest.raises(ValueError, match="hidden_size is 7"):
        LatentAttentionReasoner(Qwen3LatentRecConfig(hidden_size=7))


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize(
    "settings",
    [
        {"num_thoughts": 2, "reasoner": "latent_attention"},
        {"num_thoughts": 1, "reasoner": "factorized_attention", "num_iterations": 5, "thought_markers": True},
    ],
    ids=["latent_attention", "factorized_attention"],
)
def test_generate_scores_what_forward_scores(make_model, prompts, catalog_trie, normalize, settings):
    model = make_model(dtype=torch.float64, **settings)
    output = model.generate(*prompts, item_trie=catalog_trie, num_beams=5, normalize=normalize)
    answers = output.sequences.view(3, 5, 3)
    logps = model(*prompts, labels=answers, item_trie=catalog_trie if normalize == "catalog" else None).logps
    torch.testing.assert_close(output.sequences_scores.view(3, 5), logps.sum(-1), check_dtype=False)
