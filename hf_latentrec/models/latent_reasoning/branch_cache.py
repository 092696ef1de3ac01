"""A key/value cache that is allocated once and written slot by slot: what branches grow in while decoding.

Shapes: B prompts, Q new tokens of a prompt (of all its branches), S slots, H key/value heads, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


@dataclass
class SlotPlan:
    """
    Where the next tokens of all layers go.

    Args:
        num_slots (`int`): S, the size that is allocated at first.
        slots_BQ (`torch.LongTensor`, *optional*): slots of the next tokens; without, they follow the last ones.
        num_read (`int`): with `slots_BQ`, attention reads the first `num_read` slots.
    """

    num_slots: int
    slots_BQ: torch.Tensor | None = None
    num_read: int = 0


class BranchCacheLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, H, S, d], written in place."""

    def __init__(self, plan: SlotPlan):
        super().__init__()
        self.plan = plan
        self.num_used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates all slots. They are zero, because what nobody sees must still be finite."""
        B, H, _, _ = key_states.shape
        self.keys = key_states.new_zeros(B, H, self.plan.num_slots, key_states.shape[-1])
        self.values = value_states.new_zeros(B, H, self.plan.num_slots, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes [B, H, Q, d] and returns the slots that are to be read."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.plan.slots_BQ is None:
            start, self.num_used = self.num_used, self.num_used + key_states.shape[2]
            self.keys[:, :, start : self.num_used] = key_states
            self.values[:, :, start : self.num_used] = value_states
        else:
            index = self.plan.slots_BQ[:, None, :, None].expand_as(key_states)
            self.keys.scatter_(2, index, key_states)
            self.values.scatter_(2, index, value_states)
            self.num_used = self.plan.num_read
        return self.keys[:, :, : self.num_used], self.values[:, :, : self.num_used]

    def get_seq_length(self) -> int:
        return self.num_used

    def get_max_length(self) -> int:
        return self.plan.num_slots

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.num_used + query_length, 0


class BranchCache(Cache):
    """
    The cache of a prompt with room for what follows it. Only for inference: slots are overwritten in place.

    A branch that was pruned leaves its slots to others, so memory grows with the branches that live, not with all that
    were ever opened; nothing is moved or repeated.

    Args:
        num_layers (`int`): of the backbone.
        num_slots (`int`): S: tokens of the prompt, its thoughts, and of all branches that live at once.
    """

    def __init__(self, num_layers: int, num_slots: int):
        self.plan = SlotPlan(num_slots)
        super().__init__(layers=[BranchCacheLayer(self.plan) for _ in range(num_layers)])

    @property
    def num_slots(self) -> int:
        """S."""
        return self.plan.num_slots

    def write_next(self, slots_BQ: torch.Tensor, num_read: int) -> None:
        """Says where the next tokens go: see [`SlotPlan`]."""
        self.plan.slots_BQ, self.plan.num_read = slots_BQ, num_read

    def grow(self, num_slots: int) -> None:
        """Makes room for more slots."""
        padding = (0, 0, 0, num_slots - self.num_slots)
        for layer in self.layers:
            layer.keys, layer.values = nn.functional.pad(layer.keys, padding), nn.functional.pad(layer.values, padding)
        self.plan.num_slots = num_slots


__all__ = ["BranchCache", "BranchCacheLayer", "SlotPlan"]
