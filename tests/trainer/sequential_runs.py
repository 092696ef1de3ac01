"""Histories of toy items and trainers for them: what the tests of item-ID training share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from hf_latentrec.data import SequenceDataset
from hf_latentrec.trainer import LaresTrainer, SequentialTrainer
from tests.models.lares.toy_models import MAX_HISTORY, make_items, make_model


# Targets that several users share; histories longer than the model reads.
SEQUENCES = [[1, 2, 6], [3, 4, 5, 6], [7, 2], [8, 9, 1, 2, 3, 4, 10], [5, 2], [6, 1, 5], [11, 4]]
TRAINERS = {"sasrec": SequentialTrainer, "lares": LaresTrainer}


def make_examples(sequences: list[list[int]] = SEQUENCES, sequences_of_a_user: int = 1) -> Dataset:
    rows = [(user, items[:end], items[end]) for user, items in enumerate(sequences) for end in range(1, len(items))]
    return Dataset.from_dict(
        {
            "user_id": [f"u{user // sequences_of_a_user}" for user, _, _ in rows],
            "history": [[f"i{item - 1}" for item in history] for _, history, _ in rows],
            "target": [f"i{target - 1}" for _, _, target in rows],
        }
    )


def make_dataset(packed: bool = True, sequences: list[list[int]] = SEQUENCES, **settings) -> SequenceDataset:
    return SequenceDataset(make_examples(sequences), make_items(), packed=packed, **{"max_history": 4, **settings})


def make_trainer(folder: Any, kind: str = "sasrec", model: nn.Module | None = None, dataset: Any = None, **settings):
    """A trainer of SASRec or LARES that evaluates nothing and saves nothing unless it is asked to."""
    trainer_class = TRAINERS[kind]
    evaluated = settings.pop("eval_dataset", None)
    settings = {
        "max_steps": 1, "per_device_train_batch_size": 3, "logging_steps": 1, "save_strategy": "no",
        "max_grad_norm": 1e9, **settings,
    }  # fmt: skip
    return trainer_class(
        make_model(kind) if model is None else model,
        trainer_class.config_class(str(folder), use_cpu=True, disable_tqdm=True, **settings),
        train_dataset=make_dataset() if dataset is None else dataset,
        eval_dataset=evaluated,
    )


def whole_batch(trainer: SequentialTrainer) -> dict[str, Any]:
    """All rows of the training data as one batch, without the users."""
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(trainer.train_dataset))])
    batch.pop("user_ids")
    return batch


def prefixes(
    input_ids: torch.Tensor, position_ids: torch.Tensor, index: torch.Tensor
) -> Iterator[tuple[list[int], int, slice]]:
    """The history that ends at each flat place, its row, and its slots there."""
    for place in index.tolist():
        row, last = divmod(place, input_ids.shape[1])
        slots = slice(last - position_ids[row, last].item(), last + 1)
        yield input_ids[row, slots].tolist(), row, slots


def samples_of(batch: dict[str, Any]) -> list[tuple[list[int], int, slice, int]]:
    """History, row, slots and target of every label, row by row."""
    index = batch["labels"].flatten().ne(-100).nonzero()[:, 0]
    targets = batch["labels"].flatten()[index].tolist()
    found = prefixes(batch["input_ids"], batch["position_ids"], index)
    return [(*prefix, target) for prefix, target in zip(found, targets, strict=True)]


def expected_samples() -> list[tuple[list[int], int]]:
    """What the examples say, sorted."""
    return sorted((items[:end][-MAX_HISTORY:], items[end]) for items in SEQUENCES for end in range(1, len(items)))


def check_gradients(found: torch.Tensor, expected: torch.Tensor, model: nn.Module) -> None:
    named = dict(model.named_parameters())
    ours = torch.autograd.grad(found, list(named.values()))
    theirs = torch.autograd.grad(expected, list(named.values()))
    assert max(gradient.abs().max() for gradient in theirs) > 1e-2
    for name, one, other in zip(named, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def history(trainer: SequentialTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]
