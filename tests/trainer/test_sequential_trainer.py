"""Training of item-ID recommenders: packed batches against single histories, restarts, accumulation, refusals."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec import FMLPRecConfig, FMLPRecForSequentialRecommendation, ItemTable
from hf_latentrec.data import SequenceDataset
from hf_latentrec.trainer import LatentConfig, SequentialTrainer, SequentialTrainingConfig
from tests.models.lares import written_out
from tests.models.lares.toy_models import make_items, make_model
from tests.trainer.sequential_runs import (
    SEQUENCES,
    check_gradients,
    expected_samples,
    history,
    make_dataset,
    make_examples,
    make_trainer,
    prefixes,
    samples_of,
    whole_batch,
)


@pytest.mark.parametrize("same_user_negatives", [False, True])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_packed_batch_is_its_histories_one_by_one(tmp_path, similarity, same_user_negatives):
    """DuoRec's loss and gradients: every prefix in a pass of its own, and a partner with the same target."""
    trainer = make_trainer(
        tmp_path,
        contrastive="duorec",
        contrastive_weight=0.3,
        temperature=0.5,
        similarity=similarity,
        same_user_negatives=same_user_negatives,
    )
    batch, model = whole_batch(trainer), trainer.model
    samples = samples_of(batch)
    assert sorted((items, target) for items, _, _, target in samples) == expected_samples()
    views = [items for items, _, _ in prefixes(*(batch[f"view_{name}"] for name in VIEW))]
    first, second = views[: len(samples)], views[len(samples) :]
    assert first == [items for items, *_ in samples] and second != first
    by_target = {target: [items for items, other in expected_samples() if other == target] for *_, target in samples}
    assert all(items in by_target[target] for items, (*_, target) in zip(second, samples, strict=True))

    weight = model.get_input_embeddings().weight
    total = 0
    for items, _, _, target in samples:
        total = total + written_out.item_loss(written_out.sasrec_state(model, items), weight, target)
    states = [[written_out.sasrec_state(model, items) for items in view] for view in (first, second)]
    if similarity == "cosine":
        states = [[state / state.square().sum().sqrt() for state in view] for view in states]
    users = None if same_user_negatives else batch["sample_users"].tolist()
    expected = (total + 0.3 * written_out.info_nce(*states, 0.5, users, within_views=True)) / len(samples)
    loss = trainer.compute_loss(model, batch)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    check_gradients(loss, expected, model)


VIEW = ("input_ids", "position_ids", "index")


@pytest.mark.parametrize("kind", ["sasrec", "lares"])
def test_packed_and_unpacked_data_give_the_same_gradients(tmp_path, kind):
    """All terms of both; T_0 is 0, since it is drawn for every position anew."""
    settings = {"contrastive": "duorec"} if kind == "sasrec" else {"fixed_depth": True}
    losses = []
    for packed in (True, False):
        model = make_model(kind, **({"initial_std": 0.0} if kind == "lares" else {}))
        trainer = make_trainer(tmp_path, kind, model, make_dataset(packed), **settings)
        loss = trainer.compute_loss(model, whole_batch(trainer))
        loss.backward()
        losses.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (loss, gradients), (other_loss, other_gradients) = losses
    torch.testing.assert_close(loss, other_loss, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], atol=2e-5, rtol=1e-3)


def test_accumulated_gradient_equals_that_of_one_batch(tmp_path):
    class Recorder(SequentialTrainer):
        def _clip_grad_norm(self, model):
            self.gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
            return super()._clip_grad_norm(model)

    results = []
    for batch_size, accumulation in [(4, 1), (1, 4), (2, 2)]:  # rows hold 1 to 3 targets
        args = SequentialTrainingConfig(
            str(tmp_path),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer = Recorder(make_model(), args, train_dataset=make_dataset())
        trainer.train()
        results.append((trainer.gradients, history(trainer, "loss")[0]))
    for gradients, loss in results[1:]:
        assert loss == pytest.approx(results[0][1], abs=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][0][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("objective", ["cross_entropy", "bce"])
@pytest.mark.parametrize("contrastive", ["none", "duorec", "cl4srec"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, objective, contrastive):
    def make():
        model = make_model(dropout=0.3, attention_dropout=0.2, objective=objective)
        settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": 5, "learning_rate": 1e-2}
        return make_trainer(tmp_path, model=model, contrastive=contrastive, **settings)

    whole = make()
    whole.train()  # an epoch is 3 steps
    torch.manual_seed(99)
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert history(resumed, "loss") == history(whole, "loss") and len(history(whole, "loss")) == 8
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_terms_are_logged(tmp_path):
    trainer = make_trainer(tmp_path, contrastive="duorec", contrastive_weight=0.2, max_steps=2)
    trainer.train()
    terms = zip(history(trainer, "loss/recommendation"), history(trainer, "loss/contrastive"), strict=True)
    assert history(trainer, "loss") == pytest.approx([sum(pair) for pair in terms], abs=1e-4)
    assert min(history(trainer, "loss/contrastive")) > 0
    plain = make_trainer(tmp_path)
    plain.train()
    assert not history(plain, "loss/recommendation") and len(history(plain, "loss")) == 1


def test_validation_loss_is_the_recommendation_loss_of_the_validation_data(tmp_path):
    """Its batches are numbered by another data set than the views'."""
    validation = make_dataset(packed=False, sequences=[[2, 3, 4], [9, 8]])
    trainer = make_trainer(tmp_path, contrastive="duorec", eval_dataset=validation)
    weight = trainer.model.get_input_embeddings().weight
    losses = [
        written_out.item_loss(written_out.sasrec_state(trainer.model, items), weight, target)
        for items, target in [([2], 3), ([2, 3], 4), ([9], 8)]
    ]
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(sum(losses).item() / 3, abs=1e-5)
    assert trainer.data_collator.dataset is trainer.train_dataset and "eval_loss/contrastive" not in metrics


@pytest.mark.parametrize("packed", [False, True])
def test_the_validation_loss_is_the_same_in_batches_of_any_size(tmp_path, packed):
    """Packed, a row holds several histories, and rows hold different numbers of targets."""
    validation = make_dataset(packed, sequences=[[2, 3, 4], [9, 8], [1, 7, 4, 2], [5, 6], [3, 1, 2, 8]])
    trainer = make_trainer(tmp_path, eval_dataset=validation)
    losses = []
    for size in (1, 2, 3, 64):
        trainer.args.per_device_eval_batch_size = size
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses == pytest.approx([losses[-1]] * 4, rel=1e-5)


@pytest.mark.parametrize("kind", ["sasrec", "lares"])
def test_evaluation_leaves_the_random_numbers_of_training_alone(tmp_path, kind):
    def losses(**settings):
        torch.manual_seed(0)
        trainer = make_trainer(tmp_path, kind, make_model(kind, dropout=0.5), max_steps=4, **settings)
        trainer.train()
        return history(trainer, "loss")

    assert losses() == losses(eval_dataset=make_dataset(), eval_strategy="steps", eval_steps=1)


@pytest.mark.parametrize("kind", ["sasrec", "lares"])
def test_a_toy_set_is_learned_by_heart(tmp_path, kind):
    model = make_model(
        kind, hidden_size=16, initializer_range=0.2, **({"initial_std": 0.0} if kind == "lares" else {})
    )
    trainer = make_trainer(
        tmp_path, kind, model, max_steps=50, learning_rate=1e-2, per_device_train_batch_size=16, logging_steps=10
    )
    users = [[f"i{item - 1}" for item in items] for items in SEQUENCES]
    samples = [(items[:end], items[end]) for items in users for end in range(2, len(items))]
    histories, targets = zip(*samples, strict=True)
    assert model.rank_targets(histories, targets).mean() > 2
    trainer.train()
    assert model.rank_targets(histories, targets).tolist() == [1] * len(targets)
    assert history(trainer, "loss")[-1] < history(trainer, "loss")[0] / 3


def test_checkpoints_hold_the_items_and_no_pickle(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=1, save_only_model=True)
    trainer.train()
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert {"items.json", "model.safetensors", "config.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}


def make_fmlp() -> FMLPRecForSequentialRecommendation:
    config = FMLPRecConfig(num_items=12, max_history=4, hidden_size=8, intermediate_size=8)
    return FMLPRecForSequentialRecommendation(config, make_items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"dataset": make_examples()}, r"train_dataset is a Dataset; pass SequenceDataset\(examples, items\)"),
        (lambda: {"model": make_fmlp()}, "train_dataset is packed, but FMLPRec.* packed=False"),
        (lambda: {"dataset": make_dataset(max_history=5)}, "has max_history 5, but the model reads 4"),
        (lambda: {"dataset": make_dataset(max_history=3)}, "has max_history 3, but the model reads 4"),
        (
            lambda: {"model": make_fmlp(), "dataset": make_dataset(packed=False, max_history=3)},
            "has max_history 3, but the model reads 4",
        ),
        (
            lambda: {"dataset": SequenceDataset(make_examples(), ItemTable(make_items().item_ids[::-1]), 4)},
            "numbers items by another table than the model",
        ),
    ],
)
def test_data_that_do_not_fit_the_model(tmp_path, make, message):
    with pytest.raises(ValueError, match=f"SequentialTrainer: .*{message}"):
        make_trainer(tmp_path, **make())


def test_validation_data_that_do_not_fit_the_model(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_dataset(max_history=5))
    with pytest.raises(ValueError, match="eval_dataset has max_history 5, but the model reads 4"):
        trainer.evaluate()


def test_a_whole_window_model_learns_from_unpacked_data(tmp_path):
    trainer = make_trainer(tmp_path, model=make_fmlp(), dataset=make_dataset(packed=False), contrastive="duorec")
    trainer.train()
    assert len(history(trainer, "loss")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrastive": "simclr"}, "contrastive is 'simclr'; choose one of"),
        ({"similarity": "euclid"}, "similarity is 'euclid'; choose one of"),
        ({"temperature": 0.0}, "temperature is 0.0; pass a positive number"),
        ({"contrastive_weight": -1.0}, "contrastive_weight is -1.0; pass 0 or more"),
    ],
)
def test_settings_that_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=f"SequentialTrainingConfig: {message}"):
        SequentialTrainingConfig(str(tmp_path), **settings)


def test_settings_of_another_trainer(tmp_path):
    with pytest.raises(ValueError, match="args is a LatentConfig; pass a SequentialTrainingConfig"):
        SequentialTrainer(make_model(), LatentConfig(str(tmp_path), use_cpu=True))
