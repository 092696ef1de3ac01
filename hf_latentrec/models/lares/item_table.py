"""ItemTable: which item stands in which row of a model's embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .similar_ids import similar_ids


ITEMS_FILE = "items.json"


class ItemTable:
    """
    Ordered items of a recommender: ids, titles where known, and how often each occurs in the training data.

    Args:
        item_ids (`Sequence[str]`, length I): each once.
        titles (`Sequence[str | None]`, length I, *optional*): for people.
        popularity (`Sequence[int]`, length I, *optional*): occurrences in training histories and targets; items with
            0 are cold. Where it is not given, none is.

    Raises:
        ValueError: for no items, a missing or repeated id, or columns of different length.

    Example:
        >>> items = ItemTable(["B1", "B2"], titles=["Shampoo", None], popularity=[3, 0])
        >>> items.rows(["B2", "B1"]).tolist(), items.is_cold.tolist()
        ([1, 0], [False, True])
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        titles: Sequence[str | None] | None = None,
        popularity: Sequence[int] | None = None,
    ):
        self.item_ids = list(item_ids)
        self.titles = [None] * len(self.item_ids) if titles is None else list(titles)
        self.popularity = None if popularity is None else np.asarray(popularity, dtype=np.int64)
        self._row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}
        if not self.item_ids:
            raise ValueError("ItemTable: there are no items; pass at least one item_id")
        for row, item_id in enumerate(self.item_ids):
            if not isinstance(item_id, str) or self._row_of[item_id] != row:
                what = "is repeated" if isinstance(item_id, str) else "is no text"
                raise ValueError(f"ItemTable: item_id {item_id!r} in row {row} {what}; pass each id once, as text")
        for row, title in enumerate(self.titles):
            if title is not None and not isinstance(title, str):
                raise ValueError(f"ItemTable: title {title!r} in row {row} is no text; pass None where there is none")
        for name, column in (("titles", self.titles), ("popularity", self.popularity)):
            if column is not None and len(column) != len(self.item_ids):
                raise ValueError(
                    f"ItemTable: {len(self.item_ids)} item_ids but {len(column)} {name}; pass one per item"
                )

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def is_cold(self) -> np.ndarray:
        """Whether an item never occurs in training, `[I]` bool."""
        return np.zeros(len(self), dtype=bool) if self.popularity is None else self.popularity == 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the ids in their order."""
        return hashlib.sha256(json.dumps(self.item_ids).encode()).hexdigest()

    def find(self, item_ids: Sequence[str]) -> np.ndarray:
        """Rows of item ids, `[N]` int64; -1 for an unknown id."""
        row_of = self._row_of.get
        return np.fromiter((row_of(item_id, -1) for item_id in item_ids), dtype=np.int64, count=len(item_ids))

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """
        Rows of item ids.

        Args:
            item_ids (`Sequence[str]` of length N): ids.

        Returns:
            `np.ndarray` of shape `[N]`, int64.

        Raises:
            ValueError: for an id that is not in the table; names the closest ones.
        """
        rows = self.find(item_ids)
        if (rows < 0).any():
            position = int(np.argmin(rows))
            raise ValueError(f"ItemTable: {self.describe_unknown(item_ids[position])} (position {position})")
        return rows

    def describe_unknown(self, item_id: Any) -> str:
        """What to tell about an id that is not in the table."""
        closest = similar_ids(item_id, self.item_ids)
        return f"item_id {item_id!r} is not among the {len(self):,} items; closest: {closest}"

    def save(self, path: str | Path) -> None:
        """Writes the table to a JSON file: one list per column."""
        columns = {"item_id": self.item_ids, "title": self.titles}
        if self.popularity is not None:
            columns["popularity"] = self.popularity.tolist()
        lines = (f'"{name}": {json.dumps(column, ensure_ascii=False)}' for name, column in columns.items())
        Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ItemTable:
        """
        Reads a table written by [`ItemTable.save`].

        Raises:
            ValueError: the file is truncated or is no table of items.
        """
        try:
            columns = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"ItemTable: {path} is truncated or no JSON ({error}); save it again") from error
        if not isinstance(columns, dict) or not {"item_id", "title"} <= set(columns):
            found = list(columns) if isinstance(columns, dict) else type(columns).__name__
            raise ValueError(f"ItemTable: {path} has columns {found}; write it with ItemTable.save")
        return cls(columns["item_id"], columns["title"], columns.get("popularity"))


__all__ = ["ITEMS_FILE", "ItemTable"]
