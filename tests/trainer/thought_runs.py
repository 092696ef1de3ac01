"""Titles for the toy catalog, and trainers that write down what they do: for the tests of RL over thoughts."""

from __future__ import annotations

import pytest
import torch


END = 3
# Answers of two to four tokens; the last one is the terminal.
TITLES = [(4, 8, END), (4, 9, END), (5, END), (6, 8, 10, END), (6, 8, 11, END), (7, END), (8, 9, END), (9, END)]


def collate_titles(examples):
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


class RecorderMixin:
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


class TwoForwardsMixin(RecorderMixin):
    """Never takes the rewards from the training forward."""

    def training_forward_gives_rewards(self, num_batches):
        return False


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def train(trainer):
    trainer.train()
    return trainer


def answer_of(inputs, row):
    return [token for token in inputs["labels"][row].tolist() if token != -100]


def prompt_of(inputs, row):
    return inputs["input_ids"][row][inputs["attention_mask"][row] == 1]


def assert_same_runs(ours, theirs, atol=1e-5, keys=("loss", "reward", "reward_perturbed", "reward_std", "entropy")):
    assert len(ours.gradients) == len(theirs.gradients)
    for left, right in zip(ours.gradients, theirs.gradients, strict=True):
        assert left.keys() == right.keys() and max(gradient.abs().max() for gradient in left.values()) > 1e-4
        for name in left:
            torch.testing.assert_close(left[name], right[name], atol=atol, rtol=1e-3, msg=name)
    for key in keys:
        assert history(ours, key) == pytest.approx(history(theirs, key), rel=1e-3, abs=1e-5), key
