"""The base of every item-ID recommender: a loss, scores of the catalog, recommendations, and a catalog that may grow.

Shapes: B rows, L positions, D hidden, I items, G targets, V rows of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, cached_file

from .configuration_sequential import SequentialConfig
from .item_scores import item_cross_entropy, ranks_of, top_items
from .item_table import ITEMS_FILE, ItemTable
from .sequence_encoders import last_positions


IGNORE_INDEX = -100


@dataclass
class SequentialOutput(ModelOutput):
    """
    Output of an item-ID recommender.

    Args:
        loss (`torch.Tensor`): sum over the labels, divided by `num_items_in_batch`; with labels.
        logits (`torch.Tensor` [B, I]): scores of all items after the last one of each row; without labels.
        user_states (`torch.Tensor` [G, D]): states at the labels, row by row; with labels.
        view_states (`torch.Tensor` [selected, D]): states of the views, in the order of `view_index`.
        step_states (`torch.Tensor` [G, D]): states at the labels after an intermediate step (LARES).
        auxiliary_losses (`dict[str, torch.Tensor]`): further terms that a model has, weighted; with labels.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    user_states: torch.Tensor | None = None
    view_states: torch.Tensor | None = None
    step_states: torch.Tensor | None = None
    auxiliary_losses: dict[str, torch.Tensor] | None = None


class SequentialRecommender(PreTrainedModel):
    """
    An item-ID recommender. A subclass writes [`encode`] and holds its item embeddings where `get_input_embeddings`
    finds them; row 0 of these is padding, and the item of table row `r` has row `r + 1`.

    Args:
        config (`SequentialConfig`): of the subclass's class.
        items (`ItemTable`, *optional*): the catalog. It is saved and loaded with the model; without it the model
            trains and scores, but recommends nothing.
    """

    config_class = SequentialConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    causal = True
    """Whether a position sees only what is before it, so that one pass gives the states of all prefixes."""
    scores_cold_items = False
    """Whether an item that never occurred in training has a meaningful score."""

    def __init__(self, config: SequentialConfig, items: ItemTable | None = None):
        super().__init__(config)
        if items is not None and len(items) != config.num_items:
            raise ValueError(
                f"{type(self).__name__}: config.num_items is {config.num_items}, but the table has {len(items)} "
                "items; pass num_items=len(items)"
            )
        self.items = items

    # What a subclass writes

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **encoder_kwargs):
        """
        Args:
            input_ids (`torch.LongTensor` [B, L]): item rows + 1, oldest first, padded with 0 on the right.
            position_ids (`torch.LongTensor` [B, L], *optional*): for rows that hold several sequences; 0 starts one.
            encoder_kwargs: of the model.

        Returns:
            `torch.Tensor` [B, L, D]: a state for every position; of a model that is not causal, only the state of the
            last item of a row counts.
        """
        raise NotImplementedError

    def states_at(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor | None, index: torch.Tensor, **encoder_kwargs: Any
    ) -> torch.Tensor:
        """States [G, D] of the positions that an index [G] into all B * L names; a model may save itself the rest."""
        return self.encode(input_ids, position_ids, **encoder_kwargs).flatten(0, 1)[index]

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Scores [B, block] of a block of item rows for states [B, D]."""
        return states @ self.item_embeddings[items].T

    @property
    def item_embeddings(self) -> torch.Tensor:
        """Embeddings [I, D] of the items in the order of the table."""
        return self.get_input_embeddings().weight[1:]

    # Training

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
        **encoder_kwargs: Any,
    ) -> SequentialOutput:
        """
        Args:
            input_ids (`torch.LongTensor` [B, L]): as in [`encode`].
            position_ids (`torch.LongTensor` [B, L], *optional*): as in [`encode`].
            labels (`torch.LongTensor` [B, L], *optional*): the item (row + 1) that follows each position; -100 for
                none.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): what the sum of losses is divided by; by default
                the number of labels.
            negative_ids (`torch.LongTensor` [G, M], *optional*): random items (row + 1) of a sampled objective; drawn
                where they are not given.
            view_input_ids, view_position_ids (`torch.LongTensor` [V, Lv], *optional*): further sequences, whose states
                contrastive losses compare.
            view_index (`torch.LongTensor` [selected], *optional*): which of their V * Lv positions are compared.
            encoder_kwargs: of the model's [`encode`].

        Returns:
            [`SequentialOutput`].
        """
        if labels is None:
            states_BLD = self.encode(input_ids, position_ids, **encoder_kwargs)
            return SequentialOutput(logits=self.score(_last_states(states_BLD, input_ids)))
        index, targets = targets_of(labels)
        user_states = self.states_at(input_ids, position_ids, index, **encoder_kwargs)
        loss = self.item_loss(user_states, targets, negative_ids) / _count(targets, num_items_in_batch)
        view_states = None
        if view_input_ids is not None:
            view_states = self.states_at(view_input_ids, view_position_ids, view_index, **encoder_kwargs)
        return SequentialOutput(loss=loss, user_states=user_states, view_states=view_states)

    def item_loss(
        self, states: torch.Tensor, targets: torch.Tensor, negative_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum of the objective over states [G, D] and their next items [G] (row + 1)."""
        if self.config.objective == "cross_entropy":
            return item_cross_entropy(states, self.item_embeddings, targets - 1)
        if negative_ids is None:
            negative_ids = self.draw_negatives(targets)
        candidates_G1M = torch.cat([targets[:, None], negative_ids], dim=1)
        vectors = F.embedding(candidates_G1M - 1, self.item_embeddings)
        scores = (vectors @ states[..., None])[..., 0].float()
        if self.config.objective == "sampled_softmax":
            return -scores.log_softmax(-1)[:, 0].sum()
        return -(F.logsigmoid(scores[:, 0]).sum() + F.logsigmoid(-scores[:, 1:]).sum())

    def draw_negatives(self, targets: torch.Tensor) -> torch.Tensor:
        """Items (row + 1) other than the target, each equally likely, [G, num_negatives]."""
        if self.config.num_items < 2:
            raise ValueError(f"{type(self).__name__}: there is 1 item, so no other can be a negative")
        shape = (len(targets), self.config.num_negatives)
        others = torch.randint(1, self.config.num_items, shape, device=targets.device)
        return others + (others >= targets[:, None])

    # Inference

    @torch.inference_mode()
    def user_states(self, histories: Sequence[Sequence[str]], **encoder_kwargs: Any) -> torch.Tensor:
        """
        States [B, D] after the histories (item ids, oldest first), in evaluation mode; the newest `max_history` items
        count.
        """
        input_ids = self.encode_histories(histories)
        with _evaluating(self):
            states = _last_states(self.encode(input_ids, **encoder_kwargs), input_ids)
        if not torch.isfinite(states).all():
            row = int(torch.isfinite(states).all(-1).int().argmin())
            raise ValueError(
                f"{type(self).__name__}: the state after history {row} is not finite; the model's weights are broken"
            )
        return states

    @torch.inference_mode()
    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = False,
        allowed_items: Sequence[str] | None = None,
        batch_size: int = 1024,
        block_size: int | None = None,
        **encoder_kwargs: Any,
    ) -> list[list[dict[str, Any]]]:
        """
        The best items for every history.

        Args:
            histories (`Sequence[Sequence[str]]`): item ids, oldest first.
            k (`int`, *optional*, defaults to 10): items per history; fewer come back where fewer may be recommended.
            exclude_seen (`bool`, *optional*, defaults to `False`): leave out what is in the history.
            allowed_items (`Sequence[str]`, *optional*): recommend only these.
            batch_size (`int`, *optional*, defaults to 1024): histories at once.
            block_size (`int`, *optional*): items scored at once; by default so many that 64 MiB hold the scores.
            encoder_kwargs: of the model's [`encode`].

        Returns:
            `list` of one `list[dict]` per history, best first: `item_id`, `title`, `score` (a logit).

        Raises:
            ValueError: for a model without an item table, an empty history, an unknown item, or no allowed item.
        """
        items = self._require_items()
        if k < 1 or batch_size < 1:
            raise ValueError(
                f"{type(self).__name__}: k is {k} and batch_size {batch_size}; pass a positive number for each"
            )
        allowed_I = self._allowed(allowed_items)
        recommended = []
        with _evaluating(self):
            for start in range(0, len(histories), batch_size):
                batch = histories[start : start + batch_size]
                score_block = self._scorer(batch, allowed_I, exclude_seen, encoder_kwargs)
                scores, rows = top_items(score_block, len(batch), len(items), min(k, len(items)), block_size)
                recommended += [
                    [
                        {"item_id": items.item_ids[row], "title": items.titles[row], "score": score}
                        for row, score in zip(row_list, score_list, strict=True)
                        if score != -float("inf")
                    ]
                    for row_list, score_list in zip(rows.tolist(), scores.tolist(), strict=True)
                ]
        return recommended

    @torch.inference_mode()
    def rank_targets(
        self,
        histories: Sequence[Sequence[str]],
        targets: Sequence[str],
        exclude_seen: bool = False,
        block_size: int | None = None,
        **encoder_kwargs: Any,
    ) -> np.ndarray:
        """
        Rank of a target after each history among all items that may be recommended.

        Args:
            histories (`Sequence[Sequence[str]]`, length B): item ids, oldest first.
            targets (`Sequence[str]`, length B): item ids.
            exclude_seen (`bool`, *optional*, defaults to `False`): as in [`recommend`].
            block_size (`int`, *optional*): as in [`recommend`].
            encoder_kwargs: of the model's [`encode`].

        Returns:
            `np.ndarray` [B], int64: from 1; of equal scores the lower row ranks first. 0 where the target may not be
            recommended.
        """
        items = self._require_items()
        if len(targets) != len(histories):
            raise ValueError(
                f"{type(self).__name__}: {len(histories)} histories but {len(targets)} targets; pass one per history"
            )
        target_rows = torch.from_numpy(items.rows(targets)).to(self.device)
        with _evaluating(self):
            score_block = self._scorer(histories, self._allowed(None), exclude_seen, encoder_kwargs)
            return ranks_of(score_block, target_rows, len(items), block_size).cpu().numpy()

    def encode_histories(self, histories: Sequence[Sequence[str]]) -> torch.Tensor:
        """Item ids to `input_ids` [B, L]; the newest `max_history` items of each history."""
        items = self._require_items()
        lengths = np.array([min(len(history), self.config.max_history) for history in histories])
        if not len(lengths) or not lengths.all():
            where = f"history {int(np.argmin(lengths))} is empty" if len(lengths) else "there are no histories"
            raise ValueError(f"{type(self).__name__}: {where}; pass at least one item of each user")
        flat = items.rows([item_id for history in histories for item_id in history[-self.config.max_history :]])
        input_ids = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
        input_ids[np.arange(lengths.max()) < lengths[:, None]] = flat + 1
        return torch.from_numpy(input_ids).to(self.device)

    def _scorer(self, histories, allowed_I: torch.Tensor, exclude_seen: bool, encoder_kwargs: dict):
        """Scores a block of items, -inf for what may not be recommended."""
        states = self.user_states(histories, **encoder_kwargs)
        if exclude_seen:
            users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
            seen = self._require_items().rows([item_id for history in histories for item_id in history])
            users, seen = torch.from_numpy(users).to(self.device), torch.from_numpy(seen).to(self.device)

        def score_block(block: slice) -> torch.Tensor:
            scores = self.score(states, block).float().masked_fill(~allowed_I[block], -torch.inf)
            if exclude_seen:
                inside = (seen >= block.start) & (seen < block.stop)
                scores[users[inside], seen[inside] - block.start] = -torch.inf
            return scores

        return score_block

    def _allowed(self, allowed_items: Sequence[str] | None) -> torch.Tensor:
        """Which rows may be recommended, [I] bool: those that are allowed, and have a meaningful score."""
        items = self._require_items()
        allowed = np.ones(len(items), dtype=bool) if self.scores_cold_items else ~items.is_cold
        if allowed_items is not None:
            chosen = np.zeros_like(allowed)
            chosen[items.rows(allowed_items)] = True
            allowed &= chosen
        if not allowed.any():
            raise ValueError(
                f"{type(self).__name__}: none of the items may be recommended: {int(items.is_cold.sum()):,} of "
                f"{len(items):,} never occur in training, and allowed_items "
                f"{'is not given' if allowed_items is None else f'names {len(allowed_items)}'}"
            )
        return torch.from_numpy(allowed).to(self.device)

    def _require_items(self) -> ItemTable:
        if self.items is None:
            raise ValueError(
                f"{type(self).__name__} has no item table; build it with items=ItemTable(...), or load it from a "
                f"folder that holds {ITEMS_FILE}"
            )
        return self.items

    # Catalog

    def resize_item_embeddings(self, items: ItemTable) -> None:
        """
        Takes up a catalog that has grown. New rows are drawn at random and are cold, so they are not recommended.
        After training on data that holds them, set `items` to a table with the popularity of that data.

        Args:
            items (`ItemTable`): the items of now, in their order, then the new ones.

        Raises:
            ValueError: where the table does not start with the items of now.
        """
        old = self._require_items()
        if items.item_ids[: len(old)] != old.item_ids:
            row = next((row for row, pair in enumerate(zip(old.item_ids, items.item_ids)) if pair[0] != pair[1]), None)  # noqa: B905
            found = f"row {row} holds {items.item_ids[row]!r}" if row is not None else f"it ends after {len(items)}"
            raise ValueError(
                f"resize_item_embeddings: the table must start with the {len(old)} items of the model, but {found}; "
                "append new items to the end"
            )
        popularity = np.zeros(len(items), dtype=np.int64)
        popularity[: len(old)] = 1 if old.popularity is None else old.popularity
        embedding = self.get_input_embeddings()
        grown = nn.Embedding(
            len(items) + 1, embedding.embedding_dim, padding_idx=0, device=self.device, dtype=embedding.weight.dtype
        )
        with torch.no_grad():
            grown.weight.normal_(std=self.config.initializer_range)
            grown.weight[: len(old) + 1] = embedding.weight
        self.set_input_embeddings(grown)
        self.config.num_items = len(items)
        self.items = ItemTable(items.item_ids, items.titles, popularity)

    # Files

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """As in transformers, with the item table beside the weights."""
        if self.items is not None and is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.items.save(Path(save_directory, ITEMS_FILE))
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any):
        """As in transformers, with the item table where there is one."""
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        where = {name: kwargs[name] for name in hub if kwargs.get(name) is not None}
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        path = cached_file(
            pretrained_model_name_or_path,
            ITEMS_FILE,
            **where,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
        if path is not None:
            model.items = ItemTable.load(path)
            if len(model.items) != model.config.num_items:
                raise ValueError(
                    f"{path} holds {len(model.items)} items, but the model {model.config.num_items}; the folder is "
                    "mixed of two models, save it again"
                )
        return loaded


def _last_states(states_BLD: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """State [B, D] of the last item of each row."""
    return states_BLD[torch.arange(len(input_ids), device=input_ids.device), last_positions(input_ids)]


def targets_of(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in labels [B, L], row after row, a next item is, and which (row + 1); both [G]."""
    labels = labels.flatten()
    index = labels.ne(IGNORE_INDEX).nonzero()[:, 0]
    return index, labels[index]


def _count(targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | int:
    return max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch


class _evaluating:
    """Evaluation mode for a while."""

    def __init__(self, model: nn.Module):
        self.model, self.was_training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: Any) -> None:
        self.model.train(self.was_training)


__all__ = ["IGNORE_INDEX", "SequentialOutput", "SequentialRecommender"]
