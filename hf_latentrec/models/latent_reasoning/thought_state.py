"""The state between prompt and answer: an encoded prompt and the branches that grow from it.

Shapes: B prompts, K branches, N thoughts, S slots, s slots of one pass, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import Cache


@dataclass
class ThoughtState:
    """
    An encoded prompt and the branches that grow from it.

    Args:
        past_key_values (`Cache`): keys and values of all slots, shared by the branches.
        visible_BKS (`torch.BoolTensor`): the slots that each branch sees.
        hidden_BKD (`torch.Tensor`): last-layer hidden state of each branch's newest token.
        hidden_parts (`tuple[torch.Tensor, ...]`): last-layer hidden states [B, s, D] of the slots, pass by pass.
        position_parts (`tuple[torch.LongTensor, ...]`): position ids [B, s] of the slots, pass by pass.
        thoughts_BKND (`torch.Tensor`): hidden states `h_1 .. h_N` of the thoughts so far.
        thought_embeds_BKND (`torch.Tensor`): what the reasoner gave: their input embeddings, without noise.
        opened (`bool`): whether the branches are ready to think (have read the opening marker, if there are markers).
    """

    past_key_values: Cache
    visible_BKS: torch.Tensor
    hidden_BKD: torch.Tensor
    hidden_parts: tuple[torch.Tensor, ...]
    position_parts: tuple[torch.Tensor, ...]
    thoughts_BKND: torch.Tensor
    thought_embeds_BKND: torch.Tensor
    opened: bool = False

    @property
    def hidden_BSD(self) -> torch.Tensor:
        """Last-layer hidden state of every slot."""
        return torch.cat(self.hidden_parts, dim=1)

    @property
    def positions_BS(self) -> torch.Tensor:
        """Position id of every slot: real tokens before it on its branch."""
        return torch.cat(self.position_parts, dim=1)

    def expand(self, num_branches: int) -> ThoughtState:
        """`num_branches` branches that continue the only one there is."""
        return replace(
            self,
            visible_BKS=self.visible_BKS.expand(-1, num_branches, -1),
            hidden_BKD=self.hidden_BKD.expand(-1, num_branches, -1),
        )


__all__ = ["ThoughtState"]
