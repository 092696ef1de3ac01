"""Selected samples against a loop over single samples, and what becomes of rows and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_latentrec import ItemTable
from hf_latentrec.data import NumberedCollator, SequenceDataset
from hf_latentrec.trainer import (
    LaresGRPOConfig,
    LaresGRPOTrainer,
    SelectedSamples,
    load_selection,
    save_selection,
    select_samples,
)
from hf_latentrec.trainer.initial_states import initial_states
from hf_latentrec.trainer.rollout_trainer import seeded_generator
from tests.trainer.lares_toys import make_toy


IGNORE_INDEX = -100
TOP, TRIALS, SEED = 20, 3, 5


def loop_ranks(model, dataset) -> np.ndarray:
    """Ranks [samples, trials]: each sample alone, from the states that its items have."""
    key = int(torch.randint(2**62, (), generator=seeded_generator(SEED, "selection", 0)))
    ranks = []
    for row in range(len(dataset)):
        batch = NumberedCollator(dataset)([dataset[row]])
        states = initial_states(batch["token_ids"], TRIALS, model, key)[0]
        for place in range(batch["input_ids"].shape[1]):
            target = int(batch["labels"][0, place])
            if target == IGNORE_INDEX:
                continue
            ranks.append([])
            for trial in range(TRIALS):
                scores = model(
                    batch["input_ids"][:, : place + 1], initial_state=states[None, trial, : place + 1]
                ).logits[0].tolist()  # fmt: skip
                ranks[-1].append(1 + sum(score > scores[target - 1] for score in scores))
    return np.array(ranks)


@pytest.mark.parametrize("packed", [True, False])
def test_selection_equals_the_loop(packed):
    model, dataset, _ = make_toy(packed=packed)
    with torch.no_grad():
        ranks = loop_ranks(model.eval(), dataset)
    model.train()
    expected = [sample for sample, trials in enumerate(ranks.tolist()) if min(trials) <= TOP]
    single = [sample for sample, trials in enumerate(ranks.tolist()) if trials[0] <= TOP]
    assert single != expected and 0 < len(expected) < dataset.num_samples == len(ranks)
    found = select_samples(model, dataset, TRIALS, TOP, SEED, batch_size=5)
    assert found.tolist() == expected and found.dtype == np.int64 and model.training
    assert select_samples(model, dataset, TRIALS, TOP, SEED + 1).tolist() != expected


def test_nothing_within_reach_is_an_error():
    model, dataset, _ = make_toy()
    with pytest.raises(ValueError, match=r"of \d+ samples none .* first 0 items in 1 trials"):
        select_samples(model, dataset, num_trials=1, top=0)


def test_a_data_set_that_is_not_the_models_is_refused(tmp_path):
    model, dataset, splits = make_toy()
    ids = model.items.item_ids
    others = {
        "numbers items by another table": SequenceDataset(splits["train"], ItemTable(ids[::-1]), max_history=6),
        "has max_history 7, but the model reads 6": SequenceDataset(splits["train"], model.items, max_history=7),
        "has max_history 5, but the model reads 6": SequenceDataset(splits["train"], model.items, max_history=5),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=f"select_samples: the data set {message}"):
            select_samples(model, other)
        for data in (other, SelectedSamples(other, np.arange(3))):
            with pytest.raises(ValueError, match=f"LaresGRPOTrainer: train_dataset {message}"):
                LaresGRPOTrainer(model, LaresGRPOConfig(tmp_path, use_cpu=True), train_dataset=data)
    with pytest.raises(ValueError, match="train_dataset is a Dataset; pass SequenceDataset"):
        LaresGRPOTrainer(model, LaresGRPOConfig(tmp_path, use_cpu=True), train_dataset=splits["train"])


@pytest.mark.parametrize("packed", [True, False])
def test_rows_of_selected_samples(packed):
    dataset = make_toy(packed=packed).dataset
    samples = np.arange(0, dataset.num_samples, 3)[2:]
    selected = SelectedSamples(dataset, samples)
    found = []
    for index in range(len(selected)):
        row = selected[index]
        (places,) = np.nonzero(row["labels"] != IGNORE_INDEX)
        assert len(row["input_ids"]) == len(row["labels"]) == places[-1] + 1
        for place, sample in zip(places, row["samples"], strict=True):
            assert row["input_ids"][: place + 1].tolist() == dataset.prefix(sample).tolist()
            assert row["labels"][place] == dataset.targets[sample]
            found.append(int(sample))
    assert found == samples.tolist() and selected.num_samples == len(samples)


def test_samples_that_there_are_not():
    dataset = make_toy().dataset
    with pytest.raises(ValueError, match="there are no samples"):
        SelectedSamples(dataset, np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match=f"from 3 to {dataset.num_samples}, but the data set has"):
        SelectedSamples(dataset, np.array([3, dataset.num_samples]))


def test_a_saved_selection_comes_back_unless_it_is_stale(tmp_path):
    path = tmp_path / "new" / "selection.safetensors"
    save_selection(path, np.array([2, 5, 9]), model="ab12", top=100)
    assert load_selection(path, model="ab12", top=100).tolist() == [2, 5, 9]
    with pytest.raises(ValueError, match="is stale: it was made with model 'ab12', but now that is 'cd34'; remove"):
        load_selection(path, model="cd34", top=100)
    with pytest.raises(ValueError, match="is stale: it was made with trials None, but now that is 3"):
        load_selection(path, trials=3)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="is no selection of samples"):
        load_selection(path)
