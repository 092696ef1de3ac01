"""Supervised fine-tuning on a tiny model: every parameter moves, packed answers all count, it learns."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.trainer import LatentSFTConfig, LatentSFTTrainer


@pytest.fixture
def train(tmp_path, toy, make_model):
    def train(num_thoughts=2, dataset=None, collate=None, **args):
        settings = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 0.1, "logging_steps": 1, **args}
        trainer = LatentSFTTrainer(
            make_model(num_thoughts),
            LatentSFTConfig(tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", **settings),
            data_collator=toy.collate if collate is None else collate,
            train_dataset=toy.dataset if dataset is None else dataset,
            item_trie=toy.trie,
        )
        before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
        trainer.train()
        return trainer, before

    return train


@pytest.mark.parametrize("num_thoughts", [0, 2])
@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
def test_every_parameter_moves(train, num_thoughts, normalize):
    trainer, before = train(num_thoughts, normalize=normalize)
    assert trainer.state.log_history[-1]["train_loss"] > 0
    unmoved = [name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])]
    assert unmoved == []


@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
def test_it_learns_the_targets(train, toy, normalize):
    trainer, _ = train(max_steps=60, learning_rate=1e-2, per_device_train_batch_size=8, normalize=normalize)
    batch = toy.collate(toy.rows)
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    trainer.model.eval()
    output = trainer.model.generate(**prompt, item_trie=toy.trie, num_beams=3, num_return_sequences=1)
    assert torch.equal(output.sequences, batch["labels"])


def test_the_loss_is_normalized_as_asked(train, toy, make_model):
    batch = {name: tensor for name, tensor in toy.collate(toy.rows).items() if name != "user_ids"}
    for normalize, trie in [("vocabulary", None), ("catalog", toy.trie)]:
        trainer, _ = train(max_steps=1, per_device_train_batch_size=8, normalize=normalize)
        expected = make_model()(**batch, item_trie=trie).loss.item()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_every_answer_of_a_packed_history_counts(train, toy, make_model):
    """Two branches of a history give the same loss as two examples with its prefixes as prompts."""
    tokens = [1, 4, 8, 5, 9, 7, 11]
    starts, answers = [3, 5], [[5, 9], [7, 11]]

    def collate_packed(examples):
        return {
            "input_ids": torch.tensor([tokens]),
            "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
            "labels": torch.tensor([answers]),
            "branch_starts": torch.tensor([starts]),
            "labels_follow_prompt": True,
            "user_ids": ["u0"],
        }

    rows = [
        {"user_id": "u0", "input_ids": tokens[:start], "labels": answer}
        for start, answer in zip(starts, answers, strict=True)
    ]
    packed, _ = train(dataset=[0], collate=collate_packed, max_steps=1)
    unpacked, _ = train(dataset=rows, max_steps=1)
    losses = [trainer.state.log_history[0]["loss"] for trainer in (packed, unpacked)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    for ours, theirs in zip(packed.model.parameters(), unpacked.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
