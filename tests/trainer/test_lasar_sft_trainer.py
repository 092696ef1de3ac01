"""LASAR's stage 2: its terms against slow loops, what they move, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from hf_latentrec.trainer import LASARSFTConfig, LASARSFTTrainer, merge_lora
from tests.tiny import make_tiny_recommender
from tests.trainer.memory_anchors import ADAPTIVE, MemoryAnchors
from tests.trainer.test_thought_losses import slow_alignment


@pytest.fixture
def make_adaptive(make_model):
    """A model of the toy catalog that chooses 1 to 3 thoughts, and not always the same."""
    return lambda: make_model(3, reasoner_config=ADAPTIVE, initializer_range=0.4)


@pytest.fixture
def make_trainer(tmp_path, toy, rows, anchors, make_adaptive):
    given = anchors

    def make(model=None, anchors=given, rows=rows, peft_config=None, new_token_ids=None, **args):
        settings = {
            "per_device_train_batch_size": 8, "max_steps": 1, "learning_rate": 0.1, "logging_steps": 1,
            "save_strategy": "no", "max_missing_cot": 0.2, "warmup_steps": 0, **args,
        }  # fmt: skip
        return LASARSFTTrainer(
            make_adaptive() if model is None else model,
            LASARSFTConfig(tmp_path, use_cpu=True, disable_tqdm=True, **settings),
            anchors=anchors,
            data_collator=toy.collate,
            train_dataset=Dataset.from_list(rows),
            item_trie=toy.trie,
            peft_config=peft_config,
            new_token_ids=new_token_ids,
        )

    return make


def slow_terms(model, toy, rows, anchors, kind):
    """Each example alone, thought by thought."""
    found = SimpleNamespace(alignment=0.0, policy=0.0, depths=[], correct=0, too_deep=0)
    with_cot = [row for row in rows if (row["user_id"], row["target"]) in anchors.by_answer]
    for row in rows:
        batch = toy.collate([row])
        output = model(batch["input_ids"], batch["attention_mask"], batch["labels"])
        depth = int(output.num_thoughts[0])
        found.depths.append(depth)
        if row not in with_cot:
            continue
        segments = anchors.by_answer[row["user_id"], row["target"]]
        label = min(len(segments), 3) - 1
        found.correct += depth - 1 == label
        found.policy += -output.depth_logits[0].softmax(-1)[label].log().item() / len(with_cot)
        if depth > len(segments):
            found.too_deep += 1
            continue
        for step in range(depth):
            distance = slow_alignment(output.thoughts[0, step].tolist(), segments[step].tolist(), kind)
            found.alignment += distance / depth / len(with_cot)
    return found


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse"])
def test_terms_equal_the_loop(make_trainer, make_adaptive, toy, rows, anchors, kind):
    trainer = make_trainer(alignment=kind, align_weight=0.3, policy_weight=0.7, learning_rate=0.0)
    trainer.train()
    logs = trainer.state.log_history[0]
    slow = slow_terms(make_adaptive().eval(), toy, rows, anchors, kind)
    assert len(set(slow.depths)) > 1 and slow.too_deep > 0 and 0 < slow.correct < 7
    assert logs["loss/alignment"] == pytest.approx(0.3 * slow.alignment, rel=1e-4)
    assert logs["alignment"] == pytest.approx(slow.alignment, rel=1e-4)
    assert logs["loss/policy"] == pytest.approx(0.7 * slow.policy, rel=1e-4)
    assert logs["depth/mean"] == pytest.approx(sum(slow.depths) / 8)
    assert logs["depth/accuracy"] == pytest.approx(slow.correct / 7)
    assert logs["cot/missing"] == pytest.approx(1 / 8) and logs["cot/too_deep"] == pytest.approx(slow.too_deep / 7)
    parts = [logs[f"loss/{name}"] for name in ("cross_entropy", "alignment", "policy")]
    assert logs["loss"] == pytest.approx(sum(parts), abs=1e-3)


def test_batches_without_any_text_change_nothing(make_trainer, toy, rows):
    """Of one example a step, some have no text: they are trained by their answer, and every weight has a gradient."""
    trainer = make_trainer()
    batch = trainer.data_collator(rows[:1])
    loss = trainer.compute_loss(trainer.model, batch)
    plain = trainer.model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert all(parameter.grad is not None for parameter in trainer.model.parameters())
    assert not any(parameter.grad.any() for parameter in trainer.model.depth_policy.parameters())


def gradients(trainer, rows):
    """By term, the parameters that it moves; none may move the anchors."""
    batch = trainer.data_collator(rows)
    batch["anchors"].requires_grad_(True)
    num_items = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    del batch["user_ids"]
    terms, _ = trainer.compute_terms(trainer.model, dict(batch), num_items)
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    found = {}
    for term, value in terms.items():
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        found[term] = {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.any()}
    return found


def test_each_term_moves_what_it_should(make_trainer, rows):
    trainer = make_trainer()
    head = {name for name, _ in trainer.model.named_parameters() if name.startswith("depth_policy.")}
    backbone = {name for name, _ in trainer.model.named_parameters()} - head
    moved = gradients(trainer, rows)
    assert len(head) == 4 and moved["policy"] == head
    assert moved["cross_entropy"] == backbone
    assert moved["alignment"] and moved["alignment"] <= backbone


def test_every_parameter_moves_and_it_learns(make_trainer):
    trainer = make_trainer(max_steps=25, learning_rate=1e-2, policy_weight=1.0, lr_scheduler_type="constant")
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])] == []
    first, last = trainer.state.log_history[0], trainer.state.log_history[-2]
    assert last["depth/accuracy"] > first["depth/accuracy"]
    assert all(last[f"loss/{name}"] < 0.7 * first[f"loss/{name}"] for name in ("policy", "cross_entropy"))


def test_alignment_learns(make_trainer):
    ends = []
    for weight in (0.0, 1.0):
        trainer = make_trainer(max_steps=15, learning_rate=1e-2, align_weight=weight, lr_scheduler_type="constant")
        trainer.train()
        trainer.aligns = True
        ends.append(trainer.evaluate(trainer.train_dataset)["eval_alignment"])
    assert ends[1] < 0.8 * ends[0]


def test_parts_can_be_switched_off(make_trainer, make_model):
    trainer = make_trainer(anchors=None, alignment="none", policy_weight=0.0)
    assert not any(parameter.requires_grad for parameter in trainer.model.depth_policy.parameters())
    trainer.train()
    assert "loss/alignment" not in trainer.state.log_history[0] and "depth/mean" in trainer.state.log_history[0]
    trainer = make_trainer(model=make_model(2), policy_weight=0.0)  # a fixed depth, aligned
    trainer.train()
    assert {"loss/alignment", "cot/too_deep"} <= trainer.state.log_history[0].keys()
    trainer = make_trainer(alignment="none")
    trainer.train()
    assert {"loss/policy", "depth/accuracy"} <= trainer.state.log_history[0].keys()


def test_what_is_refused(make_trainer, make_model, rows, anchors):
    with pytest.raises(ValueError, match="policy_weight is 0.1, but the model has no depth policy"):
        make_trainer(model=make_model(2))
    with pytest.raises(ValueError, match="alignment is 'kl' .* which need anchors"):
        make_trainer(anchors=None)
    with pytest.raises(ValueError, match="num_thoughts is 0, so there are no thoughts"):
        make_trainer(model=make_model(0), policy_weight=0.0)
    with pytest.raises(ValueError, match="anchors have hidden_size 12, but the model has 16"):
        make_trainer(anchors=MemoryAnchors({}, 12))
    with pytest.raises(ValueError, match="8 of 8 training examples .* have no reasoning text"):
        make_trainer(anchors=MemoryAnchors({}, 16), max_missing_cot=1.0)
    message = r"1 of 8 training examples \(12.5%\) have no reasoning text, the first: user 'u0', target 'i0'; max_mis"
    with pytest.raises(ValueError, match=message):
        make_trainer(max_missing_cot=0.1)
    trainer = make_trainer()
    anchors.by_answer["u4", "i4"][2] = torch.nan
    with pytest.raises(ValueError, match="user 'u4', target 'i4', segment 2 holds NaN"):
        trainer.train()


def test_sharded_models_with_adaptive_depth_are_refused(make_trainer, make_model, anchors):
    trainer = make_trainer()
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="different numbers of steps.*use DDP"):
        trainer.check_parts(anchors)
    trainer = make_trainer(model=make_model(2), policy_weight=0.0)
    trainer.is_fsdp_enabled = True
    trainer.check_parts(anchors)


def test_missing_texts_are_counted(make_trainer, caplog):
    with caplog.at_level("WARNING"):
        make_trainer()
    assert "1 of 8 training examples (12.5%) have no reasoning text" in caplog.text


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_packed_histories_equal_separate_examples(tmp_path, num_micro_batches):
    """All terms of a step that holds all answers; in two micro-batches histories differ in what they hold."""
    logs = []
    for packed in (True, False):
        model, processor, splits = make_tiny_recommender(3, reasoner_config=ADAPTIVE, initializer_range=0.2)
        answers = list(zip(splits["train"]["user_id"], splits["train"]["target"], strict=True))
        anchors = MemoryAnchors.draw(answers, [row % 6 for row in range(len(answers))], 32)
        config = LASARSFTConfig(
            tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1, max_steps=1,
            learning_rate=0.0, pack_histories=packed, max_missing_cot=0.2,
        )  # fmt: skip
        trainer = LASARSFTTrainer(
            model, config, anchors=anchors, train_dataset=splits["train"], processing_class=processor
        )
        trainer.args.per_device_train_batch_size = -(-len(trainer.train_dataset) // num_micro_batches)
        trainer.args.gradient_accumulation_steps = num_micro_batches
        trainer._train_batch_size = trainer.args.train_batch_size
        trainer.train()
        logs.append({name: value for name, value in trainer.state.log_history[0].items() if "/" in name})
    assert len(logs[0]) == 7 and logs[0] == pytest.approx(logs[1], rel=1e-4)
    assert 0 < logs[0]["cot/too_deep"] < 1 and logs[0]["cot/missing"] > 0


def test_a_resumed_run_gives_the_same_losses(make_trainer):
    settings = {"max_steps": 4, "per_device_train_batch_size": 3, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(**settings)
    whole.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
@pytest.mark.parametrize("policy_weight", [0.5, 0.0])
def test_lora_trains_the_depth_policy_as_a_whole(make_trainer, policy_weight):
    trainer = make_trainer(
        policy_weight=policy_weight, peft_config=LoraConfig(r=2), new_token_ids=[], max_steps=3, learning_rate=1e-2
    )
    head = trainer.model.depth_policy
    before = {name: parameter.detach().clone() for name, parameter in head.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in head.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "modules_to_save" in name and policy_weight}
    merged = merge_lora(trainer.model)
    assert {name for name, _ in merged.depth_policy.named_parameters()} == {
        name.removeprefix("original_module.") for name in before if name.startswith("original_module.")
    }
