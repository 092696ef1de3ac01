"""FLR's fine-tuning: every weight moves, packed histories weigh as separate ones, regularizers do what they say."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModel

from hf_latentrec.trainer import FLRSFTConfig, FLRSFTTrainer, merge_lora
from tests.tiny import make_tiny_recommender


FACTORS = {"reasoner": "factorized_attention", "num_factors": 3}


def make_trainer(tmp_path, reasoner=FACTORS, peft_config=None, eval_dataset=None, **args):
    model, processor, splits = make_tiny_recommender(1, reasoner_config=reasoner, initializer_range=0.2)
    settings = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    config = FLRSFTConfig(tmp_path, use_cpu=True, disable_tqdm=True, **{**settings, **args})
    return FLRSFTTrainer(
        model, config, train_dataset=splits["train"], eval_dataset=eval_dataset and splits["validation"],
        processing_class=processor, peft_config=peft_config,
    )  # fmt: skip


@pytest.mark.parametrize("pack_histories", [True, False])
def test_every_parameter_moves(tmp_path, pack_histories):
    trainer = make_trainer(tmp_path, max_steps=3, pack_histories=pack_histories)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_packed_histories_equal_separate_examples(tmp_path, num_micro_batches):
    """All terms of a step that holds all answers; in two micro-batches histories differ in what they hold."""
    logs = []
    for packed in (True, False):
        trainer = make_trainer(tmp_path, max_steps=1, pack_histories=packed, learning_rate=0.0)
        trainer.args.per_device_train_batch_size = -(-len(trainer.train_dataset) // num_micro_batches)
        trainer.args.gradient_accumulation_steps = num_micro_batches
        trainer._train_batch_size = trainer.args.train_batch_size
        trainer.train()
        logs.append({name: value for name, value in trainer.state.log_history[0].items() if "/" in name})
    assert len(logs[0]) == 10 and logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_the_regularizers_separate_factors(tmp_path):
    """On the training data, against the same steps without them."""
    left = {}
    for losses in (["orthogonality", "diversity", "sparsity"], []):
        trainer = make_trainer(tmp_path, max_steps=40, factor_losses=losses)
        trainer.train()
        trainer.args.factor_losses = ["orthogonality", "diversity", "sparsity"]
        metrics = trainer.evaluate(trainer.train_dataset)
        left[bool(losses)] = [metrics[f"eval_factors/{name}"] for name in trainer.args.factor_losses]
    assert all(on < 0.8 * off for on, off in zip(left[True], left[False], strict=True)), left


def test_evaluation_tells_the_recommendation_loss_apart(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, eval_dataset=True)
    metrics = trainer.evaluate()
    parts = [metrics[f"eval_loss/{name}"] for name in ("cross_entropy", "orthogonality", "diversity", "sparsity")]
    assert metrics["eval_loss"] == pytest.approx(sum(parts), rel=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_lora_trains_the_reasoner_as_a_whole(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=3, peft_config=LoraConfig(r=2))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    # LoRA's first factor has no gradient while the second is 0, which it is in the first step only.
    unmoved = [name for name, p in trainer.model.named_parameters() if name in before and torch.equal(p, before[name])]
    assert unmoved == [] and any("prototypes" in name for name in before)
    merged = merge_lora(trainer.model)
    assert merged.reasoner.loss_log_variances.abs().sum() > 0
    merged.save_pretrained(tmp_path / "merged")
    reasoner = AutoModel.from_pretrained(tmp_path / "merged").reasoner
    torch.testing.assert_close(reasoner.prototypes, merged.reasoner.prototypes)


def test_a_resumed_run_gives_the_same_losses(tmp_path):
    def losses(trainer):
        return [log["loss"] for log in trainer.state.log_history if "loss" in log]

    whole = make_trainer(tmp_path / "whole", max_steps=4)
    whole.train()
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path / "cut", **settings).train()
    resumed = make_trainer(tmp_path / "cut", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert losses(resumed) == losses(whole)
    torch.testing.assert_close(
        resumed.model.reasoner.loss_log_variances, whole.model.reasoner.loss_log_variances, atol=0, rtol=0
    )
