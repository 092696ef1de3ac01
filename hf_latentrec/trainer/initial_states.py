"""Initial states T_0 of LARES that belong to an item of a sequence, whatever batch it is in.

Shapes: R rows, W slots, D hidden, G rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.sequences import random_bits
from ..models.lares.recurrent_depth import to_initial_state


if TYPE_CHECKING:
    from ..models.lares.modeling_lares import LaresForSequentialRecommendation


def initial_states(
    token_ids: torch.Tensor, num_rollouts: int, model: LaresForSequentialRecommendation, key: int, stream: int = 0
) -> torch.Tensor:
    """
    T_0 of several rollouts of every row.

    A state depends on the number of its item, its rollout, `key` and `stream` alone, so that any number of processes
    and any layout of a batch draw the same.

    Args:
        token_ids (`torch.LongTensor` [R, W]): numbers of items, as [`NumberedCollator`] gives them.
        num_rollouts (`int`): G.
        model ([`LaresForSequentialRecommendation`]): whose states they are. One that looks at the whole window has a
            state for each of its slots, W = `max_history`.
        key (`int`): a seed.
        stream (`int`, *optional*, defaults to 0): another one, for further states under the same key.

    Returns:
        `torch.Tensor` [R, G, W, D], on the CPU.

    Example:
        >>> from hf_latentrec import LaresConfig, LaresForSequentialRecommendation
        >>> model = LaresForSequentialRecommendation(LaresConfig(num_items=9))
        >>> initial_states(torch.tensor([[1, 2, 0]]), 4, model, key=1).shape
        torch.Size([1, 4, 3, 64])
    """
    config = model.config
    shape = (num_rollouts, config.hidden_size)
    tokens_RW = token_ids.cpu().numpy()
    if not model.causal:  # a row is one history, and the numbers of its slots start with that of its first item
        tokens_RW = tokens_RW[:, :1] + np.arange(config.max_history)
    numbers_RGWD = tokens_RW[:, None, :, None] * np.prod(shape) + np.arange(np.prod(shape)).reshape(shape)[:, None, :]
    # 24 bits are what a float32 between 0 and 1 can hold; the half keeps clear of both ends.
    bits = (random_bits(numbers_RGWD, key, stream) >> np.uint64(40)).astype(np.float32)
    uniform = torch.from_numpy((bits + np.float32(0.5)) / np.float32(2**24))
    return to_initial_state(uniform, config.initial_std, config.initial_scale)


__all__ = ["initial_states"]
