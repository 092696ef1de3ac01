"""Item-KNN: items that the same people take as those of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from ..lares.configuration_sequential import SequentialConfig
from ..lares.item_table import ItemTable
from ..lares.sequential_recommender import SequentialRecommender


if TYPE_CHECKING:
    from datasets import Dataset


def import_cosine() -> type:
    """What [`ItemKNNRecommender.fit`] takes similarities from; an ImportError where it is not installed."""
    try:
        from implicit.nearest_neighbours import CosineRecommender
    except ImportError as error:
        raise ImportError(
            'ItemKNNRecommender.fit needs the library implicit: pip install "hf_latentrec[baselines]"'
        ) from error
    return CosineRecommender


@strict
class ItemKNNConfig(SequentialConfig):
    """
    Settings of [`ItemKNNRecommender`], beyond those of [`SequentialConfig`].

    Args:
        num_neighbours (`int`, *optional*, defaults to 20): items that are kept for each item, N.
    """

    model_type = "item_knn_rec"

    num_neighbours: int = 20

    def _check(self) -> None:
        super()._check()
        if self.num_neighbours < 1:
            raise ValueError(f"ItemKNNConfig: num_neighbours is {self.num_neighbours}; pass a positive number")


class ItemKNNRecommender(SequentialRecommender):
    r"""
    Scores an item by its cosine similarities to the items of the history, over the users of the training data
    (Sarwar et al. 2001), where it is among the N nearest neighbours of these:

    $$score(j) = \sum_{h} \frac{|U_h \cap U_j|}{\sqrt{|U_h| |U_j|}}\,[j \in N(h)]$$

    An item is no neighbour of itself. The similarities are those of the library `implicit`; fit the model with [`fit`]
    instead of a trainer.

    Args:
        config ([`ItemKNNConfig`]): of the model.
        items (`ItemTable`, *optional*): the catalog.
    """

    config_class = ItemKNNConfig

    def __init__(self, config: ItemKNNConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        shape = (config.num_items + 1, config.num_neighbours)  # row 0 is padding, and has none
        self.similarities = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.register_buffer("neighbours", torch.zeros(shape, dtype=torch.long))
        self.post_init()

    def fit(self, train: Dataset) -> ItemKNNRecommender:
        """
        Finds the neighbours of all items.

        Args:
            train (`datasets.Dataset`): examples with `user_id`, `history` and `target`.

        Returns:
            The model.

        Raises:
            ImportError: without the library `implicit`.
            ValueError: for an item that is not in the table.
        """
        knn = import_cosine()(K=self.config.num_neighbours + 1)  # an item is the nearest to itself
        knn.fit(self._user_item_matrix(train), show_progress=False)
        self._keep(knn.similarity.tocsr())
        return self

    def _user_item_matrix(self, train: Dataset):
        """Which user has which item, a sparse matrix [users, I] of ones."""
        import polars as pl
        from scipy.sparse import csr_matrix

        examples = train.with_format(None).to_polars()
        pairs = examples.select("user_id", item=pl.concat_list("history", "target")).explode("item").unique()
        users = pairs["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        rows = self._require_items().rows(pairs["item"].to_list())
        return csr_matrix((np.ones(len(rows)), (users, rows)), shape=(users.max() + 1, len(self.items)))

    def _keep(self, similarity) -> None:
        """Keeps the largest similarities of each row of a sparse matrix [I, I], but for those to the item itself."""
        row = np.repeat(np.arange(len(self.items)), np.diff(similarity.indptr))
        other = row != similarity.indices
        row, column, value = row[other], similarity.indices[other], similarity.data[other]
        order = np.lexsort((column, -value, row))
        row, column, value = row[order], column[order], value[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < self.config.num_neighbours
        where = (row[kept] + 1, place[kept])
        neighbours, similarities = (
            np.zeros(self.neighbours.shape, np.int64),
            np.zeros(self.neighbours.shape, np.float32),
        )
        neighbours[where], similarities[where] = column[kept], value[kept]
        self.neighbours = torch.from_numpy(neighbours).to(self.device)
        self.similarities.data = torch.from_numpy(similarities).to(self.device)

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """The items so far are the state: ids [B, L, max_history], 0 where there is none; see
        [`SequentialRecommender`]."""
        length = input_ids.shape[1]
        so_far_BLL = input_ids[:, None, :].expand(-1, length, -1).tril()
        return nn.functional.pad(so_far_BLL, (0, max(self.config.max_history - length, 0)))

    def score(self, states: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """Sums of similarities [B, block] to the items [B, max_history] of the histories."""
        start, stop, _ = items.indices(self.config.num_items)
        neighbours, similarities = self.neighbours[states].flatten(1), self.similarities[states].flatten(1)
        inside = (neighbours >= start) & (neighbours < stop)  # all others add 0 to some item
        scores = similarities.new_zeros(len(states), stop - start)
        return scores.scatter_add_(1, (neighbours - start) % (stop - start), similarities * inside)


__all__ = ["ItemKNNConfig", "ItemKNNRecommender"]
