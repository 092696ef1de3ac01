"""Training or evaluation mode of a model for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn


@contextmanager
def in_mode(model: Any, training: bool) -> Iterator[None]:
    """
    The model is in training mode in the block, or in evaluation mode, and afterwards every module is in its mode of
    before, also where the block raises.

    Args:
        model (`nn.Module`): a recommender; one that is no network, such as popularity, has no modes and is left alone.
        training (`bool`): which mode.

    Example:
        >>> layer = nn.Dropout()
        >>> with in_mode(layer, training=False):
        ...     print(layer.training)
        False
        >>> layer.training
        True
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def eval_mode(model: Any) -> AbstractContextManager[None]:
    """[`in_mode`] with dropout off."""
    return in_mode(model, training=False)


__all__ = ["eval_mode", "in_mode"]
