"""Anchors: what a model's hidden states are after each segment of the teacher's text, on disk and mapped into memory.

```
folder/
    anchors-00000-of-00003.safetensors   "anchors" [rows, D]: one row per different segment
    examples.parquet                     user_id, target, rows: the segments of an example, in their order
    index.json                           fingerprints, shapes, shards; written last, so that it stands for all of it
```

Shapes: n examples, S segments, D hidden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import safe_open


INDEX_FILE = "index.json"
EXAMPLES_FILE = "examples.parquet"
VERSION = 1


class AnchorStore:
    """
    Anchors of training examples, looked up by user and target.

    Anchors stay on disk and are mapped into memory: processes on one machine share them, and only what is looked up is
    read. Pickling a store (for the workers of a data loader) passes on the folder alone.

    Example:
        >>> store = AnchorStore.open("outputs/lasar/anchors")                              # doctest: +SKIP
        >>> anchors, num_segments = store.lookup(["u1", "u2"], ["i7", "i3"])               # doctest: +SKIP
    """

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder = folder
        self.index = index
        self.hidden_size: int = index["hidden_size"]
        self._shards = [_map_shard(folder / shard["file"]) for shard in index["shards"]]
        self._shard_starts = np.cumsum([0, *(shard["rows"] for shard in index["shards"])])
        examples = pl.read_parquet(folder / EXAMPLES_FILE)
        rows = examples["rows"].list.explode(empty_as_null=False).to_numpy().astype(np.int64)
        # The last entry is that of examples without any segment.
        self._counts = np.append(examples["rows"].list.len().to_numpy().astype(np.int64), 0)
        self._offsets = np.cumsum(self._counts) - self._counts
        self._rows = rows
        keys = zip(examples["user_id"].to_list(), examples["target"].to_list(), strict=True)
        self._example_of = {key: example for example, key in enumerate(keys)}

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        model_fingerprint: str | None = None,
        text_fingerprint: str | None = None,
    ) -> AnchorStore:
        """
        Opens what [`build_anchors`] wrote.

        Args:
            folder (`str` or `Path`): its folder.
            model_fingerprint (`str`, *optional*): refuse anchors of another model, see [`model_fingerprint`].
            text_fingerprint (`str`, *optional*): refuse anchors of another text, see [`text_fingerprint`].

        Raises:
            ValueError: there are no (complete) anchors, they are stale, or of another version of this library.
        """
        folder = Path(folder)
        index = read_index(folder)
        if index is None:
            raise ValueError(f"AnchorStore: {folder} holds no complete anchors (no {INDEX_FILE}); run build_anchors")
        expected = {"model_fingerprint": model_fingerprint, "text_fingerprint": text_fingerprint}
        check_fresh(index, {name: value for name, value in expected.items() if value is not None}, folder)
        return cls(folder, index)

    def __reduce__(self):
        return AnchorStore.open, (self.folder,)

    def __len__(self) -> int:
        """Number of examples with text of their own, and users with text for all of theirs."""
        return len(self._example_of)

    def num_segments(self, user_ids: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """
        How many segments the text of each example has.

        Args:
            user_ids (`list[str]` [n]): users.
            targets (`list[str]` [n]): item ids of their targets.

        Returns:
            `np.ndarray` [n] of int64: 0 where there is no text.
        """
        return self._counts[self._find(user_ids, targets)]

    def lookup(self, user_ids: Sequence[str], targets: Sequence[str]) -> tuple[torch.Tensor, torch.LongTensor]:
        """
        Anchors of examples: those of their own text, else of the user's text without a target.

        Args:
            user_ids (`list[str]` [n]): users.
            targets (`list[str]` [n]): item ids of their targets.

        Returns:
            `tuple`: anchors `torch.FloatTensor` [n, S, D], 0 beyond the segments of an example, with S those of the
            longest (at least 1); and the number of segments `torch.LongTensor` [n], 0 where there is no text.
        """
        examples_n = self._find(user_ids, targets)
        counts_n = self._counts[examples_n]
        real_nS = np.arange(max(1, counts_n.max(initial=0))) < counts_n[:, None]
        place_nS = self._offsets[examples_n][:, None] + np.arange(real_nS.shape[1])
        anchors = torch.zeros(*real_nS.shape, self.hidden_size)
        anchors[torch.from_numpy(real_nS)] = self._read(self._rows[place_nS[real_nS]])
        return anchors, torch.from_numpy(counts_n)

    def _find(self, user_ids: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Index of each example; -1, the last, where there is none."""
        known = self._example_of
        pairs = zip(user_ids, targets, strict=True)
        return np.array([known.get(pair, known.get((pair[0], None), -1)) for pair in pairs], dtype=np.int64)

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        """Rows of the shards, as float32."""
        shard_of = np.searchsorted(self._shard_starts, rows, side="right") - 1
        anchors = torch.empty(len(rows), self.hidden_size)
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            inside = torch.from_numpy(rows[here] - self._shard_starts[shard])
            anchors[torch.from_numpy(here)] = self._shards[shard][inside].float()
        return anchors


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a folder, `None` where its anchors are not complete."""
    path = folder / INDEX_FILE
    if not path.exists():
        return None
    index = json.loads(path.read_text(encoding="utf-8"))
    if index.get("version") != VERSION:
        raise ValueError(
            f"AnchorStore: {path} has version {index.get('version')}, but version {VERSION} is read; build the "
            "anchors again in an empty folder"
        )
    return index


def check_fresh(found: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    """Refuses anchors that were made from something else, naming all of what differs."""
    stale = [name for name, value in expected.items() if found.get(name) != value]
    if stale:
        what = "; ".join(f"{name} is {found.get(name)}, expected {expected[name]}" for name in stale)
        raise ValueError(
            f"AnchorStore: the anchors in {folder} are stale, made from another model, text or setting ({what}); "
            "delete the folder or pass another, and build them again"
        )


def _map_shard(path: Path) -> torch.Tensor:
    """The rows of a shard, mapped into memory: safetensors reads nothing until they are used."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("anchors")


__all__ = ["EXAMPLES_FILE", "INDEX_FILE", "VERSION", "AnchorStore", "check_fresh", "read_index"]
