"""Samples of different depth in one batch: each is as it is alone, and as in one long sequence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hf_latentrec.models.latent_reasoning.depth_policy import draw_depths

from .concatenated import concatenated_logits, linear
from .conftest import PAD


DEPTHS = range(1, 9)
FEEDBACK = {"num_thoughts": 8, "adaptive_depth": True}
WAYS = {
    "feedback": FEEDBACK,
    "no markers": {**FEEDBACK, "thought_markers": False},
    "latent_attention": {**FEEDBACK, "reasoner": "latent_attention"},
}
ANSWERS = torch.tensor([[17, 25, 33], [18, 26, 34]])
PROMPTS = torch.tensor([[PAD, PAD, 8, 9, 10], [11, 3, 12, 1, 2]])
MASK = (PROMPTS != PAD).long()


def answers_of(output):
    """Of every prompt: its answers with their scores."""
    found = [{} for _ in range(output.num_users)]
    for sequence, score, user in zip(
        output.sequences.tolist(), output.sequences_scores.tolist(), output.user_indices.tolist(), strict=True
    ):
        found[user][tuple(sequence)] = score
    return found


@pytest.fixture
def adaptive(make_model):
    """A model that chooses different depths for different prompts."""

    def make(**settings):
        model = make_model(**{**FEEDBACK, "dtype": torch.float64, **settings})
        torch.nn.init.normal_(model.depth_policy.out_proj.weight, std=1.0, generator=torch.Generator().manual_seed(0))
        return model

    return make


@pytest.fixture
def alone(adaptive):
    """`alone(**settings)[row][depth]`: log-probabilities and thoughts of one sample as one long sequence."""

    def run(**settings):
        model = adaptive(**settings)

        def sample(row, depth):
            logits, thoughts, _ = concatenated_logits(model, PROMPTS[row][MASK[row].bool()], ANSWERS[row], depth)
            return logits.float().log_softmax(-1).gather(-1, ANSWERS[row][:, None])[:, 0], thoughts

        with torch.no_grad():
            return model, [{depth: sample(row, depth) for depth in DEPTHS} for row in range(2)]

    return run


@pytest.mark.parametrize("way", WAYS)
def test_every_mix_of_two_depths(alone, way):
    model, expected = alone(**WAYS[way])
    for depths in itertools.product(DEPTHS, DEPTHS):
        with torch.no_grad():
            output = model(PROMPTS, MASK, labels=ANSWERS, num_thoughts=torch.tensor(depths))
        assert output.num_thoughts.tolist() == list(depths)
        assert output.thoughts.shape == output.thought_embeds.shape == (2, max(depths), 32)
        for row, depth in enumerate(depths):
            logps, thoughts = expected[row][depth]
            torch.testing.assert_close(output.logps[row], logps, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(output.thoughts[row, :depth], thoughts, atol=1e-5, rtol=1e-5)
            assert not output.thoughts[row, depth:].any() and not output.thought_embeds[row, depth:].any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_all_depths_in_one_batch_have_the_beams_of_each(adaptive, catalog_trie, way, normalize):
    model = adaptive(**WAYS[way])
    rows = [0, 1] * 4
    settings = {"item_trie": catalog_trie, "num_beams": 6, "normalize": normalize}
    together = model.generate(PROMPTS[rows], MASK[rows], num_thoughts=torch.tensor(DEPTHS), **settings)
    assert together.num_thoughts.tolist() == list(DEPTHS)
    found = answers_of(together)
    for index, (row, depth) in enumerate(zip(rows, DEPTHS, strict=True)):
        single = model.generate(PROMPTS[row : row + 1], MASK[row : row + 1], num_thoughts=depth, **settings)
        assert found[index].keys() == answers_of(single)[0].keys()
        for answer, score in answers_of(single)[0].items():
            assert found[index][answer] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_each_sample_alone(adaptive, way):
    model = adaptive(**WAYS[way])
    trained = {name: p for name, p in model.named_parameters() if not name.startswith("depth_policy")}

    def gradients(loss):
        return dict(zip(trained, torch.autograd.grad(loss, trained.values(), allow_unused=True), strict=True))

    together = model(PROMPTS, MASK, labels=ANSWERS, num_thoughts=torch.tensor([2, 5]))
    separate = [
        model(PROMPTS[r : r + 1], MASK[r : r + 1], labels=ANSWERS[r : r + 1], num_thoughts=depth)
        for r, depth in enumerate([2, 5])
    ]
    thoughts = together.thoughts.square().sum()
    found = gradients(together.loss + thoughts)
    expected = gradients(torch.stack([part.loss / 2 + part.thoughts.square().sum() for part in separate]).sum())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_branches_of_a_packed_history_have_depths_of_their_own(adaptive):
    model = adaptive()
    history = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, PAD, PAD]])
    starts = torch.tensor([[2, 4, 6], [2, 4, 0]])
    labels = torch.tensor([[[3, 4], [5, 6], [7, 8]], [[11, 12], [13, 14], [-100, -100]]])
    for depths in ([[1, 8, 3], [4, 2, 1]], None):
        given = None if depths is None else torch.tensor(depths)
        packed = model(history, labels=labels, branch_starts=starts, num_thoughts=given)
        for b, g in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
            single = model(
                history[b : b + 1, : starts[b, g]],
                labels=labels[b : b + 1, g],
                num_thoughts=None if depths is None else depths[b][g],
            )
            depth = int(packed.num_thoughts[b, g])
            assert depth == int(single.num_thoughts)
            torch.testing.assert_close(packed.logps[b, g], single.logps[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(packed.thoughts[b, g, :depth], single.thoughts[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(packed.depth_logits[b, g], single.depth_logits[0], atol=1e-5, rtol=1e-5)


def test_policy_reads_the_state_before_the_first_thought(adaptive, prompts):
    """Section 2.2 by hand; the depth is the most probable one."""
    model = adaptive()
    output = model(*prompts)
    for row, (ids, mask) in enumerate(zip(*prompts, strict=True)):
        prompt = torch.cat([ids[mask.bool()], torch.tensor([model.config.start_thought_token_id])])
        h_0 = model.model(prompt[None]).last_hidden_state[0, -1]
        policy = model.depth_policy
        logits = linear(policy.out_proj, torch.tanh(linear(policy.hidden_proj, h_0)))
        torch.testing.assert_close(output.depth_logits[row], logits)
        assert int(output.num_thoughts[row]) == 1 + max(range(8), key=lambda depth: logits[depth])
    assert len(set(output.num_thoughts.tolist())) > 1


def test_what_is_learned_of_depth_moves_the_policy_alone(adaptive, prompts):
    model = adaptive()
    model(*prompts).depth_logits.logsumexp(-1).sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"depth_policy"}


def test_depth_is_drawn_by_the_policys_probabilities(adaptive, catalog_trie):
    logits = torch.tensor([0.1, 0.5, 0.1, 0.3]).log()
    noise = (torch.arange(1000) + 0.5) / 1000
    assert draw_depths(logits.expand(1000, -1), noise).bincount().tolist() == [0, 100, 500, 100, 300]
    assert draw_depths(torch.zeros(3, 8), torch.tensor([0.0, 0.5, 1 - 2**-24])).tolist() == [1, 5, 8]

    model = adaptive()
    noise = torch.tensor([0.02, 0.97])
    drawn = model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_beams=4, depth_noise=noise)
    depths = draw_depths(drawn.depth_logits, noise)
    assert drawn.num_thoughts.tolist() == depths.tolist() and len(set(depths.tolist())) == 2
    given = model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_beams=4, num_thoughts=depths)
    assert torch.equal(drawn.sequences, given.sequences)


def test_generate_forces_a_depth_or_none(adaptive, catalog_trie):
    model = adaptive()
    forced = {n: model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_thoughts=n) for n in (0, 2, 9)}
    for n, output in forced.items():
        assert output.num_thoughts.tolist() == [n, n] and output.thoughts.shape == (2, n, 32)
    assert not torch.allclose(forced[0].sequences_scores, forced[2].sequences_scores)
    assert forced[0].depth_logits is None and forced[2].depth_logits.shape == (2, 8)


def test_a_batch_that_is_split_keeps_depths(adaptive, catalog_trie, monkeypatch):
    model = adaptive()
    rows, depths = [0, 1, 0, 1], torch.tensor([1, 2, 7, 3])
    settings = {"item_trie": catalog_trie, "num_beams": 4, "num_thoughts": depths}
    whole = model.generate(PROMPTS[rows], MASK[rows], **settings)
    encode = model.encode

    def fits_two(input_ids, *args, **kwargs):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(input_ids, *args, **kwargs)

    monkeypatch.setattr(model, "encode", fits_two)
    split = model.generate(PROMPTS[rows], MASK[rows], **settings)
    assert torch.equal(split.sequences, whole.sequences) and torch.equal(split.num_thoughts, depths)
    torch.testing.assert_close(split.thoughts, whole.thoughts)
    torch.testing.assert_close(split.depth_logits, whole.depth_logits)


def test_a_trained_model_gets_a_policy_by_its_configuration(adaptive, make_model, tmp_path, prompts):
    stage_1 = make_model()
    stage_1.save_pretrained(tmp_path)
    model = type(stage_1).from_pretrained(tmp_path, reasoner_config={"num_thoughts": 8, "adaptive_depth": True})
    for parameter in model.depth_policy.parameters():
        assert parameter.isfinite().all()
    assert torch.equal(model.lm_head.weight, stage_1.lm_head.weight)
    model.save_pretrained(tmp_path / "again")
    again = type(model).from_pretrained(tmp_path / "again").eval()
    torch.testing.assert_close(again(*prompts).depth_logits, model.eval()(*prompts).depth_logits)


def test_a_depth_is_any_whole_number(adaptive, catalog_trie):
    model = adaptive()
    for depth in (np.int64(2), torch.tensor([2, 2], dtype=torch.int32)):
        generated = model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_thoughts=depth)
        scored = model(PROMPTS, MASK, labels=ANSWERS, num_thoughts=depth)
        assert generated.num_thoughts.tolist() == scored.num_thoughts.tolist() == [2, 2]


def test_errors(adaptive, make_model, catalog_trie):
    for settings in ({"num_thoughts": 0}, {"num_thoughts": 1, "reasoner": "factorized_attention"}):
        with pytest.raises(ValueError, match="adaptive_depth is set with reasoner"):
            make_model(adaptive_depth=True, **settings)
    model = adaptive()
    with pytest.raises(ValueError, match="chooses from 1 to 8"):
        model.config.num_thoughts = 4
    with pytest.raises(ValueError, match="holds 0"):
        model(PROMPTS, MASK, labels=ANSWERS, num_thoughts=torch.tensor([0, 2]))
    for depths, problem in (
        (torch.tensor([1, 2, 3]), r"torch.int64 of shape \(3,\); .* integers of shape \(2,\)"),
        (torch.tensor([1.0, 2.0]), "torch.float32"),
        (2.0, "2.0; pass 0"),
        (-1, "-1; pass 0"),
    ):
        with pytest.raises(ValueError, match=f"num_thoughts is {problem}"):
            model(PROMPTS, MASK, labels=ANSWERS, num_thoughts=depths)
    with pytest.raises(ValueError, match=r"shape \(3, 1\) to branches \(2, 1\)"):
        model.think(model.encode(PROMPTS, MASK), torch.tensor([[1], [2], [3]]))
    with pytest.raises(ValueError, match="which thought is the last"):
        model(PROMPTS, MASK, labels=ANSWERS, thought_noise=torch.zeros(2, 3, 32))
    fixed = make_model(num_thoughts=2)
    with pytest.raises(ValueError, match="which thought is the last"):
        fixed(PROMPTS, MASK, labels=ANSWERS, thought_noise=torch.zeros(2, 3, 32), num_thoughts=torch.tensor([1, 2]))
    factors = make_model(num_thoughts=1, reasoner="factorized_attention")
    with pytest.raises(ValueError, match="'factorized_attention' refines one thought"):
        factors.generate(PROMPTS, MASK, item_trie=catalog_trie, num_thoughts=torch.tensor([1, 1]))
    noise = torch.rand(2)
    with pytest.raises(ValueError, match="num_thoughts is given, too"):
        model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_thoughts=2, depth_noise=noise)
    with pytest.raises(ValueError, match="one number per prompt"):
        model.generate(PROMPTS, MASK, item_trie=catalog_trie, depth_noise=noise[:1])
    with pytest.raises(ValueError, match="no depth policy"):
        make_model().generate(PROMPTS, MASK, item_trie=catalog_trie, depth_noise=noise)
    with pytest.raises(ValueError, match="num_thoughts is -1"):
        model.generate(PROMPTS, MASK, item_trie=catalog_trie, num_thoughts=-1)
