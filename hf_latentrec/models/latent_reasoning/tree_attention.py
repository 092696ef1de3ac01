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


def causal_visibility(
    num_tokens: int, num_forks: int = 0, fork_length: int = 0, device: torch.device | None = None
) -> torch.Tensor:
    """
    What the new tokens of one branch see of each other: those before them; where the branch forks at its end, not
    those of the other forks.

    Args:
        num_tokens (`int`): tokens that all forks continue.
        num_forks (`int`, *optional*, defaults to 0): forks.
        fork_length (`int`, *optional*, defaults to 0): tokens of each fork.
        device (`torch.device`, *optional*): of the result.

    Returns:
        `torch.BoolTensor` [M, M] with `M = num_tokens + num_forks * fork_length`.

    Example:
        >>> causal_visibility(2, num_forks=2, fork_length=1).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    fork = torch.arange(num_forks, device=device).repeat_interleave(fork_length)
    fork = torch.nn.functional.pad(fork, (num_tokens, 0), value=-1)
    causal = torch.ones(len(fork), len(fork), dtype=torch.bool, device=device).tril()
    return causal & ((fork == -1) | (fork[:, None] == fork))


def prompt_visibility(real_BL: torch.Tensor, num_new: int) -> torch.Tensor:
    """
    What each token of the prompt sees where `num_new` tokens of branches follow it in the same pass.

    Args:
        real_BL (`torch.BoolTensor`): False for padding, which sees nothing but itself.
        num_new (`int`): tokens of all branches.

    Returns:
        `torch.BoolTensor` [B, L, L + num_new].
    """
    L = real_BL.shape[1]
    causal_LL = torch.ones(L, L, dtype=torch.bool, device=real_BL.device).tril()
    itself_LL = torch.eye(L, dtype=torch.bool, device=real_BL.device)
    return torch.nn.functional.pad(causal_LL & real_BL[:, None] | itself_LL, (0, num_new))


def hide_first(own_MM: torch.Tensor, hidden_BK: torch.Tensor) -> torch.Tensor:
    """
    What new tokens see of each other where the first one only fills up some branches: there nobody but itself sees it.

    Args:
        own_MM (`torch.BoolTensor`): see [`causal_visibility`].
        hidden_BK (`torch.BoolTensor`): branches whose first new token is not real.

    Returns:
        `torch.BoolTensor` [B, K, M, M].
    """
    M = len(own_MM)
    token_M = torch.arange(M, device=own_MM.device)
    looks_at_first_MM = (token_M[:, None] > 0) & (token_M == 0)
    return own_MM & ~(hidden_BK[..., None, None] & looks_at_first_MM)


def extend_visibility(visible_BKS: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """
    What each new token sees when every branch grows by M tokens, laid out branch by branch.

    Args:
        visible_BKS (`torch.BoolTensor` [B, K, S]): what each branch sees.
        own (`torch.BoolTensor` [M, M] or [B, K, M, M]): what the new tokens of a branch see of each other, see
            [`causal_visibility`].

    Returns:
        `torch.BoolTensor` [B, K, M, S + K * M]: a token sees its branch's slots and what `own` says. The last
        token's row is what the branch sees afterwards.
    """
    B, K, _ = visible_BKS.shape
    M = own.shape[-1]
    same_branch_KK = torch.eye(K, dtype=torch.bool, device=visible_BKS.device)
    own = same_branch_KK[:, None, :, None] & own.expand(-1 if own.dim() == 4 else 1, K, M, M)[..., None, :]
    own = own.flatten(-2).expand(B, -1, -1, -1)
    return torch.cat([visible_BKS[:, :, None].expand(-1, -1, M, -1), own], dim=-1)


def extend_positions(visible_BKS: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """
    Position ids of M new tokens per branch: what a token sees before itself is counted, padding and other branches are
    not.

    Returns:
        `torch.LongTensor` [B, K, M].
    """
    return visible_BKS.sum(-1)[..., None] + own.sum(-1) - 1


def build_attention_mask(visible: torch.Tensor, attn_implementation: str, dtype: torch.dtype) -> torch.Tensor:
    """
    The 4D mask [B, 1, Q, S] that is added to the scores of attention.

    `eager` *adds* its mask, so a boolean one would be silently wrong there. `sdpa` takes booleans too, but would turn
    them into numbers again in every layer.

    Args:
        visible (`torch.BoolTensor` [B, Q, S]): what each query sees; every query sees at least itself.
        attn_implementation (`str`): `"sdpa"` or `"eager"`.
        dtype (`torch.dtype`): of the hidden states.

    Raises:
        ValueError: for an implementation that takes no 4D mask (flash attention).
    """
    if attn_implementation in ("sdpa", "eager"):
        blocked = torch.finfo(dtype).min
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, blocked)[:, None]
    raise ValueError(
        f"attn_implementation is {attn_implementation!r}: branches need a 4D attention mask, which 'sdpa' and 'eager' "
        'take; load the model with attn_implementation="sdpa"'
    )


__all__ = [
    "build_attention_mask",
    "causal_visibility",
    "extend_positions",
    "extend_visibility",
    "hide_first",
    "prompt_visibility",
]
