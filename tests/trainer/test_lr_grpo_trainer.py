"""LR-GRPO on a tiny model: what a step computes, that it learns, and that runs can be split and resumed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.trainer import LRGRPOConfig, LRGRPOTrainer
from hf_latentrec.trainer.thought_grpo_trainer import rows_in_global_batch


END = 3
# Answers of two to four tokens; the last one is the terminal.
TITLES = [(4, 8, END), (4, 9, END), (5, END), (6, 8, 10, END), (6, 8, 11, END), (7, END), (8, 9, END), (9, END)]


def collate(examples):
    """Left-padded prompts, right-padded answers."""
    prompt_length = max(len(x["input_ids"]) for x in examples)
    answer_length = max(len(x["labels"]) for x in examples)
    pads = [prompt_length - len(x["input_ids"]) for x in examples]
    return {
        "input_ids": torch.tensor([[0] * pad + x["input_ids"] for pad, x in zip(pads, examples, strict=True)]),
        "attention_mask": torch.tensor([[0] * pad + [1] * (prompt_length - pad) for pad in pads]),
        "labels": torch.tensor([x["labels"] + [-100] * (answer_length - len(x["labels"])) for x in examples]),
        "user_ids": [x["user_id"] for x in examples],
    }


@pytest.fixture
def titles(toy):
    rows = [dict(row, labels=list(TITLES[index])) for index, row in enumerate(toy.rows)]
    return SimpleNamespace(rows=rows, trie=ItemTrie.from_sequences(TITLES))


@pytest.fixture
def make_policy(make_model):
    def make(num_thoughts=1, reasoner="latent_attention", **settings):
        # Weights large enough that a thought matters.
        settings = {"initializer_range": 0.4, **settings}
        return make_model(num_thoughts, reasoner_config={"reasoner": reasoner}, **settings)

    return make


@pytest.fixture
def make_trainer(tmp_path, titles, make_policy):
    def make(trainer_class=LRGRPOTrainer, model=None, item_trie=titles.trie, rows=titles.rows, **settings):
        settings = {
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "logging_steps": 1,
            "max_steps": 3,
            "save_strategy": "no",
            "max_grad_norm": 1e9,
            **settings,
        }
        return trainer_class(
            make_policy() if model is None else model,
            LRGRPOConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=collate,
            train_dataset=rows,
            eval_dataset=rows,
            item_trie=item_trie,
        )

    return make


class Recorder(LRGRPOTrainer):
    """Keeps every batch that is trained on, every step's gradient, and counts forwards of the policy."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.trained, self.gradients, self.num_forwards = [], [], 0

    def compute_terms(self, model, inputs, *args):
        terms = super().compute_terms(model, inputs, *args)
        self.trained.append(inputs)
        return terms

    def score(self, model, inputs, **kwargs):
        self.num_forwards += model is not self.ref_model
        return super().score(model, inputs, **kwargs)

    def _clip_grad_norm(self, model):
        named = ((name, p.grad) for name, p in model.named_parameters())
        self.gradients.append({name: gradient.clone() for name, gradient in named if gradient is not None})
        return super()._clip_grad_norm(model)


class TwoForwards(Recorder):
    """Never takes the rewards from the training forward."""

    def training_forward_gives_rewards(self, num_batches):
        return False


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def train(trainer):
    trainer.train()
    return trainer


def assert_same_runs(ours, theirs, atol=1e-5, keys=("loss", "reward", "reward_perturbed", "reward_std", "entropy")):
    assert len(ours.gradients) == len(theirs.gradients)
    for left, right in zip(ours.gradients, theirs.gradients, strict=True):
        assert left.keys() == right.keys() and max(gradient.abs().max() for gradient in left.values()) > 1e-4
        for name in left:
            torch.testing.assert_close(left[name], right[name], atol=atol, rtol=1e-3, msg=name)
    for key in keys:
        assert history(ours, key) == pytest.approx(history(theirs, key), rel=1e-3, abs=1e-5), key


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


def answer_of(inputs, row):
    return [token for token in inputs["labels"][row].tolist() if token != -100]


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
    batch = collate(rows)
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


@pytest.mark.parametrize("settings", [{}, {"normalize": "catalog", "noise_scale": "relative"}])
def test_rewards_of_the_training_forward_equal_those_of_a_rollout(make_trainer, settings):
    settings = {"optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 8, **settings}
    one, two = train(make_trainer(Recorder, **settings)), train(make_trainer(TwoForwards, **settings))
    assert (one.num_forwards, two.num_forwards) == (3, 6)
    assert_same_runs(one, two)


@pytest.mark.parametrize("advantage", ["batch", "group"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (3, 3)])
def test_accumulated_gradient_equals_that_of_one_batch(make_trainer, advantage, batch_size, accumulation):
    settings = {"optim": "sgd", "learning_rate": 0.5, "advantage": advantage, "beta": 0.5, "max_steps": 3}
    whole = train(make_trainer(Recorder, per_device_train_batch_size=8, **settings))
    parts = train(
        make_trainer(
            Recorder,
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


def test_group_advantages_need_no_second_forward(make_trainer):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1}
    assert train(make_trainer(Recorder, advantage="group", **settings)).num_forwards == 4
    assert train(make_trainer(Recorder, advantage="batch", **settings)).num_forwards == 8


def test_iterations_train_on_one_rollout(make_trainer):
    trainer = train(make_trainer(
        Recorder, max_steps=4, num_iterations=2, learning_rate=0.05, epsilon=0.01, epsilon_high=0.01
    ))  # fmt: skip
    for first, second in [(0, 1), (2, 3)]:
        for key in ("thought_noise", "advantages", "old_logps"):
            assert torch.equal(trainer.trained[first][key], trainer.trained[second][key])
    assert not torch.equal(trainer.trained[0]["thought_noise"], trainer.trained[2]["thought_noise"])
    low, high = history(trainer, "clip_ratio/low_mean"), history(trainer, "clip_ratio/high_mean")
    assert low[0] == high[0] == 0 and low[1] > 0 and high[1] > 0
    assert [("reward" in entry) for entry in trainer.state.log_history[:4]] == [True, False, True, False]
    assert trainer.num_forwards == 2 + 4


def test_noise(make_trainer, titles):
    trainer = make_trainer(noise_std=2.0, num_generations=64, seed=5)
    batch = collate(titles.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    noise = rollout["thought_noise"]
    assert noise.shape == (8, 64, 16) and (noise[:, 0] == 0).all()
    assert noise[:, 1:].std().item() == pytest.approx(2.0, rel=0.05)
    assert noise[:, 1:].mean().item() == pytest.approx(0.0, abs=0.1)
    assert len(noise[:, 1:].flatten().unique()) == 8 * 63 * 16

    def draw(step, **settings):
        other = make_trainer(noise_std=2.0, num_generations=64, **settings)
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


@pytest.mark.parametrize("noise_scale", ["absolute", "relative"])
def test_logged_noise_and_entropy(make_trainer, make_policy, titles, noise_scale):
    trainer = train(make_trainer(Recorder, max_steps=1, noise_scale=noise_scale, noise_std=0.3))
    (inputs,) = trainer.trained
    prompt = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
    model = make_policy().eval()
    output = model(**prompt)
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


def test_relative_noise_is_absolute_noise_of_another_strength(make_trainer, make_policy, titles):
    trainer = make_trainer(noise_scale="relative", noise_std=0.5)
    model = make_policy().eval()
    batch = collate(titles.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    names = ("input_ids", "attention_mask", "labels")
    rms = model(**{name: batch[name] for name in names}).thought_embeds[:, -1].square().mean(-1).sqrt()
    absolute = rollout["thought_noise"] * rms[:, None, None]
    expected = model(**{name: batch[name] for name in names}, thought_noise=absolute).logps
    torch.testing.assert_close(trainer.score(trainer.model.eval(), rollout).logps, expected, atol=1e-5, rtol=1e-4)


def test_reference_thinks_for_itself_under_the_same_noise(make_trainer):
    trainer = train(make_trainer(Recorder, beta=0.5, learning_rate=0.05, max_steps=4))
    kls = history(trainer, "kl")
    assert kls[0] == pytest.approx(0.0, abs=1e-6)  # other noise would show here
    assert min(kls[1:]) > 1e-5
    assert history(trainer, "loss/kl") == pytest.approx([0.5 * kl for kl in kls], rel=1e-3, abs=1e-7)
    reference = dict(trainer.ref_model.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.data_ptr() == reference[name].data_ptr()) == (not name.startswith("reasoner"))


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


@pytest.mark.parametrize("stop", [1, 2])  # two steps are an epoch
def test_resumed_run_equals_uninterrupted_run(make_trainer, make_policy, stop):
    settings = {"save_strategy": "steps", "save_steps": stop, "learning_rate": 1e-2, "disable_dropout": False}
    whole = train(make_trainer(model=make_policy(embedding_dropout=0.3), max_steps=5, **settings))
    torch.manual_seed(99)
    resumed = make_trainer(model=make_policy(embedding_dropout=0.3), max_steps=5, **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop}")
    for key in ("loss", "reward", "entropy"):
        assert history(resumed, key)[-(5 - stop) :] == history(whole, key)[-(5 - stop) :]
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_evaluation_repeats_itself_and_disturbs_nothing(make_trainer, make_policy):
    settings = {"learning_rate": 1e-2, "disable_dropout": False, "per_device_eval_batch_size": 3, "max_steps": 4}
    model = make_policy(embedding_dropout=0.3)
    quiet = train(make_trainer(model=make_policy(embedding_dropout=0.3), **settings))
    watched = train(make_trainer(model=model, eval_strategy="steps", eval_steps=1, **settings))
    assert history(watched, "loss") == history(quiet, "loss") and history(watched, "reward") == history(
        quiet, "reward"
    )
    assert len(set(history(watched, "eval_reward"))) == 4
    first, second = watched.evaluate(), watched.evaluate()
    names = ("loss", "reward", "reward_perturbed", "reward_std", "frac_reward_zero_std", "entropy")
    for name in (*names, "noise_to_thought_norm", "frac_perplexity_clamped"):
        assert first[f"eval_{name}"] == second[f"eval_{name}"] == history(watched, f"eval_{name}")[3]


def test_evaluated_rewards_are_those_of_all_users(make_trainer, make_policy, titles):
    metrics = make_trainer(per_device_eval_batch_size=3).evaluate()
    _, rewards = slow_rewards(make_policy().eval(), titles.rows, torch.zeros(8, 1, 16))
    assert metrics["eval_reward"] == pytest.approx(sum(map(sum, rewards)) / 8, rel=1e-4)


def test_targets_outside_of_the_trie_are_named(make_trainer, titles):
    known = [dict(row) for row in titles.rows]
    for labels, tokens in [([4, 10, END], r"\[4, 10, 3\]"), ([4, 8], r"\[4, 8\]"), ([], r"\[\]")]:
        rows = [*known[:2], dict(known[2], labels=labels), *known[3:]]
        with pytest.raises(ValueError, match=f"the target of user 'u2' has the tokens {tokens}, which are no answer"):
            make_trainer(rows=rows, per_device_train_batch_size=8).train()
    empty = [*known[:2], dict(known[2], labels=[]), *known[3:]]
    with pytest.raises(ValueError, match="the target of user 'u2' has the tokens"):
        make_trainer(rows=empty, item_trie=None, per_device_train_batch_size=8).train()
    rows = [dict(row, labels=[row["labels"]]) for row in known]

    def collate_packed(examples):
        return {**collate(known[: len(examples)]), "labels": torch.full((len(examples), 2, 3), 4)}

    trainer = make_trainer(rows=rows)
    trainer.data_collator = collate_packed
    with pytest.raises(ValueError, match=r"labels have the shape \(4, 2, 3\); give one target per prompt"):
        trainer.train()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_models_that_cannot_be_trained_so_are_refused(make_trainer, make_policy):
    with pytest.raises(ValueError, match="num_thoughts is 0, so there is no thought to perturb"):
        make_trainer(model=make_policy(0))
    with pytest.raises(ValueError, match="FeedbackReasoner has no parameters to train; pass train_only"):
        make_trainer(model=make_policy(1, "feedback", thought_markers=False))
    adapted = get_peft_model(make_policy(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="would freeze the adapter of this PEFT model"):
        make_trainer(model=adapted)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_adapters_are_trained_where_asked(make_trainer, make_policy):
    adapted = get_peft_model(make_policy(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    trainer = make_trainer(model=adapted, train_only_reasoner=False, learning_rate=0.1, max_steps=2, beta=0.1)
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    trainer.train()
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert any("reasoner" in name for name in moved)


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
            prompt = inputs["input_ids"][b][inputs["attention_mask"][b] == 1]
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
