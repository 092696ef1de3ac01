"""The state between prompt and answer: an encoded prompt and the branches that grow from it.

Shapes: B prompts, K branches, L prompt, N thoughts, S cache slots, D hidden.
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
        prompt_hidden_BLD (`torch.Tensor`): last-layer hidden states of the prompt.
        thoughts_BKND (`torch.Tensor`): thoughts so far.
        opened (`bool`): whether the branches have read the marker that opens the thoughts.
    """

    past_key_values: Cache
    visible_BKS: torch.Tensor
    hidden_BKD: torch.Tensor
    prompt_hidden_BLD: torch.Tensor
    thoughts_BKND: torch.Tensor
    opened: bool = False

    def expand(self, num_branches: int) -> ThoughtState:
        """`num_branches` branches that continue the only one there is."""
        return replace(
            self,
            visible_BKS=self.visible_BKS.expand(-1, num_branches, -1),
            hidden_BKD=self.hidden_BKD.expand(-1, num_branches, -1),
        )


__all__ = ["ThoughtState"]
