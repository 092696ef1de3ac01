"""ReaRec: thoughts that follow a history, one after the other (Tang et al. 2025)."""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..lares.configuration_sequential import SequentialConfig
from ..lares.item_scores import CHUNK_SCORES
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import LayerStack, TransformerLayer, sequence_mask
from ..lares.sequential_recommender import SequentialOutput, divisor, targets_of
from .base import EmbeddingRecommender


# B rows, L positions, D hidden, K thoughts, G labels, I items

VARIANTS = ("erl", "prl")
Memory = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of every layer


@strict
class ReaRecConfig(SequentialConfig):
    """
    Settings of [`ReaRecForSequentialRecommendation`], beyond those of [`SequentialConfig`]; defaults as in the
    authors' code.

    Args:
        variant (`str`, *optional*, defaults to `"prl"`): `"erl"`, ensemble reasoning learning, or `"prl"`, progressive
            reasoning learning.
        num_thoughts (`int`, *optional*, defaults to 2): K.
        temperature (`float`, *optional*, defaults to 0.07): tau; scores are divided by it.
        diversity_weight (`float`, *optional*, defaults to 0.05): of ERL's divergence between steps, lambda.
        progressive_weight (`float`, *optional*, defaults to 1.0): of PRL's losses of the earlier steps.
        temperature_scale (`float`, *optional*, defaults to 5.0): alpha of PRL; step k has the temperature
            `tau * alpha ** (K - k)`.
        contrastive_weight (`float`, *optional*, defaults to 1.0): of PRL's contrastive loss.
        noise_std (`float`, *optional*, defaults to 0.01): of the noise on its thoughts.
    """

    model_type = "rearec"

    variant: str = "prl"
    num_thoughts: int = 2
    temperature: float | int = 0.07
    diversity_weight: float | int = 0.05
    progressive_weight: float | int = 1.0
    temperature_scale: float | int = 5.0
    contrastive_weight: float | int = 1.0
    noise_std: float | int = 0.01

    def _check(self) -> None:
        super()._check()
        if self.variant not in VARIANTS:
            raise ValueError(f"ReaRecConfig: variant is {self.variant!r}; choose one of {VARIANTS}")
        for field in ("num_thoughts", "temperature", "temperature_scale"):
            if getattr(self, field) <= 0:
                raise ValueError(f"ReaRecConfig: {field} is {getattr(self, field)}; pass a positive number")


class ReaRecForSequentialRecommendation(EmbeddingRecommender):
    r"""
    SASRec that goes on after the history: the newest state, with a reasoning position embedding, is the next input, K
    times (Tang et al. 2025, section 3.1). This happens behind every position of a row at once; a thought sees the
    history up to its position and the thoughts before it, so the history is encoded once.

    - `variant="erl"` recommends by the mean of the K + 1 states and pushes their distributions apart, loss
      $-\lambda \,\mathrm{mean}_{i \ne j} KL(p_i \| p_j)$ (as in the authors' code the gradient is that of $p_i$).
    - `variant="prl"` recommends by the last state; every earlier one learns the same item, at a temperature that falls
      from step to step; and each thought must be told from the thoughts of other rows by its disturbed twin.
      PRL++ is this with DuoRec's views: `SequentialTrainingConfig(contrastive="duorec")`.

    Args:
        config ([`ReaRecConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> from hf_latentrec import ItemTable, ReaRecConfig, ReaRecForSequentialRecommendation

    >>> model = ReaRecForSequentialRecommendation(ReaRecConfig(num_items=3), items=ItemTable(["a", "b", "c"]))
    >>> len(model.recommend([["a", "b"]], k=2)[0])
    2

    ```
    """

    config_class = ReaRecConfig

    def __init__(self, config: ReaRecConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.layers = LayerStack([TransformerLayer(config) for _ in range(config.num_hidden_layers)])
        self.thought_positions = nn.Embedding(config.num_thoughts, config.hidden_size)
        self.post_init()

    # Reasoning

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """[B, L] → states [B, L, D] after thinking; see [`SequentialRecommender`]."""
        return self.combine(self.think(*self.read(input_ids, position_ids)))

    def combine(self, states: list[torch.Tensor]) -> torch.Tensor:
        """What is recommended by, of the states after 0..K thoughts: their mean (ERL) or the last one (PRL)."""
        return torch.stack(states).mean(0) if self.config.variant == "erl" else states[-1]

    def read(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Memory, torch.Tensor]:
        """The history: states [B, L, D], every layer's keys and values, and who sees whom [B or 1, 1, L, L]."""
        mask = sequence_mask(position_ids)
        if mask is None:
            length = input_ids.shape[1]
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=input_ids.device).tril_()
        hidden = self.embeddings(input_ids, position_ids)
        nothing = hidden.new_empty(
            len(hidden), self.config.num_attention_heads, 0, hidden.shape[-1] // self.config.num_attention_heads
        )
        states, memory = self._pass(hidden, [(nothing, nothing)] * len(self.layers.layers), mask)
        return states, memory, mask

    def think(
        self, state: torch.Tensor, memory: Memory, mask: torch.Tensor, disturbed: list[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """
        Thinks K times behind every position.

        Args:
            state (`torch.Tensor` [B, L, D]), memory, mask: what [`read`] gives.
            disturbed (`list[torch.Tensor]`, *optional*): the states of an undisturbed run; every thought then starts
                from the state there, with noise, and not from its own predecessor.

        Returns:
            `list` of K + 1 `torch.Tensor` [B, L, D]: the states after 0..K thoughts.
        """
        itself = torch.eye(mask.shape[2], dtype=torch.bool, device=mask.device).expand_as(mask)
        states, seen = [state], mask
        for step, position_D in enumerate(self.thought_positions.weight):
            thought = (states if disturbed is None else disturbed)[step] + position_D
            if disturbed is not None:
                thought = thought + self.config.noise_std * torch.randn_like(thought)
            seen = torch.cat([seen, itself], dim=-1)
            hidden, memory = self._pass(self.embeddings.dropout(self.embeddings.norm(thought)), memory, seen)
            states.append(hidden)
        return states

    def _pass(self, hidden: torch.Tensor, memory: Memory, mask: torch.Tensor) -> tuple[torch.Tensor, Memory]:
        grown = []
        for layer, past in zip(self.layers.layers, memory, strict=True):
            query, *new = layer.project(hidden)
            key, value = (torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
            grown.append((key, value))
            hidden = layer.feed_forward(layer.attend(hidden, query, key, value, mask))
        return hidden, grown

    # Scores and losses

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Scores [B, block] of a block of item rows for states [B, D]."""
        return super().score(states / self.config.temperature, items)

    def item_loss(
        self, states: torch.Tensor, targets: torch.Tensor, negative_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum of the objective over states [G, D] and their next items [G] (row + 1)."""
        return super().item_loss(states / self.config.temperature, targets, negative_ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        negative_ids: torch.Tensor | None = None,
        view_input_ids: torch.Tensor | None = None,
        view_position_ids: torch.Tensor | None = None,
        view_index: torch.Tensor | None = None,
    ) -> SequentialOutput:
        """
        As [`SequentialRecommender`], with the losses of ERL or PRL as `auxiliary_losses`. PRL's disturbed thoughts and
        the thoughts themselves come back as `contrasts`, divided by the temperature: the trainer compares them over
        the batches of all processes.
        """
        if labels is None:
            return super().forward(input_ids, position_ids)
        index, targets = targets_of(labels)
        count = divisor(targets, num_items_in_batch)
        history = self.read(input_ids, position_ids)
        states = self.think(*history)
        steps = [state.flatten(0, 1)[index] for state in states]
        contrasts = None
        if self.config.variant == "erl":
            divergence = step_divergence(steps, self.item_embeddings / self.config.temperature)
            auxiliary = {"diversity": -self.config.diversity_weight * divergence / count}
        else:
            progressive = self.config.progressive_weight * self.progressive_loss(steps, targets, negative_ids)
            auxiliary = {"progressive": progressive / count}
            twins = self.think(*history, disturbed=states) if self.training else states
            contrasts = [
                (twin.flatten(0, 1)[index] / self.config.temperature, thought)
                for twin, thought in zip(twins[1:], steps[1:], strict=True)
            ]
        user_states = self.combine(steps)
        output = SequentialOutput(
            loss=self.item_loss(user_states, targets, negative_ids) / count,
            user_states=user_states,
            auxiliary_losses=auxiliary,
            contrasts=contrasts,
        )
        if view_input_ids is not None:
            output.view_states = self.states_at(view_input_ids, view_position_ids, view_index)
        return output

    def progressive_loss(
        self, steps: list[torch.Tensor], targets: torch.Tensor, negative_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """PRL: the objective of the earlier states, each at its temperature; mean over steps, sum over G."""
        last = len(steps) - 1
        losses = [
            self.item_loss(state / self.config.temperature_scale ** (last - step), targets, negative_ids)
            for step, state in enumerate(steps[:-1])
        ]
        return torch.stack(losses).mean()


def step_divergence(steps: list[torch.Tensor], item_embeddings: torch.Tensor) -> torch.Tensor:
    r"""
    How far the distributions of the steps over the catalog lie apart (Tang et al. 2025, ERL):
    $\sum_g \mathrm{mean}_{i \ne j} KL(p_{g,i} \| p_{g,j})$, with a gradient for $p_i$ alone.

    Args:
        steps (`list` of T `torch.Tensor` [G, D]): states.
        item_embeddings (`torch.Tensor` [I, D]): E; p is the softmax of `state @ E.T`.

    Returns:
        `torch.Tensor`: a scalar. The scores [G, T, I] are never held all at once, and made again for the gradient.
    """
    states_GTD = torch.stack(steps, dim=1)
    size = max(1, CHUNK_SCORES // (len(steps) * len(item_embeddings)))
    parts = [
        checkpoint(_divergence, part, item_embeddings, use_reentrant=False) for part in states_GTD.float().split(size)
    ]
    return torch.stack(parts).sum()


def _divergence(states_CTD: torch.Tensor, item_embeddings: torch.Tensor) -> torch.Tensor:
    log_probs_CTI = (states_CTD @ item_embeddings.float().T).log_softmax(-1)
    probs_CTI = log_probs_CTI.exp()
    negative_entropy_CT1 = (probs_CTI * log_probs_CTI).sum(-1, keepdim=True)
    divergence_CTT = negative_entropy_CT1 - probs_CTI @ log_probs_CTI.detach().transpose(1, 2)
    num_steps = states_CTD.shape[1]
    different = ~torch.eye(num_steps, dtype=torch.bool, device=states_CTD.device)
    return divergence_CTT.masked_fill(~different, 0.0).sum() / different.sum()


__all__ = ["ReaRecConfig", "ReaRecForSequentialRecommendation", "step_divergence"]
