"""LASAR's GRPO on a tiny model: what a step computes, that it learns, and that runs can be split and resumed."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.modes import eval_mode
from hf_latentrec.trainer import LASARGRPOConfig, LASARGRPOTrainer, group_advantage, ndcg_reward, rule_reward
from tests.trainer.thought_runs import collate_titles


@pytest.fixture
def make_trainer(tmp_path, toy, make_model):
    def make(
        trainer_class=LASARGRPOTrainer, model=None, item_trie=toy.trie, reward_funcs=None, dataset=toy.dataset, **args
    ):
        settings = {
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "logging_steps": 1,
            "max_steps": 3,
            "save_strategy": "no",
            **args,
        }
        return trainer_class(
            make_model() if model is None else model,
            LASARGRPOConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=toy.collate,
            train_dataset=dataset,
            eval_dataset=dataset,
            item_trie=item_trie,
            reward_funcs=reward_funcs,
        )

    return make


class Recorder(LASARGRPOTrainer):
    """Keeps every rollout that is trained on and every step's gradient."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.__dict__.setdefault("trained", []).append((self.state.global_step, inputs))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _clip_grad_norm(self, model):
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        self.__dict__.setdefault("gradients", []).append(gradients)
        return super()._clip_grad_norm(model)


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def target_logps(model, toy, trie):
    batch = toy.collate(toy.rows)
    with eval_mode(model), torch.no_grad():
        return model(batch["input_ids"], batch["attention_mask"], batch["labels"], item_trie=trie).logps.sum(-1)


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_every_parameter_moves_and_the_reference_does_not(make_trainer, normalize):
    trainer = make_trainer(learning_rate=0.1, normalize=normalize, num_generations=10)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    unmoved = [name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])]
    assert unmoved == []
    for name, parameter in trainer.ref_model.named_parameters():
        assert torch.equal(parameter, before[name]) and not parameter.requires_grad
    assert not trainer.ref_model.training


def test_it_raises_the_probability_of_targets(make_trainer, toy):
    trainer = make_trainer(max_steps=30, learning_rate=1e-2, per_device_train_batch_size=8, num_generations=10)
    before = target_logps(trainer.model, toy, toy.trie)
    trainer.train()
    after = target_logps(trainer.model, toy, toy.trie)
    assert (after > before).all() and after.exp().mean() > 3 * before.exp().mean()
    assert history(trainer, "hit_rate") == [1.0] * 30  # ten candidates of ten items


def test_rollout_against_generate(make_trainer, toy):
    trainer = make_trainer(num_iterations=2, num_generations=3)
    batch = toy.collate(toy.rows)
    trainer.model.train()
    (rollout,), num_items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    assert num_items == len(toy.rows)
    assert trainer.model.training
    model = trainer.model.eval()
    for row in range(len(toy.rows)):
        prompt = {name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask")}
        output = model.generate(**prompt, item_trie=toy.trie, num_beams=3, num_return_sequences=3)
        assert torch.equal(rollout["labels"][row], output.sequences)
        torch.testing.assert_close(rollout["old_logps"][row].sum(-1), output.sequences_scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollout["ref_logps"], rollout["old_logps"])
    rewards = rule_reward(rollout["labels"], batch["labels"]) + ndcg_reward(rollout["labels"], batch["labels"])
    assert torch.equal(rollout["advantages"], group_advantage(rewards).advantages)
    assert rollout["user_ids"] == batch["user_ids"]


def test_first_step_is_the_policy_gradient(make_trainer, toy):
    """Before the first update the ratio is 1 and KL 0: the loss is -mean A, its gradient -mean A d logp."""
    trainer = make_trainer(Recorder, max_steps=1, per_device_train_batch_size=8, max_grad_norm=1e9)
    trainer.train()
    model = make_trainer().model
    ((_, rollout),) = trainer.trained
    logps = model(rollout["input_ids"], rollout["attention_mask"], rollout["labels"], item_trie=toy.trie).logps
    (-(rollout["advantages"] * logps.mean(-1)).mean()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trainer.gradients[0][name], parameter.grad, atol=1e-6, rtol=1e-4)
    assert history(trainer, "kl") == pytest.approx([0.0], abs=1e-6)
    assert history(trainer, "loss") == pytest.approx([-rollout["advantages"].mean().item()], abs=1e-4)


def test_accumulated_gradient_equals_that_of_one_batch(make_trainer):
    trainers = []
    for batch_size, accumulation in [(4, 1), (1, 4)]:
        trainer = make_trainer(
            Recorder,
            max_steps=4,
            num_iterations=2,
            beta=0.5,
            optim="sgd",  # Adam would turn the rounding of tiny gradients into full steps
            learning_rate=0.5,
            warmup_steps=0,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        trainers.append(trainer)
    for ours, theirs in zip(trainers[0].gradients, trainers[1].gradients, strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-3)
    kls = history(trainers[0], "kl")
    assert max(kls) > 1e-3 and history(trainers[0], "loss/kl") == pytest.approx([0.5 * kl for kl in kls], rel=1e-3)
    for key in ("reward", "hit_rate", "kl", "loss", "frac_reward_zero_std"):
        assert history(trainers[0], key) == pytest.approx(history(trainers[1], key), abs=2e-4)


def test_iterations_train_on_one_rollout(make_trainer):
    trainer = make_trainer(
        Recorder, max_steps=4, num_iterations=2, gradient_accumulation_steps=2, per_device_train_batch_size=2
    )
    trainer.train()
    steps = [step for step, _ in trainer.trained]
    rollouts = [inputs for _, inputs in trainer.trained]
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3]
    for first, second in [(0, 2), (1, 3), (4, 6), (5, 7)]:
        assert torch.equal(rollouts[first]["labels"], rollouts[second]["labels"])
        assert rollouts[first]["user_ids"] == rollouts[second]["user_ids"]
    assert len({user for rollout in rollouts for user in rollout["user_ids"]}) == 8
    assert not trainer._rollouts


def test_later_iterations_clip(make_trainer):
    trainer = make_trainer(max_steps=4, num_iterations=4, learning_rate=0.05, epsilon=0.01, warmup_steps=0)
    trainer.train()
    low, high = history(trainer, "clip_ratio/low_mean"), history(trainer, "clip_ratio/high_mean")
    assert low[0] == high[0] == 0 and max(low[1:]) > 0 and max(high[1:]) > 0


@pytest.mark.parametrize("disable_dropout", [True, False])
def test_dropout(make_trainer, make_model, disable_dropout):
    """Candidates and their old log-probabilities never have dropout; training has it only if asked."""
    trainer = make_trainer(
        Recorder,
        model=make_model(embedding_dropout=0.5),
        max_steps=2,
        num_iterations=2,
        learning_rate=0.0,
        disable_dropout=disable_dropout,
    )
    trainer.train()
    for _, inputs in trainer.trained:
        torch.testing.assert_close(inputs["old_logps"], inputs["ref_logps"])
    assert (history(trainer, "kl")[0] < 1e-6) == disable_dropout


def test_fewer_items_than_candidates(make_trainer, toy):
    """A catalog of three items: the groups are smaller, and the missing candidates change nothing."""
    trie = ItemTrie.from_sequences(toy.items[:3])
    rows = [dict(row, labels=list(toy.items[index % 3])) for index, row in enumerate(toy.rows)]
    runs = []
    for num_generations in (3, 8):
        trainer = make_trainer(
            Recorder, item_trie=trie, dataset=rows, num_generations=num_generations, learning_rate=0.01
        )
        trainer.train()
        runs.append(trainer)
    labels = runs[1].trained[0][1]["labels"]
    assert (labels[:, :3] >= 0).all() and (labels[:, 3:] == -100).all()
    for key in ("loss", "reward", "reward_std", "advantage_std", "kl", "hit_rate"):
        assert history(runs[0], key) == pytest.approx(history(runs[1], key), abs=1e-4)
    for name, gradient in runs[0].gradients[-1].items():
        torch.testing.assert_close(gradient, runs[1].gradients[-1][name], atol=1e-5, rtol=1e-3)


def test_logged_rewards(make_trainer, toy):
    trainer = make_trainer(Recorder, max_steps=1, per_device_train_batch_size=8, reward_weights=[2.0, 0.5])
    trainer.train()
    ((_, rollout),) = trainer.trained
    by_user = {row["user_id"]: row["labels"] for row in toy.rows}
    target = torch.tensor([by_user[user] for user in rollout["user_ids"]])
    rule, ndcg = rule_reward(rollout["labels"], target), ndcg_reward(rollout["labels"], target)
    hit = rule.any(-1)
    assert 0 < hit.sum() < 8
    expected = {
        "rewards/rule_reward/mean": rule.mean(),
        "rewards/ndcg_reward/mean": ndcg.mean(),
        "reward": (2 * rule + 0.5 * ndcg).mean(),
        "reward_std": (2 * rule + 0.5 * ndcg).std(-1).mean(),
        "hit_rate": hit.float().mean(),
        "frac_reward_zero_std": (~hit).float().mean(),
        "advantage_std": rollout["advantages"].std(-1).mean(),
    }
    for key, value in expected.items():
        assert history(trainer, key) == pytest.approx([value.item()], abs=1e-5)


@pytest.mark.parametrize("stop", [2, 6])  # two steps fill an epoch of 4 x 2
def test_resumed_run_equals_uninterrupted_run(make_trainer, make_model, stop):
    settings = {
        "max_steps": 8,
        "num_iterations": 2,
        "save_strategy": "steps",
        "save_steps": stop,
        "learning_rate": 1e-2,
        "disable_dropout": False,
        "per_device_train_batch_size": 2,
    }
    whole = make_trainer(model=make_model(embedding_dropout=0.3), **settings)
    whole.train()
    torch.manual_seed(99)
    resumed = make_trainer(model=make_model(embedding_dropout=0.3), **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop}")
    for key in ("loss", "kl"):
        assert history(resumed, key)[-(8 - stop) :] == history(whole, key)[-(8 - stop) :]
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_resuming_between_two_iterations_is_refused(make_trainer):
    make_trainer(max_steps=1, num_iterations=2, save_strategy="steps", save_steps=2).train()
    trainer = make_trainer(max_steps=4, num_iterations=2)
    with pytest.raises(ValueError, match="step 1 is iteration 1 of 2 on a rollout that was not saved"):
        trainer.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-1")


def test_evaluation_reports_rewards(make_trainer):
    metrics = make_trainer(num_generations=10).evaluate()
    assert metrics["eval_hit_rate"] == 1.0 and metrics["eval_kl"] == pytest.approx(0.0, abs=1e-6)


def test_own_rewards_and_bad_arguments(make_trainer):
    def favour_four(candidates, target):
        return (candidates[..., 0] == 4).float()

    trainer = make_trainer(max_steps=1, reward_funcs=[favour_four], beta=0.0)
    trainer.train()
    assert trainer.ref_model is None and history(trainer, "kl") == []
    assert history(trainer, "rewards/favour_four/mean") == history(trainer, "reward")
    with pytest.raises(ValueError, match="1 reward_weights for 2 reward functions"):
        make_trainer(reward_weights=[1.0])
    with pytest.raises(ValueError, match="no item trie"):
        make_trainer(item_trie=None, normalize="vocabulary")


def test_answers_of_different_lengths(make_trainer, titles):
    """Targets are wider than what was found, or narrower; a repaired group holds its target."""
    trainer = make_trainer(
        Recorder,
        item_trie=titles.trie,
        dataset=titles.rows,
        per_device_train_batch_size=1,
        max_steps=8,
        num_generations=2,
        group_repair="target",
    )
    trainer.data_collator = collate_titles
    trainer.train()
    answers = {row["user_id"]: row["labels"] for row in titles.rows}
    for _, rollout in trainer.trained:
        (user,), (candidates,) = rollout["user_ids"], rollout["labels"].tolist()
        assert answers[user] in [[token for token in row if token != -100] for row in candidates]


def test_longer_targets_are_refused(make_trainer, toy):
    rows = [dict(row, labels=[*row["labels"], 3]) for row in toy.rows]
    with pytest.raises(ValueError, match=r"have the shape \(4, 3\), but the catalog's longest answer has 2 tokens"):
        make_trainer(dataset=rows).train()
