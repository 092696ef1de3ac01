"""Whether the sequences that a trainer of item-ID recommenders is given are the model's."""

from __future__ import annotations

from typing import Any

from torch import nn


def check_sequences(dataset: Any, model: nn.Module, where: str) -> None:
    """
    Raises where a data set does not fit a model.

    Args:
        dataset (`SequenceDataset` or [`SelectedSamples`]): the sequences.
        model (`SequentialRecommender`): what reads them.
        where (`str`): what errors name first.

    Raises:
        ValueError: for packed rows of a model that is not causal, histories of another length than the model reads, or
            items that are not the model's.
    """
    if dataset.packed and not model.causal:
        raise ValueError(
            f"{where} is packed, but {type(model).__name__} looks at the whole window, so a pass gives the state of "
            "one history only; pass SequenceDataset(..., packed=False)"
        )
    if dataset.max_history != model.config.max_history:  # with less, it recommends by positions it never learned
        raise ValueError(
            f"{where} has max_history {dataset.max_history}, but the model reads {model.config.max_history}; pass "
            f"SequenceDataset(..., max_history={model.config.max_history})"
        )
    if model.items is not None and dataset.items_fingerprint != model.items.fingerprint:
        raise ValueError(
            f"{where} numbers items by another table than the model; pass SequenceDataset(examples, model.items)"
        )


__all__ = ["check_sequences"]
