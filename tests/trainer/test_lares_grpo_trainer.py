"""RPT against a loop over samples, rollouts and steps; what reaches the weights, and what is logged."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from hf_latentrec.data import NumberedCollator
from hf_latentrec.trainer import LaresGRPOConfig, LaresGRPOTrainer, SelectedSamples
from hf_latentrec.trainer.lares_grpo_trainer import same_dropout
from tests.trainer.lares_toys import make_toy


IGNORE_INDEX = -100
G, K = 4, 3


@pytest.fixture
def make_trainer(tmp_path):
    def make(packed: bool = True, toy: dict | None = None, **settings) -> LaresGRPOTrainer:
        model, dataset, _ = make_toy(packed=packed, **(toy or {}))
        settings = {
            "per_device_train_batch_size": 6, "max_steps": 2, "logging_steps": 1, "save_strategy": "no", **settings,
        }  # fmt: skip
        args = LaresGRPOConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings)
        return LaresGRPOTrainer(model, args, train_dataset=dataset)

    return make


def moved(model, scale: float = 0.1):
    """The same model a few steps later."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn_like(parameter), alpha=scale * float(parameter.std() if parameter.numel() > 1 else 1)
            )
    return model


def rollout_of(trainer, num_rows: int = 5, stream: str = "train") -> dict:
    dataset = trainer.train_dataset
    batch = trainer.data_collator([dataset[row] for row in range(num_rows)])
    return trainer._roll_out(trainer.model, [batch], stream, index=3)[0]


def samples_of(rollout) -> list[tuple[int, int, int]]:
    """Row, place and start of the history of every sample."""
    found = []
    for row, place in (rollout["labels"] != IGNORE_INDEX).nonzero().tolist():
        start = place if rollout["position_ids"] is None else int(place - rollout["position_ids"][row, place])
        found.append((row, 0 if rollout["position_ids"] is None else start, place))
    return found


def loop_scores(model, rollout, states: str) -> list[list[list[torch.Tensor]]]:
    """Scores [I] by sample, rollout and step, each of its history alone."""
    return [
        [
            [
                model(
                    rollout["input_ids"][row : row + 1, start : place + 1],
                    initial_state=rollout[states][row : row + 1, rollout_number, start : place + 1],
                    num_steps=step + 1,
                ).logits[0]
                for step in range(K)
            ]
            for rollout_number in range(G)
        ]
        for row, start, place in samples_of(rollout)
    ]


def rank_of(scores: torch.Tensor, item: int) -> int:
    return sorted(range(len(scores)), key=lambda other: (-scores[other].item(), other)).index(item) + 1


def loop_loss(model, old, reference, rollout, args) -> tuple[torch.Tensor, list[list[float]]]:
    """The loss of a batch, and its rewards; `old` is the policy that rolled out."""
    targets = (rollout["labels"][rollout["labels"] != IGNORE_INDEX] - 1).tolist()
    scores, old_scores = loop_scores(model, rollout, "initial_states"), loop_scores(old, rollout, "initial_states")
    reference_scores = loop_scores(reference, rollout, "reference_states")
    loss, all_rewards = 0.0, []
    for sample, target in enumerate(targets):
        ranks = [rank_of(old_scores[sample][rollout_number][-1], target) for rollout_number in range(G)]
        gains = [1.0 if args.reward == "recall" else 1 / math.log2(rank + 1) for rank in ranks]
        rewards = [gain if rank <= args.reward_k else 0.0 for gain, rank in zip(gains, ranks, strict=True)]
        all_rewards.append(rewards)
        mean = sum(rewards) / G
        std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (G - 1))
        for rollout_number, reward in enumerate(rewards):
            advantage = 0.0 if max(rewards) == min(rewards) else (reward - mean) / (std + 1e-4)
            items = []
            for step in range(K):
                by_step = old_scores[sample][rollout_number]
                best = by_step[-1].argsort(descending=True).tolist()
                negative = best[1] if best[0] == target else best[0]
                hybrid = negative if advantage < 0 else target
                items.append({"target": target, "hybrid": hybrid, "top": int(by_step[step].argmax())}[args.policy])

            def logps(which, sample=sample, rollout_number=rollout_number, items=items):
                return [
                    step.log_softmax(-1)[item] for step, item in zip(which[sample][rollout_number], items, strict=True)
                ]

            mine, before, theirs = logps(scores), logps(old_scores), logps(reference_scores)
            ratio = (sum(mine) - sum(before).detach()).exp()
            clipped = ratio.clamp(1 - args.epsilon, 1 + args.epsilon)
            loss = loss - torch.min(ratio * advantage, clipped * advantage)
            for policy, frozen in zip(mine, theirs, strict=True):
                delta = frozen.detach() - policy
                loss = loss + args.beta * (delta.exp() - delta - 1)
    return loss / (G * len(targets)), all_rewards


@pytest.mark.parametrize("policy, packed", [("target", True), ("hybrid", True), ("top", True), ("hybrid", False)])
def test_loss_and_gradient_equal_the_loop(make_trainer, policy, packed):
    trainer = make_trainer(packed, policy=policy, reward="ndcg", reward_k=30)
    model = moved(trainer.model)  # so that policy and reference differ
    rollout = rollout_of(trainer, 2 if packed else 8)
    expected, rewards = loop_loss(model, model, trainer.ref_model, rollout, trainer.args)
    assert len({tuple(group) for group in rewards if max(group) > min(group)}) > 1
    assert any(max(group) == min(group) for group in rewards)
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss = trainer.compute_loss(model, rollout)
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-3, rtol=1e-3, msg=name)


def test_later_steps_on_a_rollout_are_clipped_against_the_old_policy(make_trainer):
    trainer = make_trainer(num_iterations=2, policy="hybrid", reward_k=15)
    rollout = rollout_of(trainer, 3)
    old = copy.deepcopy(trainer.model)
    moved(trainer.model, 0.02)
    expected, _ = loop_loss(trainer.model, old, trainer.ref_model, rollout, trainer.args)
    torch.testing.assert_close(trainer.compute_loss(trainer.model, rollout), expected, atol=1e-4, rtol=1e-4)
    clipped = {name: float(pair[0] / pair[1]) for name, pair in trainer.means._sums.items() if "clip" in name}
    assert 0 < clipped["clip_ratio/low_mean"] < 1 and 0 < clipped["clip_ratio/high_mean"] < 1


@pytest.mark.parametrize("backbone", ["fmlp", "bsarec"])
def test_backbones_that_look_at_the_whole_window(make_trainer, backbone):
    trainer = make_trainer(packed=False, toy={"backbone": backbone}, learning_rate=1e-2, reward_k=25)
    rollout = rollout_of(trainer, 8)
    assert rollout["initial_states"].shape == (8, G, 6, 16)
    (row,) = (rollout["labels"][5] != IGNORE_INDEX).nonzero()[0].tolist()
    for number in range(G):
        scores = trainer.model(
            rollout["input_ids"][5:6, : row + 1], initial_state=rollout["initial_states"][5:6, number]
        ).logits[0]  # fmt: skip
        found = trainer.score(trainer.model, rollout).logps[5, number, -1]
        torch.testing.assert_close(found, scores.log_softmax(-1)[rollout["judged_items"][5, number, -1]])
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert any(log.get("frac_reward_zero_std", 1) < 1 for log in trainer.state.log_history)
    assert all(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("disable_dropout", [False, True])
def test_all_that_is_trained_has_a_gradient_with_texts_too(make_trainer, disable_dropout):
    """Else DDP waits for it."""
    toy = {"backbone": "tedrec", "text_size": 5}
    trainer = make_trainer(packed=False, toy=toy, disable_dropout=disable_dropout, reward_k=25)
    trainer.compute_loss(trainer.model.train(), rollout_of(trainer, 8)).backward()
    without = {name for name, parameter in trainer.model.named_parameters() if parameter.grad is None}
    assert without == {name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad}
    assert len(without) == disable_dropout  # the weight of the gate's noise


def test_a_group_without_spread_adds_no_policy_gradient(make_trainer):
    trainer = make_trainer(beta=0.0, reward_k=60)  # every target is within reach
    loss = trainer.compute_loss(trainer.model, rollout_of(trainer))
    loss.backward()
    assert trainer.means.pop()["frac_reward_zero_std"] == 1.0
    assert all(not parameter.grad.any() for parameter in trainer.model.parameters())


def test_what_is_logged(make_trainer):
    trainer = make_trainer(reward_k=15)
    rollout = rollout_of(trainer, 6)
    _, rewards = loop_loss(trainer.model, trainer.model, trainer.ref_model, rollout, trainer.args)
    trainer.compute_loss(trainer.model, rollout)
    logged = trainer.means.pop()
    groups = torch.tensor(rewards)
    assert logged["reward"] == pytest.approx(float(groups.mean()))
    assert logged["reward_std"] == pytest.approx(float(groups.std(-1).mean()), abs=1e-6)
    assert 0 < logged["frac_reward_zero_std"] < 1
    assert logged["frac_reward_zero_std"] == pytest.approx(
        sum(len(set(group)) == 1 for group in rewards) / len(rewards)
    )
    assert logged["clip_ratio/low_mean"] == logged["clip_ratio/high_mean"] == 0
    # With states of its own, the reference is away from the policy even before the first step.
    assert logged["kl"] > 0 and logged["loss/kl"] == pytest.approx(logged["kl"])


def test_only_the_policy_moves_and_all_of_it(make_trainer):
    trainer = make_trainer(learning_rate=1e-2)
    before, reference = (copy.deepcopy(model.state_dict()) for model in (trainer.model, trainer.ref_model))
    trainer.train()
    assert all(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert all(torch.equal(reference[name], value) for name, value in trainer.ref_model.state_dict().items())
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 2 and {"reward", "kl", "frac_reward_zero_std", "clip_ratio/low_mean"} <= rows[0].keys()


def test_selected_samples_are_what_is_trained(make_trainer):
    trainer = make_trainer()
    dataset = trainer.train_dataset
    selected = SelectedSamples(dataset, torch.arange(0, dataset.num_samples, 5).numpy())
    batch = NumberedCollator(selected)([selected[row] for row in range(4)])
    (rollout,) = trainer._roll_out(trainer.model, [batch], "train", 0)
    count = len(rollout["judged_items"])
    assert count == int(trainer.count_items(batch)) == len(batch["samples"]) < dataset.num_samples


@pytest.mark.parametrize("disable_dropout", [False, True])
def test_the_training_forward_ranks_as_a_forward_of_its_own_does(make_trainer, monkeypatch, disable_dropout):
    def losses(trainer) -> tuple[dict, torch.Tensor, list[torch.Tensor]]:
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, rollout_of(trainer))
        loss.backward()
        return trainer.means.pop(), loss.detach(), [parameter.grad.clone() for parameter in trainer.model.parameters()]

    trainer = make_trainer(
        toy={"dropout": 0.3, "attention_dropout": 0.3}, disable_dropout=disable_dropout, reward_k=15
    )
    moved(trainer.model)
    calls = []
    trainer.model.model.core_block.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    logged, *at_once = losses(trainer)
    assert calls == [True] * K and 0 < logged["frac_reward_zero_std"] < 1
    monkeypatch.setattr(LaresGRPOTrainer, "training_forward_ranks", False)
    calls.clear()
    logged_before, *before = losses(trainer)
    assert calls == [False] * K + [True] * K
    assert logged == pytest.approx(logged_before)
    torch.testing.assert_close(at_once, before, atol=1e-6, rtol=1e-5)


def test_dropout_is_the_same_wherever_a_rollout_is_scored(make_trainer):
    trainer = make_trainer(toy={"dropout": 0.3, "attention_dropout": 0.3}, num_iterations=2)
    state = torch.random.get_rng_state()
    first, again = rollout_of(trainer), rollout_of(trainer)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.testing.assert_close(first["old_logps"], again["old_logps"], atol=0, rtol=0)
    trainer.model.train()
    torch.testing.assert_close(trainer.score(trainer.model, first).logps.detach(), first["old_logps"])
    assert trainer.model.training
    assert first["dropout_seed"] is not None and rollout_of(trainer, stream="eval")["dropout_seed"] is None
    without = dict(first, dropout_seed=None)
    assert not torch.isclose(trainer.score(trainer.model, without).logps, first["old_logps"]).any()
    # The reference never drops: the same states give the same, whatever the seed.
    other = dict(first, dropout_seed=1)
    assert torch.equal(trainer.score(trainer.ref_model, other).logps, first["ref_logps"])


def test_dropout_differs_between_rollouts(make_trainer):
    trainer = make_trainer(toy={"dropout": 0.3, "initial_std": 0.0})
    logps = trainer.score(trainer.model, rollout_of(trainer)).logps
    assert not torch.isclose(logps[:, :1], logps[:, 1:]).any()
    with same_dropout(trainer.model, None):
        assert not trainer.model.training


def test_rollouts_that_would_all_be_the_same_are_refused(make_trainer):
    with pytest.raises(ValueError, match="initial_std is 0, .*there is no dropout"):
        make_trainer(toy={"initial_std": 0.0})
    with pytest.raises(ValueError, match="initial_std is 0, .*there is no dropout"):
        make_trainer(toy={"initial_std": 0.0, "dropout": 0.3}, disable_dropout=True)
    with pytest.raises(ValueError, match="initial_scale 0 and there is no dropout"):
        make_trainer(toy={"initial_scale": 0.0})


def test_a_resumed_run_goes_on_to_the_same_weights(tmp_path):
    def run(folder, resume=None, **settings):
        model, dataset, _ = make_toy()
        args = LaresGRPOConfig(
            tmp_path / folder, use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, max_steps=4,
            save_steps=2, learning_rate=1e-2, **settings,
        )  # fmt: skip
        trainer = LaresGRPOTrainer(model, args, train_dataset=dataset)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = run("whole")
    resumed = run("resumed", resume=str(tmp_path / "whole" / "checkpoint-2"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"reward": "mrr"}, "reward is 'mrr'; choose one of"),
        ({"policy": "greedy"}, "policy is 'greedy'; choose one of"),
        ({"reward_k": 0}, "reward_k is 0; pass at least 1"),
        ({"num_steps": 0}, "num_steps is 0; pass at least 1"),
        ({"num_generations": 1}, "num_generations is 1"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=f"LaresGRPOConfig: {message}"):
        LaresGRPOConfig(tmp_path, **settings)


def test_a_share_of_the_steps_may_be_saved_where_nothing_is_repeated(tmp_path):
    assert LaresGRPOConfig(tmp_path, use_cpu=True, save_steps=0.1).save_steps == 0.1
    with pytest.raises(ValueError, match="save_steps is 0.1 and num_iterations 2"):
        LaresGRPOConfig(tmp_path, use_cpu=True, save_steps=0.1, num_iterations=2)


def test_defaults_are_the_papers(tmp_path):
    args = LaresGRPOConfig(tmp_path, use_cpu=True)
    assert (args.num_generations, args.beta, args.learning_rate) == (4, 1.0, 5e-4)
    assert (args.reward, args.reward_k, args.policy, args.disable_dropout) == ("recall", 10, "target", False)
