"""FLR-GRPO on a tiny model: what a step computes, what it trains, and LR-GRPO on the same model."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from peft import LoraConfig

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.trainer import FLRGRPOTrainer, LRGRPOTrainer
from tests.trainer.thought_runs import TITLES, RecorderMixin, answer_of, collate_titles, history, prompt_of, train


OF_REASONER = {
    "initial_thought", "prototypes", "q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias", "v_proj.weight",
    "v_proj.bias", "gate.0.weight", "gate.0.bias", "gate.2.weight", "gate.2.bias",
}  # fmt: skip


class Recorder(RecorderMixin, FLRGRPOTrainer):
    pass


class LRRecorder(RecorderMixin, LRGRPOTrainer):
    pass


@pytest.fixture
def make_trainer(make_thought_trainer):
    def make(trainer_class=FLRGRPOTrainer, **settings):
        return make_thought_trainer(trainer_class, **settings)

    return make


def score_all_titles(model, prompt, noise, trie):
    """Log-probabilities of the tokens of every title after one thought: one list per title, with gradient."""
    length = max(map(len, TITLES))
    labels = torch.tensor([[*title, *[-100] * (length - len(title))] for title in TITLES])
    noise = noise.expand(1, len(TITLES), -1)
    logps = model(prompt[None], labels=labels[None], thought_noise=noise, item_trie=trie).logps[0]
    return [logps[row, : len(title)] for row, title in enumerate(TITLES)]


def slow_greedy_answer(logps_of_titles):
    """Token by token, the most probable one of those that go on to a title."""
    prefix = ()
    while prefix not in TITLES:
        depth = len(prefix)
        fitting = [row for row, title in enumerate(TITLES) if title[:depth] == prefix]
        best = max(fitting, key=lambda row: logps_of_titles[row][depth].item())
        prefix = TITLES[best][: depth + 1]
    return prefix


def slow_factor_losses(model, prompt):
    """Eq. 5 to 7 for one user, pair by pair, as means over the iterations."""
    output = model(prompt[None])
    sums = [0.0, 0.0, 0.0]
    for factors, attentions, gates in zip(output.factors, output.factor_attentions, output.factor_gates, strict=True):
        factors, attentions, gates = factors[0], attentions[0], gates[0]
        count = len(factors)
        for i in range(count):
            for j in range(i):
                cosine = torch.dot(factors[i], factors[j]) / factors[i].norm() / factors[j].norm()
                sums[0] = sums[0] + 2 * cosine**2
                cosine = torch.dot(attentions[i], attentions[j]) / attentions[i].norm() / attentions[j].norm()
                sums[1] = sums[1] + cosine * 2 / (count * (count - 1))
            sums[2] = sums[2] - gates[i] * gates[i].log()
    return [total / len(output.factors) for total in sums]


@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0]])
def test_first_step_equals_the_loop(make_trainer, titles, normalize, weights):
    losses = ["orthogonality", "diversity", "sparsity"] if weights is None else ["sparsity", "orthogonality"]
    trainer = make_trainer(
        Recorder, max_steps=1, per_device_train_batch_size=8, normalize=normalize, noise_std=0.7, beta=0.3,
        reward_confidence_weight=0.2, reward_match_weight=0.8, factor_losses=losses, factor_loss_weights=weights,
    )  # fmt: skip
    with torch.no_grad():  # else policy and reference are one
        for parameter in trainer.model.reasoner.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model, reference = copy.deepcopy(trainer.model).eval(), trainer.ref_model
    (inputs,) = train(trainer).trained
    trie = titles.trie if normalize == "catalog" else None

    policy, kl, regularizers, rewards, matches, confidences = 0.0, 0.0, [0.0] * 3, [], [], []
    for b in range(8):
        prompt, target = prompt_of(inputs, b), tuple(answer_of(inputs, b))
        group, logps = [], []
        for k in range(4):
            noise = inputs["thought_noise"][b, k]
            scores = score_all_titles(model, prompt, noise, trie)
            logps.append(scores[TITLES.index(target)])
            expected = score_all_titles(reference, prompt, noise, trie)[TITLES.index(target)].detach()
            kl = kl + (torch.exp(expected - logps[k]) - (expected - logps[k]) - 1).mean() / 4 / 8
            matches.append(float(slow_greedy_answer(scores) == target))
            confidences.append(logps[k].mean().item())
            group.append(0.2 * confidences[-1] + 0.8 * matches[-1])
        norm = math.sqrt(sum((reward - group[0]) ** 2 for reward in group[1:]))
        advantages = [(reward - group[0]) / (norm + 1e-6) for reward in group]
        assert inputs["advantages"][b].tolist() == pytest.approx(advantages, abs=1e-3)
        # At ratio 1, the value of -A and the gradient of -A log p.
        policy = policy - sum(advantages[k] * (logps[k] - logps[k].detach() + 1).mean() for k in range(4)) / 4 / 8
        regularizers = [a + b / 8 for a, b in zip(regularizers, slow_factor_losses(model, prompt), strict=True)]
        rewards.append(group)
    assert 0 < sum(matches) < 32

    if weights is None:
        s = model.reasoner.loss_log_variances
        assert (s != 0).any()
        bounded = 5 * torch.tanh(s / 5)
        terms = [loss / (2 * s.exp()) + s / 2 for loss, s in zip(regularizers, bounded, strict=True)]
    else:
        terms = [0.5 * regularizers[2], 2.0 * regularizers[0]]
    loss = policy + 0.3 * kl + sum(terms)
    loss.backward()
    assert history(trainer, "loss") == pytest.approx([loss.item()], rel=1e-3)
    assert history(trainer, "loss/policy") == pytest.approx([policy.item()], rel=1e-3, abs=1e-5)
    assert history(trainer, "kl") == pytest.approx([kl.item()], rel=1e-3) and kl > 1e-3
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trainer.gradients[0].keys() == trained.keys()
    for name, parameter in trained.items():
        assert parameter.grad.abs().max() > 1e-6, name
        torch.testing.assert_close(trainer.gradients[0][name], parameter.grad, atol=1e-5, rtol=2e-3, msg=name)

    def of_first(values):
        return sum(values[::4]) / 8

    def of_others(values):
        return (sum(values) - sum(values[::4])) / 24

    logged = {
        "reward": of_first(sum(rewards, [])), "reward_perturbed": of_others(sum(rewards, [])),
        "exact_match": of_first(matches), "exact_match_perturbed": of_others(matches),
        "confidence": of_first(confidences), "reward_std": torch.tensor(rewards).std(-1).mean().item(),
    }  # fmt: skip
    for name, value in logged.items():
        assert history(trainer, name) == pytest.approx([value], rel=1e-3, abs=1e-5), name


def test_matches_are_those_of_greedy_search(make_trainer, make_policy, titles):
    trainer = make_trainer(num_generations=64, noise_std=1.5, reward_confidence_weight=0.0, reward_match_weight=2.0)
    batch = collate_titles(titles.rows)
    (rollout,), _ = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    model = trainer.model.eval()
    rewards = trainer.compute_rewards(rollout, trainer.score(model, rollout, **trainer.reward_arguments))
    answers = model.greedy_answers(
        batch["input_ids"], batch["attention_mask"], item_trie=titles.trie, thought_noise=rollout["thought_noise"]
    )
    width = max(answers.shape[-1], batch["labels"].shape[-1])
    answers, targets = (
        torch.nn.functional.pad(tokens, (0, width - tokens.shape[-1]), value=-100)
        for tokens in (answers, batch["labels"])
    )
    expected = (answers == targets[:, None]).all(-1)
    assert torch.equal(rewards, 2.0 * expected) and 0.05 < expected.float().mean() < 0.95


def moved_by_training(trainer):
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    return {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("settings", [{}, {"factor_loss_weights": [1.0, 1.0, 1.0]}, {"factor_losses": []}])
def test_only_the_reasoner_moves(make_trainer, settings):
    trainer = make_trainer(learning_rate=0.1, **settings)
    moved = moved_by_training(trainer)
    learned = set() if settings else {"loss_log_variances"}
    assert moved == {f"reasoner.{name}" for name in OF_REASONER | learned}
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == moved
    assert len(history(trainer, "loss/sparsity")) == (0 if "factor_losses" in settings else 3)


def test_the_full_model_moves_where_asked(make_trainer):
    trainer = make_trainer(train_only_reasoner=False, learning_rate=0.1)
    assert moved_by_training(trainer) == {name for name, _ in trainer.model.named_parameters()}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_one_forward_gives_rewards_and_gradients(make_trainer, accumulation):
    settings = {"per_device_train_batch_size": 8 // accumulation, "gradient_accumulation_steps": accumulation}
    assert train(make_trainer(Recorder, max_steps=1, **settings)).num_forwards == accumulation


def test_a_step_favours_the_better_thoughts(make_trainer):
    """The target becomes likelier after thoughts that beat the unperturbed one than after those that fall behind."""
    settings = {"factor_losses": [], "beta": 0.0, "noise_std": 0.7, "num_generations": 8}
    trainer = make_trainer(
        Recorder, max_steps=1, optim="sgd", learning_rate=1e-2, per_device_train_batch_size=8, **settings
    )

    def advantage_of_targets(model, inputs):
        with torch.no_grad():
            logps = trainer.score(model.eval(), inputs).logps
        return (inputs["advantages"] * logps.sum(-1) / (inputs["labels"] != -100).sum(-1)[:, None]).sum()

    before = copy.deepcopy(trainer.model)
    (inputs,) = train(trainer).trained
    assert advantage_of_targets(trainer.model, inputs) > advantage_of_targets(before, inputs) + 1e-3


def test_one_answer_in_the_catalog(make_trainer, titles):
    """Over a catalog of one item every answer is certain: equal rewards, advantages of exactly 0, no NaN."""
    rows = [dict(row, labels=list(TITLES[0])) for row in titles.rows]
    trie = ItemTrie.from_sequences(TITLES[:1])
    trainer = train(
        make_trainer(Recorder, rows=rows, item_trie=trie, normalize="catalog", factor_losses=[], beta=0.0, max_steps=1)
    )
    assert history(trainer, "frac_reward_zero_std") == history(trainer, "exact_match") == [1.0]
    assert history(trainer, "reward") == [1.0] and history(trainer, "confidence") == [0.0]
    assert all((gradient == 0).all() for gradient in trainer.gradients[0].values())


def test_bfloat16(make_trainer, make_policy):
    model = make_policy(reasoner="factorized_attention").to(torch.bfloat16)
    trainer = train(make_trainer(Recorder, model=model, learning_rate=0.1))
    assert trainer.trained[0]["advantages"].dtype == torch.float32
    assert all(map(math.isfinite, history(trainer, "loss")))


def test_what_cannot_be_trained_so_is_refused(make_trainer, make_policy):
    with pytest.raises(ValueError, match='"factorized_attention"'):
        make_trainer(model=make_policy())
    with pytest.raises(ValueError, match="num_thoughts"):
        make_trainer(model=make_policy(0, "factorized_attention"))
    with pytest.raises(ValueError, match="no item trie"):
        make_trainer(item_trie=None)


def slow_perplexity_rewards(model, inputs, trie=None):
    rewards = []
    for b, noise_KD in enumerate(inputs["thought_noise"]):
        target = TITLES.index(tuple(answer_of(inputs, b)))
        logps = [score_all_titles(model, prompt_of(inputs, b), noise, trie)[target] for noise in noise_KD]
        rewards.append([-math.exp(-logp.mean().item()) for logp in logps])
    return rewards


def test_lr_grpo_trains_a_factorized_reasoner(make_trainer, make_policy):
    """Table 4's comparison: Eq. 6 to 8 of LatentR³, without regularizers."""
    model = make_policy(reasoner="factorized_attention")
    model.reasoner.loss_log_variances.requires_grad_(True)  # as supervised fine-tuning may have left it
    before = copy.deepcopy(model).eval()
    trainer = make_trainer(LRRecorder, model=model, max_steps=1, learning_rate=0.1, per_device_train_batch_size=8)
    assert moved_by_training(trainer) == {f"reasoner.{name}" for name in OF_REASONER}
    assert not model.reasoner.loss_log_variances.requires_grad  # DDP would wait for its gradient
    rewards = slow_perplexity_rewards(before, trainer.trained[0])
    baseline = sum(group[0] for group in rewards) / 8
    norm = math.sqrt(sum((reward - baseline) ** 2 for group in rewards for reward in group))
    advantages = torch.tensor(rewards).sub(baseline).div(norm)
    torch.testing.assert_close(trainer.trained[0]["advantages"], advantages, atol=1e-4, rtol=1e-3)
    assert not any("sparsity" in name for name in trainer.state.log_history[0])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_adapters_are_trained_where_asked(make_thought_trainer, make_policy):
    model = make_policy(reasoner="factorized_attention")
    before = copy.deepcopy(model)

    class WithLora(FLRGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, peft_config=LoraConfig(target_modules=["o_proj"]), new_token_ids=[], **kwargs)

    trainer = train(make_thought_trainer(WithLora, model, train_only_reasoner=False, learning_rate=0.1))
    merged = dict(trainer.model.merge_and_unload().named_parameters())
    moved = {name for name, parameter in before.named_parameters() if not torch.equal(parameter, merged[name])}
    assert moved == {name for name in merged if name.startswith("reasoner") or "o_proj" in name}
