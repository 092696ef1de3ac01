"""The state between prompt and answer: an encoded prompt and the branches that grow from it.

Shapes: B prompts, K branches, C depths, F factors, N thoughts, S slots, s slots of one pass, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import Cache


@dataclass
class Thought:
    """
    What a reasoner gives in one step, per branch.

    Args:
        embeds_BKD (`torch.Tensor`): the thought: an input embedding.
        read_parts (`tuple[torch.Tensor, ...]`): what the reasoner made of each of the state's `hidden_parts`, to be
            used again in the next step.
        attentions_BKFS (`torch.Tensor`, *optional*): where the factors looked; one row where there is one head.
        factors_BKFD (`torch.Tensor`, *optional*): what they found there.
        gates_BKF (`torch.Tensor`, *optional*): their shares of the thought.
    """

    embeds_BKD: torch.Tensor
    read_parts: tuple[torch.Tensor, ...] = ()
    attentions_BKFS: torch.Tensor | None = None
    factors_BKFD: torch.Tensor | None = None
    gates_BKF: torch.Tensor | None = None


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
        read_parts (`tuple[torch.Tensor, ...]`): what the reasoner has made of `hidden_parts`, as far as it has read.
        thoughts_BKND (`torch.Tensor`): hidden states `h_1 .. h_N` of the thoughts so far.
        thought_embeds_BKND (`torch.Tensor`): what the reasoner gave: their input embeddings, without noise.
        steps (`tuple[Thought, ...]`): all that the reasoner gave, step by step.
        depth_logits_BKC (`torch.Tensor`, *optional*): with adaptive depth, what the policy thinks of each depth.
        depths_BK (`torch.LongTensor`, *optional*): thoughts of each branch, where branches may differ.
        opened (`bool`): whether the branches are ready to think: have read the opening marker and the initial
            content of a slot that is refined, where there are such.
    """

    past_key_values: Cache
    visible_BKS: torch.Tensor
    hidden_BKD: torch.Tensor
    hidden_parts: tuple[torch.Tensor, ...]
    position_parts: tuple[torch.Tensor, ...]
    thoughts_BKND: torch.Tensor
    thought_embeds_BKND: torch.Tensor
    read_parts: tuple[torch.Tensor, ...] = ()
    steps: tuple[Thought, ...] = ()
    depth_logits_BKC: torch.Tensor | None = None
    depths_BK: torch.Tensor | None = None
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

    def forget_newest(self) -> ThoughtState:
        """Every branch without its newest token, which another one is to replace."""
        visible_BKS = self.visible_BKS
        slot_S = torch.arange(visible_BKS.shape[-1], device=visible_BKS.device)
        newest_BK = (visible_BKS * slot_S).amax(-1)
        return replace(self, visible_BKS=visible_BKS & (slot_S != newest_BK[..., None]))


__all__ = ["Thought", "ThoughtState"]
