"""A name for prepared data that changes with any of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from .coding import CodedEvents


BLOCK = 1 << 22  # rows or bytes at a time


def events_fingerprint(events: CodedEvents, split_E: np.ndarray) -> str:
    """
    A sha256 (64 hex digits) over the ids, codes, times and splits of prepared events: the same on any machine, and
    another one where any user, item, order, time or split differs.

    Args:
        events ([`CodedEvents`]):
            Events whose users and items all occur ([`CodedEvents.dense`]).
        split_E (`np.ndarray` of shape `[E]`, int8):
            The split of each event.
    """
    digest = hashlib.sha256(f"{len(events)} {events.time_E is not None}\n".encode())
    for ids in (events.user_ids, events.item_ids):
        digest.update(f"{len(ids)}\n".encode())
        for start in range(0, len(ids), BLOCK):
            block = ids[start : start + BLOCK]
            _update(digest, block.str.len_bytes().to_numpy(), "<u4")
            digest.update(pl.select(block.str.join("")).item().encode())
    columns = ((events.user_E, "<u4"), (events.item_E, "<u4"), (events.time_E, "<f8"), (split_E, "i1"))
    for column_E, dtype in columns:
        if column_E is not None:
            _update(digest, column_E, dtype)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, with a progress bar where it is big."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(
            total=size,
            unit="B",
            unit_scale=True,
            desc=f"sha256 of {path.name}",
            leave=False,
            disable=size < 16 * BLOCK,
        ) as bar,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, values: np.ndarray, dtype: str) -> None:
    for start in range(0, len(values), BLOCK):
        digest.update(np.ascontiguousarray(values[start : start + BLOCK], dtype=dtype))


__all__ = ["events_fingerprint", "file_sha256"]
