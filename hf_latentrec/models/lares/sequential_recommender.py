"""The base of every item-ID recommender: a loss, scores of the catalog, and a catalog that may grow.

Shapes: B rows, L positions, D hidden, I items, G targets, V rows of views.
"""

from __future__ import annotations

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
from .item_scores import exact_scores, item_cross_entropy
from .item_table import ITEMS_FILE, ItemTable
from .recommending import RecommendingMixin
from .safe_weights import SafeWeightsMixin
from .sequence_encoders import last_index


IGNORE_INDEX = -100
OLD_ITEMS_FILE = "items.parquet"


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
        contrasts (`list` of pairs of `torch.Tensor` [G, D]): states each of which has to find its own counterpart, the
            second of the pair, among those of the batch; with labels, of a model that is trained that way.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    user_states: torch.Tensor | None = None
    view_states: torch.Tensor | None = None
    step_states: torch.Tensor | None = None
    auxiliary_losses: dict[str, torch.Tensor] | None = None
    contrasts: list[tuple[torch.Tensor, torch.Tensor]] | None = None


class SequentialRecommender(RecommendingMixin, SafeWeightsMixin, PreTrainedModel):
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
        """Scores [B, block] of a block of item rows for states [B, D], in a new tensor: the caller writes into it."""
        return exact_scores(states, self.item_embeddings[items])

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
            states = self.states_at(input_ids, position_ids, last_index(input_ids), **encoder_kwargs)
            return SequentialOutput(logits=self.score(states))
        index, targets = targets_of(labels)
        user_states = self.states_at(input_ids, position_ids, index, **encoder_kwargs)
        loss = self.item_loss(user_states, targets, negative_ids) / divisor(targets, num_items_in_batch)
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

    # Catalog

    def resize_item_embeddings(self, items: ItemTable) -> None:
        """
        Takes up a catalog that has grown. New rows are drawn at random and are cold, so they are not recommended.
        After training on data that holds them, set `items` to a table with the popularity of that data.

        Args:
            items (`ItemTable`): the items of now, in their order, then the new ones.

        Raises:
            ValueError: where the table does not start with the items of now, or for a model that only counts.
        """
        old, embedding = self._require_items(), self._embeddings_to_resize()
        if items.item_ids[: len(old)] != old.item_ids:
            row = next((row for row, pair in enumerate(zip(old.item_ids, items.item_ids)) if pair[0] != pair[1]), None)  # noqa: B905
            found = f"row {row} holds {items.item_ids[row]!r}" if row is not None else f"it ends after {len(items)}"
            raise ValueError(
                f"resize_item_embeddings: the table must start with the {len(old)} items of the model, but {found}; "
                "append new items to the end"
            )
        popularity = np.zeros(len(items), dtype=np.int64)
        popularity[: len(old)] = 1 if old.popularity is None else old.popularity
        grown = nn.Embedding(
            len(items) + 1, embedding.embedding_dim, padding_idx=0, device=self.device, dtype=embedding.weight.dtype
        )
        with torch.no_grad():
            grown.weight.normal_(std=self.config.initializer_range)
            grown.weight[: len(old) + 1] = embedding.weight
        self.set_input_embeddings(grown)
        self.config.num_items = len(items)
        self.items = ItemTable(items.item_ids, items.titles, popularity)

    def _embeddings_to_resize(self) -> nn.Embedding:
        try:
            return self.get_input_embeddings()
        except NotImplementedError:
            raise ValueError(
                f"{type(self).__name__} has no item embeddings to resize; make a new one of the new catalog"
            ) from None

    # Files

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """As in transformers, with the item table beside the weights, and its fingerprint in the configuration."""
        self.config.items_fingerprint = None if self.items is None else self.items.fingerprint
        if self.items is not None and is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.items.save(Path(save_directory, ITEMS_FILE))
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any):
        """
        As in transformers, with the item table where there is one.

        Raises:
            ValueError: for weights that are pickled or broken, or items that are not the model's.
        """
        source = pretrained_model_name_or_path
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        where = {name: kwargs[name] for name in hub if kwargs.get(name) is not None}
        loaded = super().from_pretrained(source, *args, **kwargs)
        path = cached_file(
            source,
            ITEMS_FILE,
            **where,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
        if path is not None:
            model.items = ItemTable.load(path)
            model.check_items(path)
        elif model.config.items_fingerprint is not None or Path(source, OLD_ITEMS_FILE).is_file():
            raise ValueError(
                f"{cls.__name__}: {source} has no {ITEMS_FILE}, but the model was saved with items; save it again, or "
                f"write the file with ItemTable(...).save (older models have {OLD_ITEMS_FILE}, which is read no more)"
            )
        return loaded

    def check_items(self, path: str | Path) -> None:
        """Raises a `ValueError` where the items, read from `path`, are not those that the model was saved with."""
        if len(self.items) != self.config.num_items:
            raise ValueError(
                f"{path} holds {len(self.items)} items, but the model {self.config.num_items}; the folder is mixed of "
                "two models, save it again"
            )
        if self.config.items_fingerprint not in (None, self.items.fingerprint):
            raise ValueError(
                f"{path} holds items of fingerprint {self.items.fingerprint}, but the model was saved with those of "
                f"{self.config.items_fingerprint}; the folder is mixed of two models, save it again"
            )


def targets_of(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in labels [B, L], row after row, a next item is, and which (row + 1); both [G]."""
    labels = labels.flatten()
    index = labels.ne(IGNORE_INDEX).nonzero()[:, 0]
    return index, labels[index]


def divisor(targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | int:
    """What a sum over targets [G] is divided by."""
    return max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch


__all__ = ["IGNORE_INDEX", "SequentialOutput", "SequentialRecommender", "divisor", "targets_of"]
