"""RL over perturbed thoughts, by LR-GRPO and FLR-GRPO: noise, rollouts, and that runs can be split and resumed."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_latentrec.trainer import FLRGRPOTrainer, LRGRPOTrainer
from hf_latentrec.trainer.rollout_trainer import rows_in_global_batch
from tests.trainer.thought_runs import (
    END,
    RecorderMixin,
    TwoForwardsMixin,
    answer_of,
    assert_same_runs,
    collate_titles,
    history,
    train,
)


class LRRecorder(RecorderMixin, LRGRPOTrainer):
    pass


class FLRRecorder(RecorderMixin, FLRGRPOTrainer):
    pass


class LRTwoForwards(TwoForwardsMixin, LRGRPOTrainer):
    pass


class FLRTwoForwards(TwoForwardsMixin, FLRGRPOTrainer):
    pass


# Gradients of the factor losses are large: a larger step would blow up what is rounded differently.
GENTLE = {"learning_rate": 0.02}
by_both = pytest.mark.parametrize("trainer_class", [LRRecorder, FLRRecorder])


@pytest.mark.parametrize(
    ("trainer_class", "settings"),
    [(LRRecorder, {"advantage": "batch"}), (LRRecorder, {"advantage": "group"}), (FLRRecorder, GENTLE)],
)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (3, 3)])
def test_accumulated_gradient_equals_that_of_one_batch(
    make_thought_trainer, trainer_class, settings, batch_size, accumulation
):
    settings = {"optim": "sgd", "learning_rate": 0.5, "beta": 0.5, "max_steps": 3, **settings}
    whole = train(make_thought_trainer(trainer_class, per_device_train_batch_size=8, **settings))
    parts = train(
        make_thought_trainer(
            trainer_class,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            **settings,
        )
    )
    sizes = [len(inputs["labels"]) for inputs in parts.trained[:accumulation]]
    assert sum(sizes) == 8 and len(parts.trained) == 3 * accumulation
    torch.testing.assert_close(
        torch.cat([inputs["thought_noise"] for inputs in parts.trained[:accumulation]]),
        whole.trained[0]["thought_noise"],
        atol=0,
        rtol=0,
    )
    assert_same_runs(whole, parts, keys=("loss", "reward", "reward_perturbed", "reward_std", "entropy", "kl"))
    assert max(history(whole, "kl")) > 1e-4


@pytest.mark.parametrize(
    ("classes", "speed"), [((LRRecorder, LRTwoForwards), {}), ((FLRRecorder, FLRTwoForwards), GENTLE)]
)
@pytest.mark.parametrize("settings", [{}, {"normalize": "catalog", "noise_scale": "relative"}])
def test_rewards_of_the_training_forward_equal_those_of_a_rollout(make_thought_trainer, classes, speed, settings):
    settings = {"optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 8, **settings, **speed}
    one, two = (train(make_thought_trainer(trainer_class, **settings)) for trainer_class in classes)
    assert (one.num_forwards, two.num_forwards) == (3, 6)
    assert_same_runs(one, two)


@by_both
def test_iterations_train_on_one_rollout(make_thought_trainer, trainer_class):
    trainer = train(make_thought_trainer(
        trainer_class, max_steps=4, num_iterations=2, learning_rate=0.05, epsilon=0.01, epsilon_high=0.01
    ))  # fmt: skip
    for first, second in [(0, 1), (2, 3)]:
        for key in ("thought_noise", "advantages", "old_logps"):
            assert torch.equal(trainer.trained[first][key], trainer.trained[second][key])
    assert not torch.equal(trainer.trained[0]["thought_noise"], trainer.trained[2]["thought_noise"])
    low, high = history(trainer, "clip_ratio/low_mean"), history(trainer, "clip_ratio/high_mean")
    assert low[0] == high[0] == 0 and low[1] > 0 and high[1] > 0
    assert [("reward" in entry) for entry in trainer.state.log_history[:4]] == [True, False, True, False]
    assert trainer.num_forwards == 2 + 4


def test_noise(make_thought_trainer, titles):
    trainer = make_thought_trainer(LRGRPOTrainer, noise_std=2.0, num_generations=64, seed=5)
    batch = collate_titles(titles.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    noise = rollout["thought_noise"]
    assert noise.shape == (8, 64, 16) and (noise[:, 0] == 0).all()
    assert noise[:, 1:].std().item() == pytest.approx(2.0, rel=0.05)
    assert noise[:, 1:].mean().item() == pytest.approx(0.0, abs=0.1)
    assert len(noise[:, 1:].flatten().unique()) == 8 * 63 * 16

    def draw(step, **settings):
        other = make_thought_trainer(LRGRPOTrainer, noise_std=2.0, num_generations=64, **settings)
        other.state.global_step = step
        torch.manual_seed(step)  # no part of it
        return other.get_batch_samples(iter([batch]), 1, other.args.device)[0][0]["thought_noise"]

    assert torch.equal(draw(0, seed=5), noise)
    assert not torch.equal(draw(1, seed=5)[:, 1:], noise[:, 1:])
    assert not torch.equal(draw(0, seed=6)[:, 1:], noise[:, 1:])


def test_rows_in_the_global_batch():
    """Rows 0 .. 12 are dealt out micro-batch by micro-batch, and in each, process by process."""
    sizes = torch.tensor([[3, 1], [2, 4], [1, 2]])
    dealt = {(process, micro): [] for process in range(3) for micro in range(2)}
    row = 0
    for micro in range(2):
        for process in range(3):
            for _ in range(sizes[process, micro]):
                dealt[process, micro].append(row)
                row += 1
    for process in range(3):
        found = [list(range(13))[rows] for rows in rows_in_global_batch(sizes, process)]
        assert found == [dealt[process, 0], dealt[process, 1]]


@by_both
@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
def test_logged_noise_and_entropy(make_thought_trainer, trainer_class, noise_scale):
    trainer = make_thought_trainer(trainer_class, max_steps=1, noise_scale=noise_scale, noise_std=0.3)
    model = copy.deepcopy(trainer.model).eval()
    trainer.train()
    (inputs,) = trainer.trained
    output = model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "labels")})
    ratios, entropies = [], []
    for b in range(4):
        thought = output.thought_embeds[b, -1]
        unit = thought.square().mean().sqrt() if noise_scale == "relative" else 1.0
        ratios += [(noise * unit).norm() / thought.norm() for noise in inputs["thought_noise"][b, 1:]]
        log_probs = output.logits[b].log_softmax(-1)[: len(answer_of(inputs, b))]
        entropies.append(-(log_probs.exp() * log_probs).sum(-1).mean())
    assert history(trainer, "noise_to_thought_norm") == pytest.approx([torch.stack(ratios).mean().item()], rel=1e-4)
    assert history(trainer, "entropy") == pytest.approx([torch.stack(entropies).mean().item()], rel=1e-4)
    if noise_scale == "relative":
        assert history(trainer, "noise_to_thought_norm")[0] == pytest.approx(0.3, rel=0.2)


def test_relative_noise_is_absolute_noise_of_another_strength(make_thought_trainer, make_policy, titles):
    trainer = make_thought_trainer(LRGRPOTrainer, noise_scale="relative", noise_std=0.5)
    model = make_policy().eval()
    batch = collate_titles(titles.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    names = ("input_ids", "attention_mask", "labels")
    rms = model(**{name: batch[name] for name in names}).thought_embeds[:, -1].square().mean(-1).sqrt()
    absolute = rollout["thought_noise"] * rms[:, None, None]
    expected = model(**{name: batch[name] for name in names}, thought_noise=absolute).logps
    torch.testing.assert_close(trainer.score(trainer.model.eval(), rollout).logps, expected, atol=1e-5, rtol=1e-4)


@by_both
def test_reference_thinks_for_itself_under_the_same_noise(make_thought_trainer, trainer_class):
    trainer = train(make_thought_trainer(trainer_class, beta=0.5, learning_rate=0.05, max_steps=4))
    kls = history(trainer, "kl")
    assert kls[0] == pytest.approx(0.0, abs=1e-6)  # other noise would show here
    assert min(kls[1:]) > 1e-5
    assert history(trainer, "loss/kl") == pytest.approx([0.5 * kl for kl in kls], rel=1e-3, abs=1e-7)
    reference = dict(trainer.ref_model.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.data_ptr() == reference[name].data_ptr()) == (not name.startswith("reasoner"))


@pytest.fixture
def make_dropping_trainer(make_thought_trainer, make_policy):
    """A trainer whose losses depend on the random numbers of dropout."""

    def make(trainer_class, **settings):
        reasoner = "factorized_attention" if trainer_class is FLRRecorder else "latent_attention"
        model = make_policy(reasoner=reasoner, embedding_dropout=0.3)
        return make_thought_trainer(trainer_class, model, learning_rate=1e-2, disable_dropout=False, **settings)

    return make


@by_both
@pytest.mark.parametrize("stop", [1, 2])  # two steps are an epoch
def test_resumed_run_equals_uninterrupted_run(make_dropping_trainer, trainer_class, stop):
    settings = {"save_strategy": "steps", "save_steps": stop, "max_steps": 5}
    whole = train(make_dropping_trainer(trainer_class, **settings))
    torch.manual_seed(99)
    resumed = make_dropping_trainer(trainer_class, **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop}")
    for key in ("loss", "reward", "entropy"):
        assert history(resumed, key)[-(5 - stop) :] == history(whole, key)[-(5 - stop) :]
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@by_both
def test_evaluation_repeats_itself_and_disturbs_nothing(make_dropping_trainer, trainer_class):
    settings = {"per_device_eval_batch_size": 3, "max_steps": 4}
    quiet = train(make_dropping_trainer(trainer_class, **settings))
    watched = train(make_dropping_trainer(trainer_class, eval_strategy="steps", eval_steps=1, **settings))
    for key in ("loss", "reward"):
        assert history(watched, key) == history(quiet, key)
    assert len(set(history(watched, "eval_reward"))) == 4
    first, second = watched.evaluate(), watched.evaluate()
    names = {"loss", "reward", "reward_perturbed", "reward_std", "frac_reward_zero_std", "entropy"}
    own = {"frac_perplexity_clamped"} if trainer_class is LRRecorder else {"exact_match", "confidence", "kl"}
    for name in names | own | {"noise_to_thought_norm"}:
        assert first[f"eval_{name}"] == second[f"eval_{name}"] == history(watched, f"eval_{name}")[3]


def test_targets_outside_of_the_trie_are_named(make_thought_trainer, titles):
    known = [dict(row) for row in titles.rows]
    for labels, tokens in [([4, 10, END], r"\[4, 10, 3\]"), ([4, 8], r"\[4, 8\]"), ([], r"\[\]")]:
        rows = [*known[:2], dict(known[2], labels=labels), *known[3:]]
        with pytest.raises(ValueError, match=f"the target of user 'u2' has the tokens {tokens}, which are no answer"):
            make_thought_trainer(LRGRPOTrainer, rows=rows, per_device_train_batch_size=8).train()
    empty = [*known[:2], dict(known[2], labels=[]), *known[3:]]
    with pytest.raises(ValueError, match="the target of user 'u2' has the tokens"):
        make_thought_trainer(LRGRPOTrainer, rows=empty, item_trie=None, per_device_train_batch_size=8).train()
    rows = [dict(row, labels=[row["labels"]]) for row in known]

    def collate_packed(examples):
        return {**collate_titles(known[: len(examples)]), "labels": torch.full((len(examples), 2, 3), 4)}

    trainer = make_thought_trainer(LRGRPOTrainer, rows=rows)
    trainer.data_collator = collate_packed
    with pytest.raises(ValueError, match=r"labels have the shape \(4, 2, 3\); give one target per prompt"):
        trainer.train()


def test_what_is_frozen_in_the_reasoner_stays_so(make_thought_trainer, make_policy):
    model = make_policy()
    model.reasoner.v_proj.bias.requires_grad_(False)
    trainer = make_thought_trainer(LRGRPOTrainer, model)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    expected = {f"reasoner.{name}" for name, _ in model.reasoner.named_parameters()} - {"reasoner.v_proj.bias"}
    assert trained == expected


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_models_that_cannot_be_trained_so_are_refused(make_thought_trainer, make_policy):
    with pytest.raises(ValueError, match="num_thoughts is 0, so there is no thought to perturb"):
        make_thought_trainer(LRGRPOTrainer, model=make_policy(0))
    with pytest.raises(ValueError, match="FeedbackReasoner has no parameters to train; pass train_only"):
        make_thought_trainer(LRGRPOTrainer, model=make_policy(1, "feedback", thought_markers=False))
    frozen = make_policy()
    frozen.reasoner.requires_grad_(False)
    with pytest.raises(ValueError, match="LatentAttentionReasoner has no parameters to train"):
        make_thought_trainer(LRGRPOTrainer, model=frozen)
    adapted = get_peft_model(make_policy(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="would freeze the adapter of this PEFT model"):
        make_thought_trainer(LRGRPOTrainer, model=adapted)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_adapters_are_trained_where_asked(make_thought_trainer, make_policy):
    adapted = get_peft_model(make_policy(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    trainer = make_thought_trainer(
        LRGRPOTrainer, model=adapted, train_only_reasoner=False, learning_rate=0.1, max_steps=2, beta=0.1
    )
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    trainer.train()
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert any("reasoner" in name for name in moved)
