"""Reasoners: small modules that turn what a branch has seen into the embedding of its next thought.

A reasoner reads the hidden states of a [`ThoughtState`] and knows nothing of caches, attention masks or decoding; the
model asks it for one [`Thought`] at a time.

Shapes: B prompts, K branches, F factors, S slots so far (prompt, markers, thoughts), s slots of one pass, D hidden.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init

from .thought_state import Thought, ThoughtState


class FeedbackReasoner(nn.Module):
    """
    The hidden state of one step is the input embedding of the next (LASAR Eq. 3, Coconut): `thought_t = h_{t-1}`.

    `h_0` is the hidden state of the newest token before the thoughts: the marker `<s>` where there are markers, else
    the prompt's last token. The module has no parameters of its own.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()

    def forward(self, state: ThoughtState) -> Thought:
        """
        Args:
            state (`ThoughtState`): with K branches.

        Returns:
            `Thought`: of each branch.
        """
        return Thought(state.hidden_BKD)


class AttentionReasoner(nn.Module):
    """
    The base of reasoners that attend to the hidden states so far, with heads of the full hidden size: linear query,
    key and value with bias; no output projection; scores are divided by `sqrt(D)`; rotary embedding over the full size
    with base 1000, with positions that count real tokens.

    Keys, or what a reasoner makes of them, are computed once for each slot: they go from step to step with the state.
    """

    rope_base = 1000.0

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        if config.hidden_size % 2:
            raise ValueError(
                f"reasoner {config.reasoner_config.reasoner!r} rotates pairs of hidden dimensions, but hidden_size is "
                f"{config.hidden_size}; choose an even one"
            )
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def read(self, hidden_BsD: torch.Tensor, positions_Bs: torch.LongTensor) -> torch.Tensor:
        """What is computed once of the slots of a pass: [B, ..., s]."""
        raise NotImplementedError

    def read_all(self, state: ThoughtState) -> tuple[torch.Tensor, ...]:
        """[`read`] of all passes; of those that are new since the last step."""
        new = slice(len(state.read_parts), None)
        passes = zip(state.hidden_parts[new], state.position_parts[new], strict=True)
        return (*state.read_parts, *(self.read(hidden, positions) for hidden, positions in passes))

    def look(self, state: ThoughtState, scores_BKFS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What F heads find in the slots that their branch sees, [B, K, F, D], and their weights [B, K, F, S]."""
        hidden_BSD = state.hidden_BSD
        scores_BKFS = scores_BKFS.to(_at_least_float32(scores_BKFS))
        # Not -inf: a branch that only fills up a batch sees nothing, and must not become NaN.
        hidden_from = torch.finfo(scores_BKFS.dtype).min
        weights_BKFS = scores_BKFS.masked_fill(~state.visible_BKS[:, :, None], hidden_from).softmax(-1)
        # The weights sum to 1, so the mean of the values is the value of the mean: F rows to project, not S.
        means = weights_BKFS.to(hidden_BSD.dtype).flatten(1, 2) @ hidden_BSD
        return self.v_proj(means).unflatten(1, weights_BKFS.shape[1:3]), weights_BKFS

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of vectors [..., D] at positions [...]: dimension i turns with dimension i + D/2."""
        half = x.shape[-1] // 2
        exponents = torch.arange(half, device=x.device, dtype=_at_least_float32(x)) / half
        angles = positions[..., None] * self.rope_base**-exponents
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.split(half, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class LatentAttentionReasoner(AttentionReasoner):
    """
    LatentRATT: one attention head over all hidden states so far gives the next thought (LatentR³ Eq. 2 and 3).

    `r_i = LatentRATT(H_{i-1})[-1]`: the query is the hidden state of the newest position, keys and values are those of
    all positions that its branch sees, itself and earlier thoughts included. Queries and keys are rotated.
    """

    def read(self, hidden_BsD: torch.Tensor, positions_Bs: torch.LongTensor) -> torch.Tensor:
        """Rotated keys [B, D, s]."""
        return self.rotate(self.k_proj(hidden_BsD), positions_Bs).transpose(1, 2)

    def forward(self, state: ThoughtState) -> Thought:
        """
        Args:
            state (`ThoughtState`): with K branches.

        Returns:
            `Thought`: of each branch, with the weights of its one head.
        """
        newest_BK = state.visible_BKS.sum(-1) - 1  # positions count what a branch sees
        query_BKD = self.rotate(self.q_proj(state.hidden_BKD), newest_BK)
        key_parts = self.read_all(state)
        scores_BKS = query_BKD @ torch.cat(key_parts, dim=-1) * query_BKD.shape[-1] ** -0.5
        found_BKFD, weights_BKFS = self.look(state, scores_BKS[:, :, None])
        return Thought(found_BKFD[:, :, 0], key_parts, weights_BKFS)


class FactorizedReasoner(AttentionReasoner):
    """
    FLR: F factors look at the hidden states, a gate weighs them, and the thought in its slot is replaced by their sum
    (FLR Eq. 2 to 4).

    `A = softmax(W_q Q (RoPE(W_k H))^T / sqrt(D) + M)`, `F = A V`, `z = sum_f alpha_f F_f` with
    `alpha = softmax(MLP(flatten(F)))`. The F queries Q are learned prototypes, the same for all users, and only keys
    are rotated. H holds the prompt and the thought slot itself. The prompt's hidden states, and with them its scores,
    stay the same from one iteration to the next: what changes is the slot's. The slot starts from a learned embedding.

    `loss_log_variances` are the `s` of learned weights for the losses of orthogonality, attention diversity and
    sparsity, in this order (Eq. 8); they are no part of a thought, and a trainer that learns them switches their
    gradients on.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        num_factors, D = config.reasoner_config.num_factors, config.hidden_size
        if num_factors > D:
            raise ValueError(
                f"num_factors is {num_factors}, but hidden_size is {D}, and no more factors than that can be "
                "orthogonal; choose a smaller num_factors (the paper has 2 to 4)"
            )
        self.initial_thought = nn.Parameter(torch.empty(D))
        self.prototypes = nn.Parameter(torch.empty(num_factors, D))
        self.gate = nn.Sequential(nn.Linear(num_factors * D, D), nn.GELU(), nn.Linear(D, num_factors))
        self.loss_log_variances = nn.Parameter(torch.empty(3), requires_grad=False)

    def reset_parameters(self, std: float) -> None:
        """First values of what is no linear layer; prototypes start orthogonal, of the length of D unit normals."""
        init.normal_(self.initial_thought, std=std)
        init.orthogonal_(self.prototypes, gain=self.prototypes.shape[-1] ** 0.5)
        init.zeros_(self.loss_log_variances)

    def read(self, hidden_BsD: torch.Tensor, positions_Bs: torch.LongTensor) -> torch.Tensor:
        """Scores [B, F, s] of the slots: the queries are always the same."""
        query_FD = self.q_proj(self.prototypes) * hidden_BsD.shape[-1] ** -0.5
        return query_FD @ self.rotate(self.k_proj(hidden_BsD), positions_Bs).transpose(1, 2)

    def forward(self, state: ThoughtState) -> Thought:
        """
        Args:
            state (`ThoughtState`): with K branches, whose newest token is the content of the thought slot.

        Returns:
            `Thought`: what replaces it, with attentions, factors and gates.
        """
        score_parts = self.read_all(state)
        scores_BKFS = torch.cat(score_parts, dim=-1)[:, None].expand(-1, state.visible_BKS.shape[1], -1, -1)
        factors_BKFD, weights_BKFS = self.look(state, scores_BKFS)
        gate_logits_BKF = self.gate(factors_BKFD.flatten(-2))
        gates_BKF = gate_logits_BKF.softmax(-1, dtype=_at_least_float32(gate_logits_BKF))
        thought_BKD = (gates_BKF.to(factors_BKFD.dtype)[:, :, None] @ factors_BKFD)[:, :, 0]
        return Thought(thought_BKD, score_parts, weights_BKFS, factors_BKFD, gates_BKF)


def _at_least_float32(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


REASONER_CLASSES = {
    "feedback": FeedbackReasoner,
    "latent_attention": LatentAttentionReasoner,
    "factorized_attention": FactorizedReasoner,
}


def build_reasoner(config: PreTrainedConfig) -> nn.Module:
    """The reasoner that a model's configuration asks for."""
    return REASONER_CLASSES[config.reasoner_config.reasoner](config)


__all__ = ["FactorizedReasoner", "FeedbackReasoner", "LatentAttentionReasoner", "build_reasoner"]
