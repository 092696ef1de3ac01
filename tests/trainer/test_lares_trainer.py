"""LARES' pre-training: Eq. 10 against single histories, depths that belong to a step, restarts."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hf_latentrec.trainer import LaresTrainingConfig
from tests.models.lares import written_out
from tests.models.lares.toy_models import make_model
from tests.trainer.sequential_runs import (
    check_gradients,
    expected_samples,
    history,
    make_trainer,
    prefixes,
    samples_of,
    whole_batch,
)


@pytest.mark.parametrize("same_user_negatives", [False, True])
@pytest.mark.parametrize(("aggregation", "same_target"), [("add", True), ("concat", False)])
def test_a_packed_batch_is_its_histories_one_by_one(
    tmp_path, monkeypatch, aggregation, same_target, same_user_negatives
):
    """All terms of Eq. 10 and their gradients: every prefix in a pass of its own from the same T_0."""
    model = make_model("lares", aggregation=aggregation)
    trainer = make_trainer(
        tmp_path,
        "lares",
        model,
        tla_weight=0.3,
        sla_weight=0.7,
        same_target=same_target,
        same_user_negatives=same_user_negatives,
    )
    monkeypatch.setattr(trainer, "draw_depths", lambda: {"num_steps": 3, "view_num_steps": 2, "intermediate_step": 1})
    batch = whole_batch(trainer)
    initial_state = 3 * torch.randn(*batch["input_ids"].shape, 8)
    view_state = 3 * torch.randn(*batch["view_input_ids"].shape, 8)
    samples = samples_of(batch)
    assert sorted((items, target) for items, _, _, target in samples) == expected_samples()

    weight = model.get_input_embeddings().weight
    total, first_steps, last_steps = 0, [], []
    for items, row, slots, target in samples:
        first, _, last = written_out.lares_states(model, items, initial_state[row, slots], 3)
        total = total + written_out.item_loss(last, weight, target)
        first_steps.append(first)
        last_steps.append(last)
    trajectories = [
        written_out.lares_states(model, items, view_state[row, slots], 2)[-1]
        for items, row, slots in prefixes(batch["view_input_ids"], batch["view_position_ids"], batch["view_index"])
    ]
    views = trajectories[: len(samples)], trajectories[len(samples) :]
    users = None if same_user_negatives else batch["sample_users"].tolist()
    tla = written_out.info_nce(*views, users=users)
    sla = written_out.info_nce(first_steps, last_steps, users=users)
    expected = (total + 0.3 * tla + 0.7 * sla) / len(samples)

    inputs = {**batch, "initial_state": initial_state, "view_initial_state": view_state}
    loss = trainer.compute_loss(model, inputs)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    check_gradients(loss, expected, model)


@pytest.mark.parametrize("same_target", [False, True])
def test_the_two_trajectories(tmp_path, same_target):
    """The history itself, and itself once more or one with the same target; from different T_0."""
    trainer = make_trainer(tmp_path, "lares", same_target=same_target)
    batch = whole_batch(trainer)
    samples = samples_of(batch)
    views = [
        items for items, *_ in prefixes(*(batch[f"view_{name}"] for name in ("input_ids", "position_ids", "index")))
    ]
    first, second = views[: len(samples)], views[len(samples) :]
    assert first == [items for items, *_ in samples]
    assert (second == first) != same_target
    for (items, *_, target), other in zip(samples, second, strict=True):
        others = [history for history, found in expected_samples() if found == target and history != items]
        assert other in (others if same_target and others else [items])
    batch.pop("sample_users")
    outputs = trainer.model(**batch, num_steps=2)
    one, other = outputs.view_states.chunk(2)
    assert ((one - other).abs().amax(-1) > 1e-3).all()


def test_a_step_has_depths_of_its_own(tmp_path):
    trainer = make_trainer(tmp_path, "lares")
    drawn = []
    for step in range(1500):
        trainer.state.global_step = step
        depths = trainer.draw_depths()
        assert step % 100 or depths == trainer.draw_depths()
        assert ("intermediate_step" in depths) == (depths["num_steps"] > 1)
        assert 1 <= depths.get("intermediate_step", 1) <= max(depths["num_steps"] - 1, 1)
        drawn.append(depths)
    for name in ("num_steps", "view_num_steps"):  # mean_steps is 3: one more on average, at most 9
        steps = torch.tensor([depths[name] for depths in drawn], dtype=torch.float)
        assert steps.min() == 1 and steps.max() == 9 and 3.8 < steps.mean() < 4.1
    pairs = torch.tensor([[depths["num_steps"], depths["view_num_steps"]] for depths in drawn], dtype=torch.float)
    assert torch.corrcoef(pairs.T)[0, 1].abs() < 4 / 1500**0.5
    lag = torch.corrcoef(torch.stack([pairs[:-1, 0], pairs[1:, 0]]))[0, 1]
    assert lag.abs() < 4 / 1500**0.5
    chosen = Counter(depths["intermediate_step"] for depths in drawn if depths["num_steps"] == 4)
    total = sum(chosen.values())
    assert sorted(chosen) == [1, 2, 3]
    assert all(abs(count - total / 3) < 4 * (total * 2 / 9) ** 0.5 for count in chosen.values())


def test_another_seed_draws_other_depths(tmp_path):
    drawn = []
    for seed in (0, 0, 1):
        trainer = make_trainer(tmp_path, "lares", seed=seed)
        depths = []
        for step in range(20):
            trainer.state.global_step = step
            depths.append(trainer.draw_depths())
        drawn.append(depths)
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_fixed_depth(tmp_path):
    trainer = make_trainer(tmp_path, "lares", fixed_depth=True)
    depths = trainer.draw_depths()
    assert depths["num_steps"] == depths["view_num_steps"] == 3 and depths["intermediate_step"] in (1, 2)


def test_terms_that_are_left_out(tmp_path):
    trainer = make_trainer(tmp_path, "lares", tla_weight=0.0, sla_weight=0.0)
    assert "intermediate_step" not in trainer.draw_depths() and "view_input_ids" not in whole_batch(trainer)
    trainer.train()
    assert not history(trainer, "loss/recommendation") and len(history(trainer, "loss")) == 1


def test_terms_are_logged(tmp_path):
    trainer = make_trainer(tmp_path, "lares", fixed_depth=True, max_steps=2)
    trainer.train()
    names = ("recommendation", "trajectory_alignment", "step_alignment")
    terms = zip(*(history(trainer, f"loss/{name}") for name in names), strict=True)
    assert history(trainer, "loss") == pytest.approx([sum(step) for step in terms], abs=1e-4)
    assert min(history(trainer, "loss/trajectory_alignment") + history(trainer, "loss/step_alignment")) > 0


class Recorder:
    """Depths of every pass."""

    def __init__(self, trainer):
        self.depths, draw = [], trainer.draw_depths

        def draw_depths():
            self.depths.append(draw())
            return self.depths[-1]

        trainer.draw_depths = draw_depths


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def make():
        model = make_model("lares", dropout=0.3, attention_dropout=0.2)
        settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": 5, "learning_rate": 1e-2}
        return make_trainer(tmp_path, "lares", model, **settings)

    whole = make()
    recorder = Recorder(whole)
    whole.train()
    torch.manual_seed(99)
    resumed = make()
    again = Recorder(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert again.depths == recorder.depths[5:] and len({str(depths) for depths in recorder.depths}) > 3
    assert history(resumed, "loss") == history(whole, "loss") and len(history(whole, "loss")) == 8
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_micro_batches_of_a_step_share_their_depths(tmp_path):
    trainer = make_trainer(
        tmp_path, "lares", gradient_accumulation_steps=3, per_device_train_batch_size=1, max_steps=3
    )
    recorder = Recorder(trainer)
    trainer.train()
    steps = [recorder.depths[start : start + 3] for start in (0, 3, 6)]
    assert len(recorder.depths) == 9 and all(step == step[:1] * 3 for step in steps) and steps[0] != steps[1]


def test_evaluation_takes_the_steps_of_inference(tmp_path):
    """And the T_0 of inference: twice the same, whatever was drawn in between."""
    trainer = make_trainer(tmp_path, "lares", per_device_eval_batch_size=16)
    trainer.eval_dataset = trainer.train_dataset
    calls = []
    trainer.model.model.core_block.register_forward_hook(lambda *_: calls.append(1))
    first = trainer.evaluate()["eval_loss"]
    assert len(calls) == 3  # the rows fit into one batch
    torch.randn(3)
    assert trainer.evaluate()["eval_loss"] == first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tla_weight": -0.1}, "tla_weight is -0.1; pass 0 or more"),
        ({"sla_weight": -0.1}, "sla_weight is -0.1"),
        ({"depth_sigma": -1.0}, "depth_sigma is -1.0"),
        ({"contrastive": "duorec"}, "contrastive is 'duorec', but LARES has alignments of its own"),
        ({"contrastive_weight": 0.3}, "contrastive_weight is 0.3, but LARES has alignments of its own"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_settings_that_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=f"LaresTrainingConfig: {message}"):
        LaresTrainingConfig(str(tmp_path), **settings)
