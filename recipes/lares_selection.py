"""The samples that a model's post-training learns from, chosen once and kept beside the model, for train_lares.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_latentrec import LaresForSequentialRecommendation
    from hf_latentrec.data import SequenceDataset
    from hf_latentrec.trainer import SelectedSamples

SELECTION_FILE = "selection.safetensors"  # beside the model that selected


def selected_samples(
    model_folder: Path, model: LaresForSequentialRecommendation, dataset: SequenceDataset, stage_args: Any, seed: int
) -> SelectedSamples:
    """
    The samples that a pre-trained model can reach, of an earlier run where there is one.

    Args:
        model_folder (`Path`): of the pre-trained model; the selection is kept there.
        model (`LaresForSequentialRecommendation`): loaded from it.
        dataset (`SequenceDataset`): all training samples.
        stage_args (`LaresStageArguments`): as parsed.
        seed (`int`): of the initial states.

    Raises:
        ValueError: where the selection of an earlier run is one of another model, other data or other settings.
    """
    from accelerate import PartialState

    from hf_latentrec.cot.fingerprints import model_fingerprint
    from hf_latentrec.trainer import SelectedSamples, load_selection, save_selection, select_samples

    state, path = PartialState(), model_folder / SELECTION_FILE
    how = {"num_trials": stage_args.selection_trials, "top": stage_args.selection_top, "seed": seed}
    circumstances = {
        "model": model_fingerprint(model),
        "split": model.config.split_fingerprint,
        "max_history": dataset.max_history,
        **how,
    }
    exists = path.exists()
    state.wait_for_everyone()  # before any of them writes
    if exists:
        samples = load_selection(path, **circumstances)
    else:
        samples = select_samples(model, dataset, **how, batch_size=stage_args.selection_batch_size)
        if state.is_main_process:
            save_selection(path, samples, **circumstances)
    if state.is_main_process:
        print(
            f"{len(samples):,} of {dataset.num_samples:,} training samples are selected: the target is among the "
            f"first {how['top']} items in one of {how['num_trials']} trials ({path})",
            flush=True,
        )
    return SelectedSamples(dataset, samples)


__all__ = ["SELECTION_FILE", "selected_samples"]
