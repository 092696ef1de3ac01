"""The regularizers of FLR as terms of a trainer: means over the global batch, switches, weights."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.trainer import FLRSFTConfig, FLRSFTTrainer
from hf_latentrec.trainer.losses import attention_diversity_loss, orthogonality_loss, sparsity_loss


NAMES = ["orthogonality", "diversity", "sparsity"]


@pytest.fixture
def make_trainer(tmp_path, toy, make_model):
    def make(num_thoughts=1, reasoner="factorized_attention", num_factors=3, **args):
        factors = {"num_factors": num_factors} if reasoner == "factorized_attention" else {}
        model = make_model(num_thoughts, reasoner_config={"reasoner": reasoner, **factors}, initializer_range=0.3)
        settings = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1}
        config = FLRSFTConfig(tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", **{**settings, **args})
        return FLRSFTTrainer(
            model, config, data_collator=toy.collate, train_dataset=toy.dataset, eval_dataset=toy.dataset,
            item_trie=toy.trie,
        )  # fmt: skip

    return make


def batch_of(toy):
    return {name: tensor for name, tensor in toy.collate(toy.rows).items() if name != "user_ids"}


def test_terms_are_means_over_thoughts_and_iterations(make_trainer, toy):
    """All users but the last two, which only fill up the batch."""
    trainer = make_trainer(factor_loss_weights=[1.0, 2.0, 0.5])
    batch = batch_of(toy)
    output = trainer.model(**batch)
    counts = torch.arange(8) < 6
    terms = trainer.factor_terms(output, batch, counts, 6)
    assert list(terms) == NAMES
    for name, weight, function, steps in zip(
        NAMES,
        [1.0, 2.0, 0.5],
        [orthogonality_loss, attention_diversity_loss, sparsity_loss],
        [output.factors, output.factor_attentions, output.factor_gates],
        strict=True,
    ):
        values = [function(step[b]).item() for step in steps for b in range(6)]
        assert terms[name].item() == pytest.approx(weight * sum(values) / len(values), abs=1e-5)


def test_a_prompt_of_one_token_has_no_diversity(make_trainer):
    trainer = make_trainer(factor_losses=["diversity"], factor_loss_weights=[1.0])
    batch = {"input_ids": torch.tensor([[0, 5], [4, 5]]), "attention_mask": torch.tensor([[0, 1], [1, 1]])}
    output = trainer.model(**batch, labels=torch.tensor([[4, 8]] * 2))
    single = trainer.factor_terms(output, batch, torch.tensor([True, False]), 1)
    assert single["diversity"].item() == 0
    assert trainer.factor_terms(output, batch, torch.tensor([False, True]), 1)["diversity"].item() > 0


@pytest.mark.parametrize("weights", [None, [0.7, 0.1, 0.4]])
def test_micro_batches_add_up_to_the_whole(make_trainer, toy, weights):
    """Values and gradients, those of the learned weights included, of parts of different size."""
    trainer = make_trainer(factor_loss_weights=weights)
    trained = [p for p in trainer.model.reasoner.parameters() if p.requires_grad]

    def run(parts):
        trainer.model.zero_grad()
        total = 0.0
        for rows in parts:
            batch = {name: tensor[rows] for name, tensor in batch_of(toy).items()}
            output = trainer.model(**batch)
            terms = trainer.factor_terms(output, batch, torch.ones(len(batch["labels"]), dtype=torch.bool), 8)
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()
            total += loss.item()
        return total, [p.grad.clone() for p in trained if p.grad is not None]

    whole, expected = run([slice(0, 8)])
    parts, gradients = run([slice(0, 3), slice(3, 4), slice(4, 8)])
    assert parts == pytest.approx(whole, rel=1e-5)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("losses", [[], ["sparsity"], ["diversity", "orthogonality"], NAMES])
def test_switches(make_trainer, losses):
    trainer = make_trainer(factor_losses=losses)
    trainer.train()
    log = trainer.state.log_history[0]
    assert sorted(name for name in log if name.startswith("loss/")) == (
        sorted([*(f"loss/{name}" for name in losses), "loss/cross_entropy"]) if losses else []
    )
    assert sorted(name for name in log if name.startswith("factors/")) == sorted(
        f"factors/{name}{suffix}" for name in losses for suffix in ("", "_weight")
    )


def test_learned_weights_move_where_their_loss_is_on(make_trainer):
    trainer = make_trainer(factor_losses=["sparsity", "orthogonality"], weight_decay=0.5)
    trainer.train()
    orthogonality, diversity, sparsity = trainer.model.reasoner.loss_log_variances.tolist()
    assert abs(orthogonality) > 1e-3 and abs(sparsity) > 1e-3 and diversity == 0
    weights = [log["factors/sparsity_weight"] for log in trainer.state.log_history if "loss" in log]
    assert weights[0] == pytest.approx(0.5) and weights[-1] != weights[0]
    assert "reasoner.loss_log_variances" not in trainer.get_decay_parameter_names(trainer.model)


@pytest.mark.parametrize("settings", [{"factor_loss_weights": [1.0, 1.0, 1.0]}, {"factor_losses": []}])
def test_weights_that_are_not_learned_ask_for_no_gradient(make_trainer, settings):
    """DDP would wait for it."""
    trainer = make_trainer(**settings)
    assert not trainer.model.reasoner.loss_log_variances.requires_grad
    trainer.train()
    assert trainer.model.reasoner.loss_log_variances.tolist() == [0, 0, 0]


def test_one_factor_trains_without_a_regularizer_to_feel(make_trainer):
    trainer = make_trainer(num_factors=1, factor_loss_weights=[1.0, 1.0, 1.0])
    trainer.train()
    for log in [log for log in trainer.state.log_history if "loss" in log]:
        assert [log[f"loss/{name}"] for name in NAMES] == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor_losses": ["beauty"]}, r"factor_losses is \['beauty'\]"),
        ({"factor_losses": ["sparsity", "sparsity"]}, "once at most"),
        ({"factor_loss_weights": [1.0]}, r"factor_loss_weights is \[1.0\]"),
        ({"factor_losses": ["sparsity"], "factor_loss_weights": [-1.0]}, "not negative"),
        ({"factor_losses": ["sparsity"], "factor_loss_weights": [float("nan")]}, "finite"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        FLRSFTConfig(tmp_path, use_cpu=True, **settings)


@pytest.mark.parametrize(
    "model", [{"reasoner": "latent_attention"}, {"reasoner": "feedback"}, {"num_thoughts": 0}], ids=str
)
def test_a_model_without_factors_is_refused(make_trainer, model):
    with pytest.raises(ValueError, match="factors come from"):
        make_trainer(**model)
