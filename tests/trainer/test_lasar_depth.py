"""LASAR's reinforcement learning beyond GRPO: drawn depths, REINFORCE, the terminal alignment, repaired groups."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset

from hf_latentrec.models.latent_reasoning.depth_policy import draw_depths
from hf_latentrec.trainer import LASARGRPOConfig, LASARGRPOTrainer, ndcg_reward, rule_reward
from hf_latentrec.trainer.rollout_trainer import seeded_generator
from tests.trainer.memory_anchors import ADAPTIVE, MemoryAnchors
from tests.trainer.test_thought_losses import slow_alignment, slow_softmax


OFF = {"beta": 0.0, "reinforce_coef": 0.0, "terminal_kl_weight": 0.0}


class Recorder(LASARGRPOTrainer):
    """Keeps every rollout that is trained on and every step's gradient."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.__dict__.setdefault("trained", []).append(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _clip_grad_norm(self, model):
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        kept = {name: None if grad is None else grad.clone() for name, grad in gradients.items()}
        self.__dict__.setdefault("gradients", []).append(kept)
        return super()._clip_grad_norm(model)


@pytest.fixture
def make_trainer(tmp_path, toy, rows, make_model):
    def make(model=None, anchors=None, rows=rows, **args):
        settings = {
            "per_device_train_batch_size": 8, "num_generations": 4, "logging_steps": 1, "max_steps": 1,
            "save_strategy": "no", "max_grad_norm": 1e9, "warmup_steps": 0, **args,
        }  # fmt: skip
        return Recorder(
            make_model(3, reasoner_config=ADAPTIVE, initializer_range=0.4) if model is None else model,
            LASARGRPOConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            anchors=anchors,
            data_collator=toy.collate,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows),
            item_trie=toy.trie,
        )

    return make


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_a_rollout_has_one_drawn_depth_per_prompt(make_trainer, toy):
    """The depths are the policy's quantiles; candidates, old and reference log-probabilities are of those depths."""
    trainer = make_trainer(num_iterations=2)
    batch = toy.collate(toy.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    model = trainer.model.eval()
    depths = rollout["num_thoughts"]
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        greedy = model(**prompt)
        noise = torch.rand(8, generator=seeded_generator(trainer.args.seed, "train", 0))
        assert torch.equal(depths, draw_depths(greedy.depth_logits, noise))
        assert len(depths.unique()) > 1 and not torch.equal(depths, greedy.num_thoughts)
        beams = model.generate(**prompt, item_trie=toy.trie, num_beams=4, num_return_sequences=4, num_thoughts=depths)
        scored = model(**prompt, labels=rollout["labels"], num_thoughts=depths, item_trie=toy.trie)
    assert torch.equal(rollout["labels"].flatten(0, 1), beams.sequences)
    for name in ("old_logps", "ref_logps"):
        torch.testing.assert_close(rollout[name], scored.logps)
    rewards = rule_reward(rollout["labels"], batch["labels"]) + ndcg_reward(rollout["labels"], batch["labels"])
    torch.testing.assert_close(rollout["depth_rewards"], rewards.mean(-1))


def test_terms_equal_the_loop(make_trainer, make_model, toy, rows, anchors):
    """With weights that change nothing yet; prompts one by one, segments looked up by hand."""
    settings = {"terminal_kl_weight": 0.3, "reinforce_coef": 0.7, "reinforce_n_penalty": 0.05, "learning_rate": 0.0}
    trainer = make_trainer(anchors=anchors, **settings, reinforce_entropy=0.2)
    trainer.train()
    (rollout,) = trainer.trained
    logs = trainer.state.log_history[0]
    baseline = rollout["depth_rewards"].mean().item()
    terminal, reinforce, entropies = 0.0, 0.0, 0.0
    by_user = {row["user_id"]: row for row in rows}
    for index, user in enumerate(rollout["user_ids"]):
        batch = toy.collate([by_user[user]])
        depth = int(rollout["num_thoughts"][index])
        output = trainer.model(batch["input_ids"], batch["attention_mask"], num_thoughts=depth)
        policy = slow_softmax(output.depth_logits[0].tolist())
        entropy = -sum(p * math.log(p) for p in policy)
        advantage = rollout["depth_rewards"][index].item() - baseline - 0.05 * depth
        reinforce += (-advantage * math.log(policy[depth - 1]) - 0.2 * entropy) / 8
        entropies += entropy / 8
        segments = anchors.by_answer.get((user, by_user[user]["target"]))
        if segments is not None:
            last = output.thoughts[0, depth - 1].tolist()
            terminal += slow_alignment(last, segments[-1].tolist(), "kl") / 7
    assert logs["loss/reinforce"] == pytest.approx(0.7 * reinforce, rel=1e-4)
    assert logs["loss/terminal_kl"] == pytest.approx(0.3 * terminal, rel=1e-4)
    assert logs["terminal_kl"] == pytest.approx(terminal, rel=1e-4)
    assert logs["depth/entropy"] == pytest.approx(entropies, rel=1e-4)
    assert logs["reward_baseline"] == pytest.approx(baseline) == logs["reward"]
    assert logs["cot/missing"] == pytest.approx(1 / 8)
    depths = rollout["num_thoughts"].tolist()
    assert logs["depth/mean"] == pytest.approx(sum(depths) / 8)
    assert [logs[f"depth/share_{n}"] for n in (1, 2, 3)] == pytest.approx([depths.count(n) / 8 for n in (1, 2, 3)])
    assert logs["frac_no_hit"] == pytest.approx(1 - logs["hit_rate"]) and 0 < logs["candidate_diversity"] <= 1


def test_the_baseline_is_a_moving_average(make_trainer):
    trainer = make_trainer(max_steps=4, per_device_train_batch_size=2, reinforce_baseline_decay=0.75)
    trainer.train()
    means = [rollout["depth_rewards"].mean().item() for rollout in trainer.trained]
    assert len(set(means)) > 1
    value, expected = means[0], []
    for mean in means:
        expected.append(value)
        value = 0.75 * value + 0.25 * mean
    assert history(trainer, "reward_baseline") == pytest.approx(expected, abs=1e-6)
    assert trainer.reward_baseline.value == pytest.approx(value, abs=1e-6)
    trainer.evaluate()
    assert trainer.reward_baseline.value == pytest.approx(value, abs=1e-6)
    trainer.train()  # from the start
    assert history(trainer, "reward_baseline")[0] == pytest.approx(history(trainer, "reward")[0], abs=1e-6)


def test_each_term_moves_what_it_should(make_trainer, rows, anchors):
    trainer = make_trainer(anchors=anchors, beta=0.5)
    batch = trainer.data_collator(rows)
    (rollout,), num_items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    rollout["last_anchors"].requires_grad_(True)
    rollout["ref_logps"] = rollout["ref_logps"] - 0.1  # where both agree, the divergence has no gradient
    terms, _ = trainer.compute_terms(trainer.model, rollout, num_items)
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    moved = {}
    for term, value in terms.items():
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        moved[term] = {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.any()}
    head = {name for name in names if name.startswith("depth_policy.")}
    assert len(head) == 4 and moved["reinforce"] == head
    assert moved["policy"] == moved["kl"] == set(names) - head
    assert moved["terminal_kl"] and moved["terminal_kl"] <= set(names) - head


@pytest.fixture
def missed_rows(make_trainer, toy, rows):
    """The users with targets that are not among two candidates of any depth."""
    model, batch = make_trainer().model.eval(), toy.collate(toy.rows)
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found = [
        model.generate(**prompt, item_trie=toy.trie, num_beams=2, num_return_sequences=2, num_thoughts=depth)
        for depth in (1, 2, 3)
    ]
    found = [output.sequences.view(8, 2, 2).tolist() for output in found]
    return [
        dict(row, labels=next(list(item) for item in toy.items if all(list(item) not in f[index] for f in found)))
        for index, row in enumerate(rows)
    ]


def test_groups_without_a_hit(make_trainer, missed_rows):
    """They have no gradient at all; with the target in the place of the worst candidate they have."""
    targets = {row["user_id"]: row["labels"] for row in missed_rows}
    trainers = []
    for repair in ("none", "target"):
        trainer = make_trainer(rows=missed_rows, group_repair=repair, num_generations=2, learning_rate=0.0, **OFF)
        trainer.train()
        assert history(trainer, "frac_no_hit") == [1.0] and history(trainer, "hit_rate") == [0.0]
        trainers.append(trainer)
    plain, repaired = trainers
    assert not any(grad.any() for grad in plain.gradients[0].values() if grad is not None)
    assert any(grad.any() for grad in repaired.gradients[0].values() if grad is not None)
    assert history(plain, "frac_reward_zero_std") == [1.0] and history(repaired, "frac_reward_zero_std") == [0.0]
    assert history(repaired, "frac_repaired") == [1.0] and history(repaired, "reward") == history(plain, "reward")
    ((before,), (after,)) = plain.trained, repaired.trained
    assert after["labels"][:, -1].tolist() == [targets[user] for user in after["user_ids"]]
    assert torch.equal(after["labels"][:, :-1], before["labels"][:, :-1])
    assert (after["advantages"][:, -1] > 0).all() and (after["advantages"][:, :-1] < 0).all()
    assert not after["depth_rewards"].any()  # a repair is no merit of the depth


def test_a_target_outside_the_catalog_repairs_nothing(make_trainer, rows):
    with pytest.raises(ValueError, match="the target of user .* has the tokens .* no answer of the item trie"):
        make_trainer(rows=[dict(row, labels=[4, 11]) for row in rows], group_repair="target").train()


def test_reinforce_learns_the_cheapest_depth(make_trainer):
    """Where thoughts cost more than any reward, one is left."""
    trainer = make_trainer(
        max_steps=15, learning_rate=0.1, lr_scheduler_type="constant", beta=0.0, reinforce_coef=1.0,
        reinforce_n_penalty=5.0,
    )  # fmt: skip
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(name.startswith("depth_policy."))
    trainer.train()
    assert history(trainer, "depth/mean")[0] > 1.2 and history(trainer, "depth/mean")[-1] == 1.0
    assert history(trainer, "depth/entropy")[-1] < history(trainer, "depth/entropy")[0]


def test_parts_can_be_switched_off(make_trainer, make_model, anchors):
    trainer = make_trainer(anchors=anchors, **OFF)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert (
        not {"loss/policy", "loss/reinforce", "reward_baseline", "cot/missing"} & trainer.state.log_history[0].keys()
    )
    assert "depth/share_3" in trainer.state.log_history[0]
    still = {name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])}
    assert still == {name for name in before if name.startswith("depth_policy.")}
    fixed = make_trainer(model=make_model(2), anchors=anchors)  # what a model cannot have is off by itself
    fixed.train()
    assert {"loss/policy", "loss/kl", "loss/terminal_kl"} <= fixed.state.log_history[0].keys()
    assert not any(name.startswith(("depth/", "loss/reinforce")) for name in fixed.state.log_history[0])
    assert (fixed.terminal_kl_weight, fixed.reinforce_coef) == (1e-5, 0.0)


def test_what_is_refused(make_trainer, make_model, anchors):
    with pytest.raises(ValueError, match="reinforce_coef is 0.1, but the model has no depth policy"):
        make_trainer(model=make_model(2), reinforce_coef=0.1)
    with pytest.raises(ValueError, match="terminal_kl_weight is 0.1, which needs anchors"):
        make_trainer(terminal_kl_weight=0.1)
    with pytest.raises(ValueError, match="num_thoughts is 0, so there are no thoughts"):
        make_trainer(model=make_model(0), anchors=anchors)
    with pytest.raises(ValueError, match="anchors have hidden_size 12"):
        make_trainer(anchors=MemoryAnchors({}, 12))
    with pytest.raises(ValueError, match="8 of 8 training examples .* have no reasoning text"):
        make_trainer(anchors=MemoryAnchors({}, 16))


ALL_ON = {"terminal_kl_weight": 0.1, "reinforce_coef": 0.5, "group_repair": "target", "beta": 0.5}


def test_accumulated_gradient_equals_that_of_one_batch(make_trainer, anchors):
    """Also the draws of depths do not depend on the micro-batches, nor do later iterations on a rollout."""
    trainers = []
    for batch_size, accumulation in [(4, 1), (1, 4)]:
        trainer = make_trainer(
            anchors=anchors, max_steps=4, num_iterations=2, optim="sgd", learning_rate=0.1, **ALL_ON,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        trainer.train()
        trainers.append(trainer)
    for ours, theirs in zip(trainers[0].gradients, trainers[1].gradients, strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-3)
    for key in ("loss", "depth/mean", "reward_baseline", "terminal_kl", "frac_repaired", "loss/reinforce"):
        assert history(trainers[0], key) == pytest.approx(history(trainers[1], key), abs=2e-4)


def test_resumed_run_equals_uninterrupted_run(make_trainer, anchors):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    settings |= {"per_device_train_batch_size": 3, **ALL_ON}
    whole = make_trainer(anchors=anchors, **settings)
    whole.train()
    torch.manual_seed(99)
    resumed = make_trainer(anchors=anchors, **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    for key in ("loss", "reward_baseline", "depth/mean"):
        assert history(resumed, key) == history(whole, key) and len(history(whole, key)) == 6
    assert resumed.reward_baseline.value == whole.reward_baseline.value
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_evaluation_reports_depths(make_trainer, anchors):
    metrics = make_trainer(anchors=anchors).evaluate()
    assert 1 <= metrics["eval_depth/mean"] <= 3 and metrics["eval_terminal_kl"] > 0
    assert metrics["eval_reward_baseline"] == pytest.approx(metrics["eval_reward"])
