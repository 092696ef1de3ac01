"""Growing the branches of an encoded prompt while decoding.

Shapes: B prompts, K branches that a prompt starts with, Q new tokens of a prompt (of all its branches), S slots,
D hidden.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import nn

from .branch_cache import BranchCache
from .thought_state import ThoughtState
from .tree_attention import build_attention_mask


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin


class BranchDecoder:
    """
    Runs new tokens of any number of branches through the backbone, against the prompt that was encoded once.

    Args:
        model: the recommender.
        state (`ThoughtState`): ready to answer, encoded into a [`BranchCache`]. Where a prompt has several branches
            already, they are of one length.
        compile (`bool`): run the backbone through `torch.compile`. Shapes are then the same in every step, so all
            slots are read even where they are empty still.
    """

    def __init__(self, model: LatentReasoningMixin, state: ThoughtState, compile: bool = False):
        self.model, self.compile = model, compile
        self.cache: BranchCache = state.past_key_values
        self.num_prompt_slots = state.visible_BKS.shape[-1]
        self.prompt_length_B1 = state.visible_BKS[:, :1].sum(-1)
        self.prompt_visible_BKS = nn.functional.pad(
            state.visible_BKS, (0, self.cache.num_slots - self.num_prompt_slots)
        )

    def feed(
        self,
        tokens_BQ: torch.Tensor,
        depths_BQ: torch.Tensor | int,
        visible_BQS: torch.Tensor,
        slots_BQ: torch.Tensor,
        num_read: int,
    ) -> torch.Tensor:
        """
        One pass over new tokens.

        Args:
            tokens_BQ (`torch.LongTensor`): answer tokens.
            depths_BQ (`torch.LongTensor` or `int`): position of each in its answer, from 0.
            visible_BQS (`torch.BoolTensor`): slots that each token sees, its own among them.
            slots_BQ (`torch.LongTensor`): slots to write.
            num_read (`int`): no slot from here on is visible to any branch.

        Returns:
            `torch.Tensor` [B, Q, D]: hidden states.
        """
        num_read = self.cache.num_slots if self.compile else num_read
        self.cache.write_next(slots_BQ, num_read)
        embeds_BQD = self.model.token_embeddings(tokens_BQ)
        mask = build_attention_mask(
            visible_BQS[..., :num_read], self.model.config._attn_implementation, embeds_BQD.dtype
        )
        positions_BQ = (self.prompt_length_B1 + depths_BQ).expand_as(tokens_BQ)
        forward = _compiled_forward() if self.compile else _forward
        return forward(self.model.model, embeds_BQD, mask, positions_BQ, self.cache)


def _forward(
    backbone: nn.Module, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: BranchCache
) -> torch.Tensor:
    return backbone(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state


@functools.cache
def _compiled_forward():
    # A function of the backbone, not its method: nothing compiled hangs on the model, which may be copied and saved.
    return torch.compile(_forward, dynamic=False)


__all__ = ["BranchDecoder"]
