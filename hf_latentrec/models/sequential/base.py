"""What the baselines share beyond [`SequentialRecommender`]."""

from __future__ import annotations

import torch
from torch import nn

from ..lares.configuration_sequential import SequentialConfig
from ..lares.frequency_layers import check_one_sequence_per_row, to_window
from ..lares.item_table import ItemTable
from ..lares.sequence_encoders import SequenceEmbeddings
from ..lares.sequential_recommender import SequentialRecommender


# B rows, L positions, W slots of the window, D hidden


class EmbeddingRecommender(SequentialRecommender):
    """
    A recommender over learned item and position embeddings. A subclass adds its layers and writes [`encode`].

    Args:
        config (`SequentialConfig`): of the subclass's class.
        items (`ItemTable`, *optional*): the catalog.
    """

    def __init__(self, config: SequentialConfig, items: ItemTable | None = None):
        super().__init__(config, items)
        self.embeddings = SequenceEmbeddings(config)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.items

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.items = value


class WholeWindow:
    """
    Mixin (the first base) of a recommender whose layers mix all slots of a window of `max_history` items,
    so that a row gives one state and not one per prefix. A subclass writes [`encode_window`] in place of [`encode`].
    """

    causal = False

    def encode(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> torch.Tensor:
        """The row's one state at every position, [B, L, D]; see [`SequentialRecommender`]."""
        check_one_sequence_per_row(self, position_ids)
        state_BD = self.encode_window(to_window(input_ids, self.config.max_history))
        return state_BD[:, None].expand(-1, input_ids.shape[1], -1)

    def encode_window(self, window_ids: torch.Tensor) -> torch.Tensor:
        """
        Args:
            window_ids (`torch.LongTensor` [B, W]): item rows + 1, the newest in the last slot, padded on the left.

        Returns:
            `torch.Tensor` [B, D].
        """
        raise NotImplementedError


__all__ = ["EmbeddingRecommender", "WholeWindow"]
