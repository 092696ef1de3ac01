"""LARES: an item-ID transformer that refines the states of all positions with a recurrent block.

Shapes: B rows, L positions, D hidden, G targets, K steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_lares import LaresConfig
from .item_table import ItemTable
from .layer_stacks import build_stack
from .recurrent_depth import draw_initial_state
from .rollouts import RolloutOutput, roll_out
from .sequence_encoders import SequenceEmbeddings, sequence_mask
from .sequential_recommender import SequentialOutput, SequentialRecommender, _at_labels, _count, _last_states


class LaresModel(PreTrainedModel):
    """
    The encoder: `H = A(E + P)`, then `T_i = C(LN(f(T_{i-1}, H)))` for as many steps as are wanted (Eq. 5).

    Args:
        config ([`LaresConfig`]): sizes, layers and depth.
    """

    config_class = LaresConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"

    def __init__(self, config: LaresConfig):
        super().__init__(config)
        self.embeddings = SequenceEmbeddings(config)
        self.pre_block = build_stack(config, config.num_pre_layers)
        self.core_block = build_stack(config, config.num_core_layers)
        self.aggregation = Aggregation(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.items

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.items = value

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        num_steps: int | None = None,
        initial_state: torch.Tensor | None = None,
        seed: int = 0,
    ) -> list[torch.Tensor]:
        """
        Args:
            input_ids (`torch.LongTensor` [B, L]): item rows + 1, oldest first, padded with 0 on the right.
            position_ids (`torch.LongTensor` [B, L], *optional*): for rows that hold several sequences; 0 starts one.
            num_steps (`int`, *optional*): reasoning steps K; `config.mean_steps` by default.
            initial_state (`torch.Tensor` [B, L, D], *optional*): T_0. Where it is not given, it is drawn: in training
                anew for every position of every row; in evaluation once for `seed` and a position in the sequence, so
                that a row's states depend neither on its batch nor on the number of the call.
            seed (`int`, *optional*, defaults to 0): of T_0 in evaluation.

        Returns:
            `list` of K `torch.Tensor` [B, L, D]: the states after every step.
        """
        hidden_BLD, mask = self.prepare(input_ids, position_ids)
        if initial_state is None:
            initial_state = self.initial_state(input_ids, position_ids, seed)
        return self.reason(hidden_BLD, initial_state, mask, num_steps)

    def prepare(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """H [B, L, D], which no step changes, and who may attend to whom [B, 1, L, L]."""
        mask = sequence_mask(position_ids)
        return self.pre_block(self.embeddings(input_ids, position_ids), mask), mask

    def reason(
        self,
        hidden_BLD: torch.Tensor,
        state: torch.Tensor,
        mask: torch.Tensor | None = None,
        num_steps: int | None = None,
    ) -> list[torch.Tensor]:
        """The states [B, L, D] after every step from T_0 [B, L, D] on."""
        num_steps = self.config.mean_steps if num_steps is None else num_steps
        if num_steps < 1:
            raise ValueError(f"LaresModel: num_steps is {num_steps}; pass a positive number of reasoning steps")
        states, state = [], state.to(hidden_BLD.dtype)
        for _ in range(num_steps):
            state = self.core_block(self.norm(self.aggregation(state, hidden_BLD)), mask)
            states.append(state)
        return states

    def initial_state(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, seed: int = 0
    ) -> torch.Tensor:
        """T_0 [B, L, D] as [`forward`] draws it."""
        config = self.config
        how = {"std": config.initial_std, "scale": config.initial_scale}
        if self.training:
            return draw_initial_state(*input_ids.shape, config.hidden_size, **how, device=input_ids.device)
        generator = torch.Generator().manual_seed(seed)
        state_LD = draw_initial_state(config.max_history, config.hidden_size, **how, generator=generator)
        state_LD = state_LD.to(input_ids.device)
        if position_ids is None:
            return state_LD[: input_ids.shape[1]].expand(len(input_ids), -1, -1)
        return state_LD[position_ids]


class Aggregation(nn.Module):
    """
    f of Eq. 5: joins a state T and the pre-block's output H.

    Args:
        config ([`LaresConfig`]): `"add"` gives (T + H) / 2, `"concat"` W [T; H], `"linear"` a * T + b * H with learned
            vectors a and b that start at 1/2.
    """

    def __init__(self, config: LaresConfig):
        super().__init__()
        self.kind = config.aggregation
        if self.kind == "concat":
            self.projection = nn.Linear(2 * config.hidden_size, config.hidden_size)
        elif self.kind == "linear":
            self.state_weight = nn.Parameter(torch.full((config.hidden_size,), 0.5))
            self.input_weight = nn.Parameter(torch.full((config.hidden_size,), 0.5))

    def forward(self, state_BLD: torch.Tensor, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """[B, L, D] and [B, L, D] → [B, L, D]."""
        if self.kind == "add":
            return (state_BLD + hidden_BLD) / 2
        if self.kind == "concat":
            return self.projection(torch.cat([state_BLD, hidden_BLD], dim=-1))
        return self.state_weight * state_BLD + self.input_weight * hidden_BLD


class LaresForSequentialRecommendation(SequentialRecommender):
    """
    LARES with the item embeddings as its output layer: it recommends by the state of the last item after the last
    step.

    Args:
        config ([`LaresConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.

    Example:

    ```python
    >>> import torch
    >>> from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation

    >>> items = ItemTable(["a", "b", "c"])
    >>> model = LaresForSequentialRecommendation(LaresConfig(num_items=3, mean_steps=2), items=items)
    >>> [[item["item_id"] for item in user] for user in model.recommend([["a", "b"]], k=1, allowed_items=["c"])]
    [['c']]
    >>> model.step_states([["a", "b"]], num_steps=5).shape
    torch.Size([5, 1, 64])

    ```
    """

    config_class = LaresConfig

    def __init__(self, config: LaresConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.model = LaresModel(config)
        self.post_init()

    @property
    def causal(self) -> bool:
        return self.config.backbone == "sasrec"

    @property
    def scores_cold_items(self) -> bool:
        return self.config.backbone == "tedrec"

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.set_input_embeddings(value)

    def encode(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **encoder_kwargs: Any
    ) -> torch.Tensor:
        """States [B, L, D] after the last step; `num_steps`, `initial_state` and `seed` as in [`LaresModel`]."""
        return self.model(input_ids, position_ids, **encoder_kwargs)[-1]

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
        num_steps: int | None = None,
        intermediate_step: int | None = None,
        view_num_steps: int | None = None,
        initial_state: torch.Tensor | None = None,
        view_initial_state: torch.Tensor | None = None,
        seed: int = 0,
        rollout_states: torch.Tensor | None = None,
        judged_items: torch.Tensor | None = None,
        policy: str = "target",
    ) -> SequentialOutput | RolloutOutput:
        """
        As [`SequentialRecommender`], and:

        Args:
            num_steps (`int`, *optional*): reasoning steps; `config.mean_steps` by default.
            intermediate_step (`int`, *optional*): a step, counted from 1, whose states at the labels come back as
                `step_states`.
            view_num_steps (`int`, *optional*): reasoning steps of the views; `num_steps` by default.
            initial_state (`torch.Tensor` [B, L, D], *optional*): T_0.
            view_initial_state (`torch.Tensor` [V, Lv, D], *optional*): T_0 of the views.
            seed (`int`, *optional*, defaults to 0): of T_0 in evaluation.
            rollout_states (`torch.Tensor` [B, G, L, D], *optional*): T_0 of G rollouts of every row; the output is
                that of [`roll_out`], and so are `judged_items` and `policy`.
        """
        if rollout_states is not None:
            return roll_out(self, input_ids, position_ids, labels, rollout_states, num_steps, judged_items, policy)
        states = self.model(input_ids, position_ids, num_steps, initial_state, seed)
        if labels is None:
            return SequentialOutput(logits=self.score(_last_states(states[-1], input_ids)))
        user_states, targets = _at_labels(states[-1], labels)
        output = SequentialOutput(
            loss=self.item_loss(user_states, targets, negative_ids) / _count(targets, num_items_in_batch),
            user_states=user_states,
        )
        if intermediate_step is not None:
            output.step_states, _ = _at_labels(states[intermediate_step - 1], labels)
        if view_input_ids is not None:
            steps = num_steps if view_num_steps is None else view_num_steps
            views = self.model(view_input_ids, view_position_ids, steps, view_initial_state, seed)
            output.view_states = views[-1].flatten(0, 1)[view_index]
        return output

    @torch.inference_mode()
    def step_states(self, histories: list[list[str]], num_steps: int, seed: int = 0) -> torch.Tensor:
        """The user states after every step, [K, B, D]: what the model would recommend by if it stopped there."""
        input_ids = self.encode_histories(histories)
        was_training = self.training
        self.eval()
        states = self.model(input_ids, num_steps=num_steps, seed=seed)
        self.train(was_training)
        return torch.stack([_last_states(state, input_ids) for state in states])


__all__ = ["Aggregation", "LaresForSequentialRecommendation", "LaresModel"]
