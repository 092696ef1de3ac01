"""LARES: an item-ID transformer that refines the states of all positions with a recurrent block.

Shapes: B rows, L positions, D hidden, G targets, K steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_lares import CAUSAL_BACKBONES, LaresConfig
from .frequency_layers import check_one_sequence_per_row, to_window, window_mask
from .item_scores import exact_scores
from .item_table import ItemTable
from .layer_stacks import build_stack
from .recommending import evaluating
from .recurrent_depth import draw_initial_state
from .rollouts import RolloutOutput, roll_out
from .safe_weights import SafeWeightsMixin
from .sequence_encoders import SequenceEmbeddings, last_index, sequence_mask
from .sequential_recommender import SequentialOutput, SequentialRecommender, divisor, targets_of
from .text_fusion import TextFusion


class LaresModel(SafeWeightsMixin, PreTrainedModel):
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
        if config.backbone == "tedrec":
            self.fusion = TextFusion(config)
        self.pre_block = build_stack(config, config.num_pre_layers)
        self.core_block = build_stack(config, config.num_core_layers)
        self.aggregation = Aggregation(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.items

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.items = value

    @property
    def whole_window(self) -> bool:
        """Whether the layers mix all slots of a window, so that a row gives one state and not one per prefix."""
        return self.config.backbone not in CAUSAL_BACKBONES

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        num_steps: int | None = None,
        initial_state: torch.Tensor | None = None,
        seed: int = 0,
        index: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """
        Args:
            input_ids (`torch.LongTensor` [B, L]): item rows + 1, oldest first, padded with 0 on the right.
            position_ids (`torch.LongTensor` [B, L], *optional*): for rows that hold several sequences; 0 starts one.
            num_steps (`int`, *optional*): reasoning steps K; `config.mean_steps` by default.
            initial_state (`torch.Tensor` [B, L, D], *optional*): T_0; [B, max_history, D] where the backbone looks at
                the whole window. Where it is not given, it is drawn: in training anew for every position of every row;
                in evaluation once for `seed` and a position in the sequence, so that a row's states depend neither on
                its batch nor on the number of the call.
            seed (`int`, *optional*, defaults to 0): of T_0 in evaluation.
            index (`torch.LongTensor` [G], *optional*): which of the B * L positions are wanted, where not all are.

        Returns:
            `list` of K `torch.Tensor` [B, L, D], or [G, D] with an index: the states after every step; of a
            whole-window backbone that of the row's last item at every position.
        """
        hidden_BLD, mask = self.prepare(input_ids, position_ids)
        if initial_state is None:
            initial_state = self.initial_state(input_ids, position_ids, seed)
        if index is None or self.whole_window:
            states = self.reason(hidden_BLD, initial_state, mask, num_steps)
            states = [self.read_out(state, input_ids.shape[1]) for state in states]
            return states if index is None else [state.flatten(0, 1)[index] for state in states]
        *states, last = self.reason(hidden_BLD, initial_state, mask, num_steps, index)
        return [*(state.flatten(0, 1)[index] for state in states), last]

    def prepare(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """H [B, L, D], which no step changes, and who may attend to whom [B, 1, L, L]; of a window L is its slots."""
        if self.whole_window:
            check_one_sequence_per_row(self, position_ids)
            input_ids = to_window(input_ids, self.config.max_history)
        mask = window_mask(input_ids) if self.whole_window else sequence_mask(position_ids)
        return self.pre_block(self.embed(input_ids, position_ids), mask), mask

    def reason(
        self,
        hidden_BLD: torch.Tensor,
        state: torch.Tensor,
        mask: torch.Tensor | None = None,
        num_steps: int | None = None,
        last_index: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """The states [B, L, D] after every step from T_0 [B, L, D] on; with `last_index`, after the last step only
        those [G, D] of the positions that it names."""
        num_steps = self.config.mean_steps if num_steps is None else num_steps
        if num_steps < 1:
            raise ValueError(f"LaresModel: num_steps is {num_steps}; pass a positive number of reasoning steps")
        states, state = [], state.to(hidden_BLD.dtype)
        for step in range(num_steps):
            index = last_index if step == num_steps - 1 else None
            state = self.core_block(self.norm(self.aggregation(state, hidden_BLD)), mask, index)
            states.append(state)
        return states

    def read_out(self, state: torch.Tensor, length: int) -> torch.Tensor:
        """The states [B, L, D] of L positions: of a window [B, W, D] that of its newest item, for all of them."""
        return state[:, -1:].expand(-1, length, -1) if self.whole_window else state

    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """E + P [B, L, D]; of TedRec with the items' texts."""
        if self.config.backbone != "tedrec":
            return self.embeddings(input_ids, position_ids)
        return self.embeddings.embed(self.fusion(input_ids, self.embeddings.items.weight))

    def initial_state(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, seed: int = 0
    ) -> torch.Tensor:
        """T_0 [B, L, D] as [`forward`] draws it; of a window L is its slots."""
        config = self.config
        num_rows, length = len(input_ids), config.max_history if self.whole_window else input_ids.shape[1]
        how = {"std": config.initial_std, "scale": config.initial_scale}
        if self.training:
            return draw_initial_state(num_rows, length, config.hidden_size, **how, device=input_ids.device)
        generator = torch.Generator().manual_seed(seed)
        state_LD = draw_initial_state(config.max_history, config.hidden_size, **how, generator=generator)
        state_LD = state_LD.to(input_ids.device)
        return state_LD[:length].expand(num_rows, -1, -1) if position_ids is None else state_LD[position_ids]


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
        return not self.model.whole_window

    @property
    def scores_cold_items(self) -> bool:
        return self.config.backbone == "tedrec"

    @property
    def item_embeddings(self) -> torch.Tensor:
        """Vectors [I, D] that items are scored by; of TedRec with their texts."""
        return self._item_vectors(slice(None))

    def _item_vectors(self, items: slice) -> torch.Tensor:
        if self.config.backbone != "tedrec":
            return super().item_embeddings[items]
        return self.model.fusion.item_vectors(self.get_input_embeddings().weight, items)

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Scores [B, block] of a block of item rows for states [B, D]."""
        return exact_scores(states, self._item_vectors(items))

    def resize_item_embeddings(self, items: ItemTable, texts: torch.Tensor | None = None) -> None:
        """As [`SequentialRecommender`]; of TedRec with the text embeddings [I, E] of the whole new catalog."""
        if (texts is not None) != (self.config.backbone == "tedrec"):
            raise ValueError(
                f"resize_item_embeddings: texts are {'missing' if texts is None else 'given'}, but the backbone is "
                f"{self.config.backbone!r}; text embeddings are TedRec's"
            )
        super().resize_item_embeddings(items)
        if texts is not None:
            self.model.fusion.set_texts(texts, self.items.is_cold)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.set_input_embeddings(value)

    def encode(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **encoder_kwargs: Any
    ) -> torch.Tensor:
        """States [B, L, D] after the last step; `num_steps`, `initial_state` and `seed` as in [`LaresModel`]."""
        return self.model(input_ids, position_ids, **encoder_kwargs)[-1]

    def states_at(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None, index: torch.Tensor, **encoder_kwargs: Any
    ) -> torch.Tensor:
        """As [`SequentialRecommender.states_at`]; the last layer of the last step goes on with these positions."""
        return self.model(input_ids, position_ids, index=index, **encoder_kwargs)[-1]

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
        with_ranks: bool = False,
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
                that of [`roll_out`], and so are `judged_items`, `policy` and `with_ranks`.
        """
        if rollout_states is not None:
            rollouts = rollout_states, num_steps, judged_items, policy, with_ranks
            return roll_out(self, input_ids, position_ids, labels, *rollouts)
        if labels is None:
            states = self.model(input_ids, position_ids, num_steps, initial_state, seed, last_index(input_ids))
            return SequentialOutput(logits=self.score(states[-1]))
        index, targets = targets_of(labels)
        states = self.model(input_ids, position_ids, num_steps, initial_state, seed, index)
        output = SequentialOutput(
            loss=self.item_loss(states[-1], targets, negative_ids) / divisor(targets, num_items_in_batch),
            user_states=states[-1],
        )
        if intermediate_step is not None:
            if not 1 <= intermediate_step <= len(states):
                raise ValueError(
                    f"{type(self).__name__}: intermediate_step is {intermediate_step}; the pass has the steps 1 to "
                    f"{len(states)}"
                )
            output.step_states = states[intermediate_step - 1]
        if view_input_ids is not None:
            steps = num_steps if view_num_steps is None else view_num_steps
            views = self.model(view_input_ids, view_position_ids, steps, view_initial_state, seed, view_index)
            output.view_states = views[-1]
        return output

    @torch.inference_mode()
    def step_states(self, histories: list[list[str]], num_steps: int, seed: int = 0) -> torch.Tensor:
        """The user states after every step, [K, B, D]: what the model would recommend by if it stopped there."""
        input_ids = self.encode_histories(histories)
        with evaluating(self):
            return torch.stack(self.model(input_ids, num_steps=num_steps, seed=seed, index=last_index(input_ids)))


__all__ = ["Aggregation", "LaresForSequentialRecommendation", "LaresModel"]
