"""Which samples reinforcement post-training learns from: those that the pre-trained model can reach (LARES, section
2.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from ..data.sequence_collator import NumberedCollator
from ..data.sequences import IGNORE_INDEX, SequenceDataset
from ..models.modes import eval_mode
from .initial_states import initial_states
from .rollout_trainer import seeded_generator
from .sequence_checks import check_sequences


if TYPE_CHECKING:
    from ..models.lares.modeling_lares import LaresForSequentialRecommendation

_METADATA_KEY = "hf_latentrec.selection"


@torch.inference_mode()
def select_samples(
    model: LaresForSequentialRecommendation,
    dataset: SequenceDataset,
    num_trials: int = 3,
    top: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    description: str = "select samples",
) -> np.ndarray:
    """
    Samples whose target is among the first `top` items in at least one of several trials, each from an initial state
    of its own. Processes share the work.

    Args:
        model ([`LaresForSequentialRecommendation`]): pre-trained.
        dataset ([`SequenceDataset`]): the training samples.
        num_trials (`int`, *optional*, defaults to 3): inferences of every sample.
        top (`int`, *optional*, defaults to 100): how good the best of them must be.
        seed (`int`, *optional*, defaults to 0): of the initial states.
        batch_size (`int`, *optional*, defaults to 256): rows of the data set at once.
        description (`str`, *optional*): of the progress bar.

    Returns:
        `np.ndarray` [selected], int64, ascending: numbers of samples. The same on every process.

    Raises:
        ValueError: where no sample is selected, or the data set does not fit the model.
    """
    check_sequences(dataset, model, "select_samples: the data set")
    state, collator = PartialState(), NumberedCollator(dataset)
    key = int(torch.randint(2**62, (), generator=seeded_generator(seed, "selection", 0)))
    starts = range(0, len(dataset), batch_size)[state.process_index :: state.num_processes]
    selected = []
    with eval_mode(model):
        for start in tqdm(starts, desc=description, disable=not state.is_main_process, unit="batch"):
            batch = collator([dataset[row] for row in range(start, min(start + batch_size, len(dataset)))])
            inputs = {name: batch[name].to(model.device) for name in ("input_ids", "labels")}
            if "position_ids" in batch:
                inputs["position_ids"] = batch["position_ids"].to(model.device)
            trials = initial_states(batch["token_ids"], num_trials, model, key).to(model.device)
            ranks_NT = model(**inputs, rollout_states=trials).ranks.cpu().numpy()
            selected.append(batch["samples"].numpy()[within_top(ranks_NT, top)])
    samples = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *gather_object(selected)]))
    if len(samples) == 0:
        raise ValueError(
            f"select_samples: of {dataset.num_samples} samples none has its target among the first {top} items in "
            f"{num_trials} trials; train the model for longer, or pass a larger top"
        )
    return samples


def within_top(ranks: np.ndarray, top: int) -> np.ndarray:
    """
    Which samples [N] have a rank among the first `top` in any of their trials.

    Args:
        ranks (`np.ndarray` [N, trials]): from 1; 0 for a target that is not ranked.
        top (`int`): the cutoff.

    Example:
        >>> within_top(np.array([[101, 100, 300], [101, 102, 0]]), top=100)
        array([ True, False])
    """
    return ((ranks > 0) & (ranks <= top)).any(-1)


class SelectedSamples:
    """
    Rows of a data set with the labels of some samples alone. Rows without any are left out, and so is what follows the
    last one in a row.

    Args:
        dataset ([`SequenceDataset`]): all samples.
        samples (`np.ndarray` [selected]): numbers of samples.

    Raises:
        ValueError: for no samples, or a number that the data set does not have.
    """

    def __init__(self, dataset: SequenceDataset, samples: np.ndarray):
        if len(samples) == 0:
            raise ValueError("SelectedSamples: there are no samples; select one at least")
        if samples.min() < 0 or samples.max() >= dataset.num_samples:
            raise ValueError(
                f"SelectedSamples: samples run from {samples.min()} to {samples.max()}, but the data set has "
                f"{dataset.num_samples}; pass numbers of its samples"
            )
        self.dataset, self.num_samples = dataset, len(np.unique(samples))
        self.packed, self.max_history = dataset.packed, dataset.max_history
        self.items_fingerprint = dataset.items_fingerprint
        self._is_selected = np.zeros(dataset.num_samples, dtype=bool)
        self._is_selected[samples] = True
        self._rows = np.unique(dataset.sample_row[samples])

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As [`SequenceDataset`] gives a row."""
        row = self.dataset[int(self._rows[index])]
        is_selected = self._is_selected[row["samples"]]
        places = np.flatnonzero(row["labels"] != IGNORE_INDEX)
        end = places[is_selected][-1] + 1
        labels = row["labels"][:end].copy()
        labels[places[~is_selected & (places < end)]] = IGNORE_INDEX
        return {
            **row,
            "input_ids": row["input_ids"][:end],
            "labels": labels,
            "samples": row["samples"][is_selected],
        }


def save_selection(path: str | Path, samples: np.ndarray, **circumstances: Any) -> None:
    """
    Writes selected samples, and what they were selected from and how.

    Args:
        path (`str` or `Path`): of a safetensors file; its folder is made.
        samples (`np.ndarray` [selected]): numbers of samples.
        circumstances: strings and numbers, such as fingerprints and settings.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {_METADATA_KEY: json.dumps(circumstances, sort_keys=True)}
    save_file({"samples": np.ascontiguousarray(samples, dtype=np.int64)}, path, metadata)


def load_selection(path: str | Path, **circumstances: Any) -> np.ndarray:
    """
    Reads what [`save_selection`] wrote.

    Args:
        path (`str` or `Path`): of the file.
        circumstances: those of now, which must be those of the file.

    Returns:
        `np.ndarray` [selected]: numbers of samples.

    Raises:
        ValueError: the file is no selection, or one under other circumstances.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = json.loads((file.metadata() or {})[_METADATA_KEY])
            samples = file.get_tensor("samples")
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is no selection of samples ({error}); remove it, and it is made anew") from error
    for name, now in circumstances.items():
        if found.get(name) != now:
            raise ValueError(
                f"{path} is stale: it was made with {name} {found.get(name)!r}, but now that is {now!r}; remove the "
                "file, and the selection is made anew"
            )
    return samples


__all__ = [
    "SelectedSamples",
    "load_selection",
    "save_selection",
    "select_samples",
    "within_top",
]
