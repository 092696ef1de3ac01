"""Masks and positions of branches that share one encoded prompt.

All branches of a prompt lie on the sequence axis of one cache row:

    slot      0   1   2   3 | 4   5   6 | 7   8   9
              prompt        | one token | one token
    branch                  | 0   1   2 | 0   1   2
    visible   x   x   x   x | .   x   . | .   x   .      <- what branch 1 sees

What a branch sees is one boolean row over the slots, `visible_BKS`. It is the whole bookkeeping: a branch that starts
in the middle of the prompt does not see the rest of it, a beam that continues another one takes over its row, and the
position of a token is the number of slots that it sees before itself.

Shapes: B prompts, K branches, S slots so far, M new tokens per branch.
"""

from __future__ import annotations

import torch


def extend_visibility(visible_BKS: torch.Tensor, num_new: int) -> torch.Tensor:
    """
    What each new token sees when every branch grows by `num_new` tokens, laid out branch by branch.

    Args:
        visible_BKS (`torch.BoolTensor` [B, K, S]): what each branch sees.
        num_new (`int`): new tokens per branch, M.

    Returns:
        `torch.BoolTensor` [B, K, M, S + K * M]: a token sees its branch's slots, the earlier new tokens of its own
        branch and itself. The last token's row is what the branch sees afterwards.
    """
    B, K, S = visible_BKS.shape
    device = visible_BKS.device
    same_branch_KK = torch.eye(K, dtype=torch.bool, device=device)
    causal_MM = torch.ones(num_new, num_new, dtype=torch.bool, device=device).tril()
    own_KMKM = same_branch_KK[:, None, :, None] & causal_MM[None, :, None, :]
    own = own_KMKM.reshape(1, K, num_new, K * num_new).expand(B, -1, -1, -1)
    return torch.cat([visible_BKS[:, :, None].expand(-1, -1, num_new, -1), own], dim=-1)


def extend_positions(visible_BKS: torch.Tensor, num_new: int) -> torch.Tensor:
    """
    Position ids of `num_new` new tokens per branch: real tokens are counted, padding and other branches are not.

    Returns:
        `torch.LongTensor` [B, K, M].
    """
    return visible_BKS.sum(-1)[..., None] + torch.arange(num_new, device=visible_BKS.device)


def build_attention_mask(visible: torch.Tensor, attn_implementation: str, dtype: torch.dtype) -> torch.Tensor:
    """
    The 4D mask [B, 1, Q, S] in the form that the attention implementation reads.

    `sdpa` takes booleans. `eager` *adds* its mask, so a boolean one would be silently wrong there.

    Args:
        visible (`torch.BoolTensor` [B, Q, S]): what each query sees; every query sees at least itself.
        attn_implementation (`str`): `"sdpa"` or `"eager"`.
        dtype (`torch.dtype`): of the hidden states.

    Raises:
        ValueError: for an implementation that takes no 4D mask (flash attention).
    """
    if attn_implementation == "sdpa":
        return visible[:, None]
    if attn_implementation == "eager":
        blocked = torch.finfo(dtype).min
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, blocked)[:, None]
    raise ValueError(
        f"attn_implementation is {attn_implementation!r}: branches need a 4D attention mask, which 'sdpa' and 'eager' "
        'take; load the model with attn_implementation="sdpa"'
    )


__all__ = ["build_attention_mask", "extend_positions", "extend_visibility"]
