"""Recommendations and ranks of item-ID recommenders: histories of item ids in, items of the catalog out.

Shapes: B rows, L positions, D hidden, I items, K recommended items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from .item_scores import Scorer, best_of_groups, exclusion, item_blocks, ranks_of, row_chunks, top_items
from .item_table import ITEMS_FILE, ItemTable
from .sequence_encoders import last_index, last_positions


ENCODED_TOKENS = 2048  # positions that are encoded at once on a CPU, so that their states stay in a core's cache


class RecommendingMixin:
    """What a [`SequentialRecommender`] offers once it is trained; it needs its `states_at`, `score` and `items`."""

    @torch.inference_mode()
    def user_states(self, histories: Sequence[Sequence[str]], **encoder_kwargs: Any) -> torch.Tensor:
        """
        States after the histories, in evaluation mode. Histories of similar length are encoded together, so that
        little is padded.

        Args:
            histories (`Sequence[Sequence[str]]`, length B): item ids, oldest first; the newest `max_history` count.
            encoder_kwargs: of the model's [`encode`], the same for every history.

        Returns:
            `torch.Tensor` [B, D].

        Raises:
            ValueError: for a model without an item table, an empty history, an unknown item, an argument that differs
                from row to row, or weights that are not finite.
        """
        for name, value in encoder_kwargs.items():
            if isinstance(value, torch.Tensor):
                raise ValueError(
                    f"{type(self).__name__}: {name} is a tensor, but histories are encoded in an order of their own; "
                    "call encode with the rows of encode_histories"
                )
        input_ids = self.encode_histories(histories)
        with evaluating(self):
            states = self._last_states(input_ids, encoder_kwargs)
        if not torch.isfinite(states).all():
            row = int(torch.isfinite(states).all(-1).int().argmin())
            raise ValueError(
                f"{type(self).__name__}: the state after history {row} is not finite; the model's weights are broken"
            )
        return states

    def _last_states(self, input_ids: torch.Tensor, encoder_kwargs: dict) -> torch.Tensor:
        """States [B, D] of the last item of each row [B, L], padded on the right."""
        last_B = last_positions(input_ids)
        longest_first_B = last_B.argsort(descending=True, stable=True)
        parts, start = [], 0
        while start < len(input_ids):
            length = int(last_B[longest_first_B[start]]) + 1
            at_once = max(1, ENCODED_TOKENS // length) if input_ids.device.type == "cpu" else len(input_ids)
            part = input_ids[longest_first_B[start : start + at_once], :length]
            parts.append(self.states_at(part, None, last_index(part), **encoder_kwargs))
            start += at_once
        return torch.cat(parts)[longest_first_B.argsort()]

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
        exclusion_I = self._exclusion(allowed_items)
        recommended = []
        with evaluating(self):
            for start in range(0, len(histories), batch_size):
                batch = histories[start : start + batch_size]
                for chunk, score_block in self._scorers(batch, exclusion_I, exclude_seen, encoder_kwargs):
                    num_rows = chunk.stop - chunk.start
                    scores, rows = top_items(score_block, num_rows, len(items), min(k, len(items)), block_size)
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
        item_groups: np.ndarray | None = None,
        **encoder_kwargs: Any,
    ) -> np.ndarray:
        """
        Rank of a target after each history among all items that may be recommended.

        Args:
            histories (`Sequence[Sequence[str]]`, length B): item ids, oldest first.
            targets (`Sequence[str]`, length B): item ids.
            exclude_seen (`bool`, *optional*, defaults to `False`): as in [`recommend`].
            block_size (`int`, *optional*): as in [`recommend`].
            item_groups (`np.ndarray` [I], *optional*): items with the same number, such as those that share a title,
                count as the same: the rank is the best among them. By default each counts for itself.
            encoder_kwargs: of the model's [`encode`].

        Returns:
            `np.ndarray` [B], int64: from 1; of equal scores the lower row ranks first. 0 where the target may not be
            recommended.
        """
        return self._rank(histories, targets, 0, exclude_seen, block_size, item_groups, encoder_kwargs)[0]

    @torch.inference_mode()
    def rank_and_recommend(
        self,
        histories: Sequence[Sequence[str]],
        targets: Sequence[str],
        k: int,
        exclude_seen: bool = False,
        block_size: int | None = None,
        item_groups: np.ndarray | None = None,
        **encoder_kwargs: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        What [`rank_targets`] returns, and the best items, from the same states and scores. (A catalog that is scored
        in several blocks is scored anew for the items.)

        Args:
            histories, targets, exclude_seen, block_size, item_groups, encoder_kwargs: as in [`rank_targets`].
            k (`int`): items per history, K.

        Returns:
            `tuple`: ranks [B], and rows of the item table [B, K], best first, padded with -1 where fewer may be
            recommended.
        """
        if k < 1:
            raise ValueError(f"{type(self).__name__}: k is {k}; pass a positive number of items")
        return self._rank(histories, targets, k, exclude_seen, block_size, item_groups, encoder_kwargs)

    def _rank(
        self,
        histories: Sequence[Sequence[str]],
        targets: Sequence[str],
        k: int,
        exclude_seen: bool,
        block_size: int | None,
        item_groups: np.ndarray | None,
        encoder_kwargs: dict,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks [B] of the targets and rows [B, K] of the best items."""
        items, B = self._require_items(), len(histories)
        if len(targets) != B:
            raise ValueError(f"{type(self).__name__}: {B} histories but {len(targets)} targets; pass one per history")
        target_B = torch.from_numpy(items.rows(targets)).to(self.device)
        groups = None if item_groups is None else torch.from_numpy(item_groups).to(self.device)
        rank_B, best_BK = torch.empty_like(target_B), target_B.new_full((B, k), -1)
        with evaluating(self):
            for chunk, score_block in self._scorers(histories, self._exclusion(None), exclude_seen, encoder_kwargs):
                target_rows, num_rows = target_B[chunk], chunk.stop - chunk.start
                if len(blocks := item_blocks(num_rows, len(items), block_size)) == 1:
                    score_block = partial(lambda scores, block: scores, score_block(blocks[0]))
                if groups is not None:
                    target_rows = best_of_groups(score_block, target_rows, groups, block_size)
                rank_B[chunk] = ranks_of(score_block, target_rows, len(items), block_size)
                if k > 0:
                    scores, rows = top_items(score_block, num_rows, len(items), min(k, len(items)), block_size)
                    best_BK[chunk, : rows.shape[1]] = rows.masked_fill(scores == -torch.inf, -1)
        return rank_B.cpu().numpy(), best_BK.cpu().numpy()

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

    def _scorers(
        self,
        histories: Sequence[Sequence[str]],
        exclusion_I: torch.Tensor,
        exclude_seen: bool,
        encoder_kwargs: dict,
    ) -> Iterator[tuple[slice, Scorer]]:
        """Chunk by chunk which histories are scored together, and what scores a block of items for them."""
        states = self.user_states(histories, **encoder_kwargs)
        for chunk in row_chunks(len(histories), len(exclusion_I), states.device):
            yield chunk, self._scorer(states[chunk], exclusion_I, histories[chunk] if exclude_seen else ())

    def _scorer(
        self, states: torch.Tensor, exclusion_I: torch.Tensor, seen_histories: Sequence[Sequence[str]]
    ) -> Scorer:
        """Scores a block of items, -inf for what may not be recommended."""
        if seen_histories:
            users = np.repeat(np.arange(len(seen_histories)), [len(history) for history in seen_histories])
            seen = self._require_items().rows([item_id for history in seen_histories for item_id in history])
            users, seen = torch.from_numpy(users).to(self.device), torch.from_numpy(seen).to(self.device)

        def score_block(block: slice) -> torch.Tensor:
            scores = self.score(states, block).float().add_(exclusion_I[block])
            if seen_histories:
                inside = (seen >= block.start) & (seen < block.stop)
                scores[users[inside], seen[inside] - block.start] = -torch.inf
            return scores

        return score_block

    def _exclusion(self, allowed_items: Sequence[str] | None) -> torch.Tensor:
        """What is added to scores, [I]: 0 for rows that are allowed and have a meaningful score, else -inf."""
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
        return exclusion(allowed, self.device)

    def _require_items(self) -> ItemTable:
        if self.items is None:
            raise ValueError(
                f"{type(self).__name__} has no item table; build it with items=ItemTable(...), or load it from a "
                f"folder that holds {ITEMS_FILE}"
            )
        return self.items


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


__all__ = ["RecommendingMixin", "evaluating"]
