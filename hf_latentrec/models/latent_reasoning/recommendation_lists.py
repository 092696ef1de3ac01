"""Beams in, items out: the lists that a processor makes of what `generate` returned.

Shapes: I items, R beams of all users, M recommended items of all users.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .modeling_outputs import LatentRecGenerateOutput


class _Ranking(NamedTuple):
    """Recommended items of all users, best first within a user; arrays of shape [M]."""

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray
    rank: np.ndarray  # 1-based


class RecommendationLists:
    """The part of [`LatentRecProcessor`] that reads beams; it stands on its `catalog` and `item_trie`."""

    def post_process_recommendations(
        self, output: LatentRecGenerateOutput, top_k: int | None = None
    ) -> list[list[dict[str, Any]]]:
        """
        Items of what `generate` returned. Items that share a sequence follow each other, the more popular first; those
        that `generate` was not allowed to recommend are left out.

        Args:
            output (`LatentRecGenerateOutput`): What `generate` returned.
            top_k (`int`, *optional*): Keep this many items per user; all by default.

        Returns:
            `list[list[dict]]`: per user `{"item_id": str, "title": str | None, "score": float}`, best first.

        Raises:
            `ValueError`: The answers are those of another catalog.
        """
        ranking = self._rank(output)
        recommendations: list[list[dict[str, Any]]] = [[] for _ in range(output.num_users)]
        keep = ranking.rank <= (np.inf if top_k is None else top_k)
        columns = (column[keep].tolist() for column in (ranking.user, ranking.item, ranking.score))
        for user, item, score in zip(*columns, strict=True):
            record = {"item_id": self.catalog.item_ids[item], "title": self.catalog.titles[item], "score": score}
            recommendations[user].append(record)
        return recommendations

    def rank_of(
        self, output: LatentRecGenerateOutput, target_rows: np.ndarray, item_groups: np.ndarray | None = None
    ) -> np.ndarray:
        """
        Rank of one item per user in what [`post_process_recommendations`] would list.

        Args:
            output (`LatentRecGenerateOutput`): What `generate` returned.
            target_rows (`np.ndarray` of shape `[num_users]`): Catalog row of each user's target.
            item_groups (`np.ndarray` of shape `[I]`, *optional*): Items with the same number, such as those that share
                a title, count as the same: the rank is that of the first of them. By default each counts for itself.

        Returns:
            `np.ndarray` of shape `[num_users]`, int64: 1-based rank; 0 where the target is not in the list.

        Raises:
            `ValueError`: targets that are no catalog rows, or not one per user; answers of another catalog.
        """
        ranking, targets = self._rank(output), np.asarray(target_rows)
        if targets.shape != (output.num_users,) or not np.issubdtype(targets.dtype, np.integer):
            raise ValueError(
                f"target_rows have shape {targets.shape} and type {targets.dtype}; pass one catalog row per user "
                f"[{output.num_users}], catalog.rows(item_ids)"
            )
        if len(beyond := np.flatnonzero((targets < 0) | (targets >= len(self.catalog)))):
            raise ValueError(
                f"target_rows hold {targets[beyond[0]]} (position {beyond[0]}), but the catalog has "
                f"{len(self.catalog)} items, from row 0; pass catalog.rows(item_ids)"
            )
        if item_groups is None:
            hit = ranking.item == targets[ranking.user]
        else:
            hit = item_groups[ranking.item] == item_groups[targets][ranking.user]
        user, first = np.unique(ranking.user[hit], return_index=True)  # best first within a user
        ranks = np.zeros(output.num_users, dtype=np.int64)
        ranks[user] = ranking.rank[hit][first]
        return ranks

    def recommended_rows(self, output: LatentRecGenerateOutput, top_k: int) -> np.ndarray:
        """
        Catalog rows of what [`post_process_recommendations`] would list.

        Args:
            output (`LatentRecGenerateOutput`): What `generate` returned.
            top_k (`int`): Items per user, K.

        Returns:
            `np.ndarray` of shape `[num_users, K]`, int64: best first, padded with -1 where there are fewer.

        Raises:
            `ValueError`: The answers are those of another catalog.
        """
        ranking = self._rank(output)
        keep = ranking.rank <= top_k
        rows = np.full((output.num_users, top_k), -1, dtype=np.int64)
        rows[ranking.user[keep], ranking.rank[keep] - 1] = ranking.item[keep]
        return rows

    def _rank(self, output: LatentRecGenerateOutput) -> _Ranking:
        """Beams to items: shared leaves expanded, nothing twice, nothing that is not allowed."""
        if output.catalog_fingerprint and output.catalog_fingerprint != self.catalog.fingerprint:
            raise ValueError(
                f"the answers are of the catalog {output.catalog_fingerprint}, but this processor's is "
                f"{self.catalog.fingerprint}; pass its item_trie to generate"
            )
        item, beam = (x.cpu() for x in self.item_trie.leaf_items(output.item_nodes.to(self.item_trie.row_ptr.device)))
        user = output.user_indices.cpu()[beam]
        if output.sub_catalog is not None:
            kept = output.sub_catalog.keeps(item, user).cpu()
            item, beam, user = item[kept], beam[kept], user[kept]
        item, user, score = item.numpy(), user.numpy(), output.sequences_scores.float().cpu()[beam].numpy()
        first = np.unique(user * len(self.catalog) + item, return_index=True)[1]
        order = np.sort(first)
        order = order[np.argsort(user[order], kind="stable")]
        user = user[order]
        rank = np.arange(len(user)) - np.searchsorted(user, user) + 1
        return _Ranking(user, item[order], score[order], rank)


__all__ = ["RecommendationLists"]
