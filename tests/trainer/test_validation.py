"""Evaluation with ranks: what is logged, which checkpoint is the best one, and when a run stops."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from hf_latentrec.evaluation import RecEvaluator
from hf_latentrec.trainer import LatentConfig, LatentSFTConfig, LatentSFTTrainer, LatentTrainer
from tests.tiny import make_tiny_recommender


class Scripted:
    """An evaluator that gives one value after the other and remembers the weights that it saw."""

    def __init__(self, *values):
        self.values, self.weights, self.models = list(values), [], []

    def evaluate(self, model):
        self.models.append(model)
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return SimpleNamespace(metrics={"NDCG@10": self.values.pop(0), "HR@10": 0.5})


WATCH = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "NDCG@10",
    "eval_on_start": True,
}


@pytest.fixture
def make_trainer(tmp_path, toy, make_model):
    def make(evaluator=None, eval_dataset=None, folder="run", **args):
        settings = {"per_device_train_batch_size": 4, "logging_steps": 2, "max_steps": 8, "learning_rate": 1e-2}
        config = LatentConfig(tmp_path / folder, use_cpu=True, disable_tqdm=True, **{**settings, **WATCH, **args})
        return LatentTrainer(
            make_model(embedding_dropout=0.2),
            config,
            data_collator=toy.collate,
            train_dataset=toy.dataset,
            eval_dataset=eval_dataset,
            item_trie=toy.trie,
            evaluator=evaluator,
        )

    return make


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def checkpoints(trainer):
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))


def assert_weights(model, expected):
    state = model.state_dict()
    assert set(expected) <= set(state)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


# What is evaluated


def test_hooks_of_the_trainer():
    assert list(inspect.signature(Trainer._evaluate).parameters) == [
        "self",
        "trial",
        "ignore_keys_for_eval",
        "skip_scheduler",
    ]
    assert list(inspect.signature(Trainer._determine_best_metric).parameters) == ["self", "metrics", "trial"]
    assert list(inspect.signature(Trainer._save_checkpoint).parameters) == ["self", "model", "trial"]
    source = inspect.getsource(Trainer)
    assert source.count("skip_scheduler=True") == 1  # the evaluation on start, and nothing else
    assert "and self.state.best_global_step\n" in source  # once 0 counts there, `_evaluate` can leave the path to it


def test_ranks_stand_beside_the_loss(make_trainer, toy):
    evaluator = Scripted(0.25)
    trainer = make_trainer(evaluator, toy.dataset)
    metrics = trainer.evaluate()
    assert metrics["eval_NDCG@10"] == 0.25 and metrics["eval_HR@10"] == 0.5 and metrics["eval_loss"] > 0
    assert len(trainer.state.log_history) == 1 and metrics.items() <= trainer.state.log_history[0].items()
    assert evaluator.models == [trainer.model]
    other = trainer.evaluate(toy.dataset.select([0]), metric_key_prefix="other")
    assert "other_loss" in other and evaluator.values == []
    for others in (other, trainer.predict(toy.dataset).metrics):
        assert not any("NDCG" in name for name in others)


def test_several_data_sets_share_one_ranking(make_trainer, toy):
    seen = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append(metrics)

    trainer = make_trainer(Scripted(0.25), {"a": toy.dataset, "b": toy.dataset.select([0, 1])})
    trainer.add_callback(Watch())
    metrics = trainer.evaluate()
    assert {"eval_a_loss", "eval_b_loss", "eval_NDCG@10"} <= set(metrics)
    assert [name for logs in seen for name in ("eval_a_loss", "eval_b_loss", "eval_NDCG@10") if name in logs] == [
        "eval_a_loss",
        "eval_b_loss",
        "eval_NDCG@10",
    ]
    assert history(trainer, "eval_NDCG@10") == [0.25]


def test_an_evaluator_is_enough(make_trainer):
    trainer = make_trainer(Scripted(0.1, 0.2, 0.5, 0.4, 0.3))
    trainer.train()
    assert history(trainer, "eval_NDCG@10") == [0.1, 0.2, 0.5, 0.4, 0.3] and history(trainer, "eval_loss") == []
    assert trainer.state.best_metric == 0.5 and trainer.args.greater_is_better
    with pytest.raises(ValueError, match="eval_dataset"):
        make_trainer()


def test_a_real_evaluator_sees_what_training_does(tmp_path):
    model, processor, splits = make_tiny_recommender(num_thoughts=1)
    evaluator = RecEvaluator(processor, splits["validation"], num_beams=10, ks=(5, 10))
    config = LatentSFTConfig(
        tmp_path, use_cpu=True, disable_tqdm=True, per_device_train_batch_size=24, max_steps=4, learning_rate=1e-2,
        normalize="catalog", **{**WATCH, "eval_steps": 4, "save_steps": 4}, early_stopping_patience=3,
    )  # fmt: skip
    trainer = LatentSFTTrainer(
        model, config, train_dataset=splits["train"], processing_class=processor, evaluator=evaluator
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "eval_NDCG@10" in entry]
    assert [entry["step"] for entry in logs] == [0, 4]
    for name, value in evaluator.evaluate(trainer.model).metrics.items():
        best = max(logs, key=lambda entry: entry["eval_NDCG@10"])
        assert best[f"eval_{name}"] == value


# Which checkpoint is the best one


@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("strategy", ["steps", "best"])
def test_training_that_hurts_gives_back_the_start(make_trainer, make_model, limit, strategy):
    start = make_model().state_dict()
    trainer = make_trainer(Scripted(0.5, 0.4, 0.5, 0.2, 0.1), save_total_limit=limit, save_strategy=strategy)
    trainer.train()
    assert not torch.equal(trainer.evaluator.weights[-1]["lm_head.weight"], start["lm_head.weight"])
    assert_weights(trainer.model, start)
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-0") and trainer.state.best_global_step == 0
    assert_weights(trainer.model, load_file(Path(trainer.state.best_model_checkpoint, "model.safetensors")))
    kept = {None: [0, 2, 4, 6, 8], 1: [0], 2: [0, 8]}[limit] if strategy == "steps" else [0]
    assert checkpoints(trainer) == [f"checkpoint-{step}" for step in kept]


@pytest.mark.parametrize("limit", [None, 1])
def test_training_that_improves_keeps_the_best(make_trainer, limit):
    trainer = make_trainer(Scripted(0.1, 0.2, 0.5, 0.5, 0.4), save_total_limit=limit)
    trainer.train()
    assert_weights(trainer.model, trainer.evaluator.weights[2])
    assert not torch.equal(trainer.model.lm_head.weight, trainer.evaluator.weights[3]["lm_head.weight"])
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    assert limit is None or checkpoints(trainer) == ["checkpoint-4"]


def test_without_the_best_model_nothing_is_saved_on_start(make_trainer):
    trainer = make_trainer(Scripted(0.1, 0.2, 0.1), load_best_model_at_end=False, max_steps=4)
    trainer.train()
    assert checkpoints(trainer) == ["checkpoint-2", "checkpoint-4"]


def test_the_loss_can_choose_too(make_trainer, toy):
    trainer = make_trainer(None, toy.dataset, metric_for_best_model=None, learning_rate=1.0, max_steps=4)
    trainer.train()
    losses = history(trainer, "eval_loss")
    assert not trainer.args.greater_is_better and losses[0] == min(losses) == trainer.state.best_metric
    assert trainer.state.best_global_step == 0


@pytest.mark.parametrize("stop", [0, 2, 4])
@pytest.mark.parametrize("values", [(0.5, 0.4, 0.5, 0.2, 0.1), (0.1, 0.3, 0.2, 0.25, 0.3), (0.1, 0.0, 0.0, 0.4, 0.3)])
def test_a_resumed_run_ends_like_an_uninterrupted_one(make_trainer, stop, values):
    whole = make_trainer(Scripted(*values))
    whole.train()
    resumed = make_trainer(Scripted(*values[stop // 2 + 1 :]))
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop}")
    assert resumed.evaluator.values == []
    for key in ("loss", "eval_NDCG@10", "grad_norm"):
        assert history(resumed, key) == history(whole, key), key
    assert resumed.state.best_model_checkpoint == whole.state.best_model_checkpoint
    assert_weights(resumed.model, whole.model.state_dict())


# When a run stops


@pytest.mark.parametrize(
    ("patience", "values", "steps"),
    [(1, (0.1, 0.2, 0.2), 4), (1, (0.3, 0.2), 2), (2, (0.1, 0.0, 0.2, 0.1, 0.2), 8), (2, (0.3, 0.2, 0.1), 4)],
)
def test_early_stopping(make_trainer, patience, values, steps):
    trainer = make_trainer(Scripted(*values), early_stopping_patience=patience)
    trainer.train()
    assert trainer.state.global_step == steps and trainer.evaluator.values == []
    assert_weights(trainer.model, trainer.evaluator.weights[values.index(max(values))])


@pytest.mark.parametrize("stop", [0, 2])
def test_a_resumed_run_goes_on_counting(make_trainer, stop):
    values = (0.5, 0.4, 0.3, 0.2)
    whole = make_trainer(Scripted(*values), early_stopping_patience=3)
    whole.train()
    resumed = make_trainer(Scripted(*values[stop // 2 + 1 :]), early_stopping_patience=3)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{stop}")
    assert resumed.state.global_step == whole.state.global_step == 6 and resumed.evaluator.values == []


def test_a_trainer_that_stopped_early_can_train_again(make_trainer):
    values = (0.5, 0.4, 0.3)
    trainer = make_trainer(Scripted(*values, *values), early_stopping_patience=2)
    for _ in range(2):
        trainer.train()
        assert trainer.state.global_step == 4
    assert trainer.evaluator.values == []


def test_a_run_that_had_stopped_stays_stopped_when_it_is_resumed(make_trainer):
    whole = make_trainer(Scripted(0.5, 0.4, 0.3, 0.2), early_stopping_patience=3, save_total_limit=9)
    whole.train()
    last = f"{whole.args.output_dir}/checkpoint-6"
    resumed = make_trainer(Scripted(), early_stopping_patience=3, save_total_limit=9)
    resumed.train(resume_from_checkpoint=last)
    assert resumed.state.global_step == 6
    assert_weights(resumed.model, whole.model.state_dict())
    # The patience of now counts, not that of the checkpoint.
    patient = make_trainer(Scripted(0.1), early_stopping_patience=5, save_total_limit=9)
    patient.train(resume_from_checkpoint=last)
    assert patient.state.global_step == 8 and patient.evaluator.values == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"early_stopping_patience": 0, **WATCH}, "early_stopping_patience is 0; pass a positive number"),
        ({"early_stopping_patience": 1}, "eval_strategy 'no' and load_best_model_at_end False; set load_best_mod"),
        ({"early_stopping_patience": 1, "eval_strategy": "epoch"}, "'epoch' and load_best_model_at_end False; set"),
        ({"early_stopping_patience": 1, "load_best_model_at_end": True, "save_strategy": "no"}, "'no' and load_b.*Tr"),
    ],
)
def test_early_stopping_that_could_not_work_is_refused(tmp_path, args, message):
    with pytest.raises(ValueError, match=f"LatentConfig: .*{message}"):
        LatentConfig(tmp_path, use_cpu=True, **args)
