"""LR-GRPO on a tiny model: what a step computes, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.trainer import LRGRPOTrainer
from tests.trainer.thought_runs import TITLES, RecorderMixin, answer_of, collate_titles, history, prompt_of, train


class Recorder(RecorderMixin, LRGRPOTrainer):
    pass


@pytest.fixture
def make_trainer(make_thought_trainer):
    def make(trainer_class=LRGRPOTrainer, **settings):
        return make_thought_trainer(trainer_class, **settings)

    return make


def slow_rewards(model, rows, noise, trie=None):
    """Eq. 6 for one user and one thought at a time; log-probabilities with gradient."""
    logps, rewards = [], []
    for row, noise_KD in zip(rows, noise, strict=True):
        prompt, answer = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        group = [
            model(prompt, labels=answer, thought_noise=one[None, None], item_trie=trie).logps[0, 0] for one in noise_KD
        ]
        logps.append(group)
        rewards.append([-math.exp(-sum(logp.tolist()) / len(logp)) for logp in group])
    return logps, rewards


@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
@pytest.mark.parametrize("advantage", ["batch", "group"])
def test_first_step_equals_the_loop(make_trainer, make_policy, titles, normalize, advantage):
    trainer = train(make_trainer(
        Recorder, max_steps=1, per_device_train_batch_size=8, advantage=advantage, normalize=normalize, noise_std=0.7
    ))  # fmt: skip
    (inputs,) = trainer.trained
    by_answer = {tuple(row["labels"]): row for row in titles.rows}
    rows = [by_answer[tuple(answer_of(inputs, b))] for b in range(8)]
    model = make_policy().eval()
    trie = titles.trie if normalize == "catalog" else None
    logps, rewards = slow_rewards(model, rows, inputs["thought_noise"], trie)
    if advantage == "batch":
        baseline = sum(group[0] for group in rewards) / 8
        norm = math.sqrt(sum((reward - baseline) ** 2 for group in rewards for reward in group))
        advantages = [[(reward - baseline) / (norm + 1e-6) for reward in group] for group in rewards]
    else:
        advantages = []
        for group in rewards:
            mean = sum(group) / 4
            std = math.sqrt(sum((reward - mean) ** 2 for reward in group) / 3)
            advantages.append([(reward - mean) / (std + 1e-4) for reward in group])
    torch.testing.assert_close(inputs["advantages"], torch.tensor(advantages), atol=1e-4, rtol=1e-3)
    # Eq. 8 at ratio 1: the mean over prompts, thoughts and tokens of -A, with the gradient of -A log p.
    loss = sum(-advantages[b][k] * logps[b][k].sum() / len(logps[b][k]) / 4 / 8 for b in range(8) for k in range(4))
    loss.backward()
    for name, parameter in model.reasoner.named_parameters():
        torch.testing.assert_close(trainer.gradients[0][f"reasoner.{name}"], parameter.grad, atol=1e-6, rtol=1e-3)
    assert history(trainer, "loss") == pytest.approx([-sum(map(sum, advantages)) / 32], abs=1e-5)
    assert history(trainer, "reward") == pytest.approx([sum(group[0] for group in rewards) / 8], rel=1e-4)
    perturbed = [reward for group in rewards for reward in group[1:]]
    assert history(trainer, "reward_perturbed") == pytest.approx([sum(perturbed) / 24], rel=1e-4)
    stds = torch.tensor(rewards).std(-1)
    assert history(trainer, "reward_std") == pytest.approx([stds.mean().item()], rel=1e-3)
    assert history(trainer, "frac_reward_zero_std") == history(trainer, "frac_perplexity_clamped") == [0.0]
    assert history(trainer, "clip_ratio/low_mean") == history(trainer, "clip_ratio/high_mean") == [0.0]
    assert history(trainer, "kl") == [] and history(trainer, "grad_norm")[0] > 0


def test_only_the_reasoner_moves(make_trainer):
    trainer = make_trainer(learning_rate=0.1)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"reasoner.{which}_proj.{part}" for which in "qkv" for part in ("weight", "bias")}
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == moved


@pytest.mark.parametrize("reasoner", ["latent_attention", "feedback"])
def test_full_model_tuning_moves_every_parameter(make_trainer, make_policy, reasoner):
    trainer = make_trainer(model=make_policy(2, reasoner), train_only_reasoner=False, learning_rate=0.1)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])] == []


def mean_target_logps(model, rows):
    batch = collate_titles(rows)
    with torch.no_grad():
        logps = model.eval()(batch["input_ids"], batch["attention_mask"], batch["labels"]).logps
    return logps.sum(-1) / (batch["labels"] != -100).sum(-1)


def test_batch_advantages_move_targets_apart(make_trainer, titles):
    """Eq. 8 scores the target after every thought: targets likelier than the batch's go up, the others down."""
    trainer = make_trainer(
        max_steps=20, learning_rate=2e-3, noise_std=0.3, per_device_train_batch_size=8, num_generations=8
    )
    before = mean_target_logps(trainer.model, titles.rows)
    reward = -(-before).exp()
    advantage = (reward - reward.mean()) / (reward - reward.mean()).norm()
    trainer.train()
    moved = mean_target_logps(trainer.model, titles.rows) - before
    assert (advantage * moved).sum() > 0.1
    assert moved[advantage.argmax()] > 0 > moved[advantage.argmin()]


def test_group_advantages_need_no_second_forward(make_trainer):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1}
    assert train(make_trainer(Recorder, advantage="group", **settings)).num_forwards == 4
    assert train(make_trainer(Recorder, advantage="batch", **settings)).num_forwards == 8


def test_one_answer_in_the_catalog(make_trainer, titles):
    """Over a catalog of one item every answer is certain: equal rewards, no gradient, no NaN."""
    rows = [dict(row, labels=list(TITLES[0])) for row in titles.rows]
    trie = ItemTrie.from_sequences(TITLES[:1])
    for advantage in ("batch", "group"):
        trainer = train(
            make_trainer(Recorder, rows=rows, item_trie=trie, normalize="catalog", advantage=advantage, max_steps=1)
        )
        assert history(trainer, "frac_reward_zero_std") == [1.0] and history(trainer, "loss") == [0.0]
        assert history(trainer, "reward") == history(trainer, "reward_perturbed") == [-1.0]
        assert all((gradient == 0).all() for gradient in trainer.gradients[0].values())


def test_perplexities_that_overflow_are_clamped_and_counted(make_trainer, make_policy):
    model = make_policy()
    with torch.no_grad():
        model.lm_head.weight *= 1e4
    trainer = train(make_trainer(model=model, max_steps=2))
    assert history(trainer, "frac_perplexity_clamped")[0] > 0.5
    assert all(map(math.isfinite, history(trainer, "loss") + history(trainer, "reward_std")))


def test_evaluated_rewards_are_those_of_all_users(make_trainer, make_policy, titles):
    metrics = make_trainer(per_device_eval_batch_size=3).evaluate()
    _, rewards = slow_rewards(make_policy().eval(), titles.rows, torch.zeros(8, 1, 16))
    assert metrics["eval_reward"] == pytest.approx(sum(map(sum, rewards)) / 8, rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_exact_match_trains_on_generated_answers(make_trainer, make_policy, titles, accumulation):
    trainer = train(make_trainer(
        Recorder, reward="exact_match", advantage="group", max_steps=1, num_generations=6, noise_std=1.0,
        per_device_train_batch_size=8 // accumulation, gradient_accumulation_steps=accumulation,
    ))  # fmt: skip
    model = make_policy().eval()
    by_prompt = {tuple(row["input_ids"]): row["labels"] for row in titles.rows}
    loss, rewards = 0.0, []
    for inputs in trainer.trained:
        for b in range(len(inputs["labels"])):
            prompt = prompt_of(inputs, b)
            target = by_prompt[tuple(prompt.tolist())]
            answers = [[token for token in answer.tolist() if token != -100] for answer in inputs["labels"][b]]
            group = torch.tensor([float(answer == target) for answer in answers])
            rewards.append(group)
            advantages = (group - group.mean()) / (group.std() + 1e-4)
            torch.testing.assert_close(inputs["advantages"][b], advantages, atol=1e-4, rtol=1e-4)
            for answer, advantage, noise in zip(answers, advantages, inputs["thought_noise"][b], strict=True):
                assert tuple(answer) in TITLES
                output = model(prompt[None], labels=torch.tensor([answer]), thought_noise=noise[None, None])
                loss = loss - advantage * output.logps[0, 0].mean() / 6 / 8
    rewards = torch.stack(rewards)
    assert 0 < rewards.mean() < 1 and (rewards.std(-1) > 0).any()
    loss.backward()
    for name, parameter in model.reasoner.named_parameters():
        torch.testing.assert_close(trainer.gradients[0][f"reasoner.{name}"], parameter.grad, atol=1e-5, rtol=1e-3)
    assert history(trainer, "reward") == pytest.approx([rewards[:, 0].mean().item()])
    assert history(trainer, "reward_perturbed") == pytest.approx([rewards[:, 1:].mean().item()])
    assert history(trainer, "frac_reward_zero_std") == pytest.approx([(rewards.std(-1) == 0).float().mean().item()])
    assert history(trainer, "frac_perplexity_clamped") == []


def test_exact_match_raises_the_reward(make_trainer):
    settings = {"reward": "exact_match", "advantage": "group", "noise_std": 1.0, "num_generations": 8}
    settings |= {"max_steps": 40, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    trainer = train(make_trainer(per_device_train_batch_size=8, **settings))
    rewards = history(trainer, "reward")
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
    assert trainer.evaluate()["eval_reward"] >= rewards[0]


def test_exact_match_needs_a_trie(make_trainer):
    with pytest.raises(ValueError, match="no item trie"):
        make_trainer(reward="exact_match", item_trie=None)
    assert train(make_trainer(item_trie=None, max_steps=1)).state.global_step == 1


def test_bfloat16(make_trainer, make_policy):
    trainer = train(make_trainer(Recorder, model=make_policy().to(torch.bfloat16), learning_rate=0.1))
    assert trainer.trained[0]["advantages"].dtype == torch.float32
    assert all(map(math.isfinite, history(trainer, "loss")))
    assert isinstance(trainer.model.reasoner, nn.Module)
