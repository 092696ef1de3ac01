"""What all reinforcement learning shares: the reference, the generators of rollouts, and the mask of answers."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.trainer import RecGRPOConfig, RecGRPOTrainer
from hf_latentrec.trainer.grpo_trainer import answer_mask
from hf_latentrec.trainer.rollout_trainer import copy_as_reference, seeded_generator


class EqualAdvantages(RecGRPOTrainer):
    """The smallest algorithm: every target is its own group of one answer with advantage 1."""

    def roll_out(self, model, batches, generator):
        self.__dict__.setdefault("rolled_out", []).append([batch["user_ids"] for batch in batches])
        assert not model.training and not torch.is_grad_enabled()
        return [
            {
                **batch,
                "labels": batch["labels"][:, None],
                "advantages": torch.ones(len(batch["labels"]), 1),
                "drawn": torch.rand((), generator=generator),
            }
            for batch in batches
        ]

    def compute_terms(self, model, inputs, num_items_in_batch):
        self.__dict__.setdefault("trained", []).append(inputs)
        return super().compute_terms(model, inputs, num_items_in_batch)


@pytest.fixture
def make_trainer(tmp_path, toy, make_model):
    def make(model=None, **settings):
        settings = {"per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no", **settings}
        return EqualAdvantages(
            make_model() if model is None else model,
            RecGRPOConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=toy.collate,
            train_dataset=toy.dataset,
            eval_dataset=toy.dataset,
            item_trie=toy.trie,
        )

    return make


def test_reference_shares_what_is_frozen(make_trainer, make_model):
    model = make_model()
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    trainer = make_trainer(model, beta=0.1, max_steps=2, learning_rate=0.1)
    trainer.train()
    policy, reference = dict(model.named_parameters()), dict(trainer.ref_model.named_parameters())
    assert policy.keys() == reference.keys()
    shared = {name for name in policy if policy[name].data_ptr() == reference[name].data_ptr()}
    assert shared == policy.keys() - {"lm_head.weight"}
    assert torch.equal(reference["lm_head.weight"], make_model().lm_head.weight)
    assert not torch.equal(policy["lm_head.weight"], reference["lm_head.weight"])
    assert policy["lm_head.weight"].requires_grad and not any(p.requires_grad for p in reference.values())
    assert not any(module.training for module in trainer.ref_model.modules())


def test_reference_keeps_tied_parameters_tied(make_model):
    model = make_model(tie_word_embeddings=True)
    reference = copy_as_reference(model)
    assert reference.lm_head.weight is reference.get_input_embeddings().weight
    assert reference.lm_head.weight.data_ptr() != model.lm_head.weight.data_ptr()


def test_a_step_rolls_out_all_its_batches_before_it_trains(make_trainer):
    trainer = make_trainer(gradient_accumulation_steps=2, num_iterations=2, max_steps=4, save_steps=2)
    trainer.train()
    assert [len(users) for users in trainer.rolled_out] == [2, 2]
    assert len({user for step in trainer.rolled_out for users in step for user in users}) == 8
    drawn = [inputs["drawn"].item() for inputs in trainer.trained]
    first, second, third, fourth = (drawn[start : start + 2] for start in (0, 2, 4, 6))
    assert first == second and third == fourth and len(set(first + third)) == 4
    for rolled_out, trained in zip(trainer.trained[:2], trainer.trained[2:4], strict=True):
        assert torch.equal(rolled_out["old_logps"], trained["old_logps"])
    assert not trainer._rollouts


def test_evaluations_draw_the_same_numbers(make_trainer):
    trainer = make_trainer(per_device_eval_batch_size=4, max_steps=1)
    trainer.evaluate()
    trainer.train()
    first, during, second = trainer.trained[:2], trainer.trained[2:3], []
    trainer.trained.clear()
    trainer.evaluate()
    second = trainer.trained
    assert [x["drawn"].item() for x in first] == [x["drawn"].item() for x in second]
    assert len({x["drawn"].item() for x in [*first, *during]}) == 3


def test_seeded_generator_depends_on_seed_stream_and_index():
    keys = [(0, "train", 0), (1, "train", 0), (0, "eval", 0), (0, "train", 1), (0, "train", 2**32)]
    drawn = [torch.rand((), generator=seeded_generator(*key)).item() for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn[0] == torch.rand((), generator=seeded_generator(*keys[0])).item()


def test_answer_mask_of_shared_and_of_own_answers():
    logps = torch.zeros(1, 2, 3)
    shared = torch.tensor([[4, 5, -100]])
    assert answer_mask(shared, logps).tolist() == [[[True, True, False]] * 2]
    own = torch.tensor([[[4, -100, -100], [4, 5, 6]]])
    assert answer_mask(own, logps).tolist() == [[[True, False, False], [True, True, True]]]
