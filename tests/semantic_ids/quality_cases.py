"""Small catalogs whose codes are to be judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import polars as pl

from hf_latentrec.semantic_ids.quality import IdQuality, quality_of_ids


@dataclass
class FakeIds:
    """What the quality reads of semantic IDs."""

    item_ids: list[str]
    raw_codes_IL: np.ndarray
    codes_IL: np.ndarray
    level_sizes: tuple[int, ...]
    codebooks_LKD: np.ndarray
    policy: str = "extra_level"
    version: int = 1
    embedding_model: str = "<b>model</b>"
    text_fields: tuple[str, ...] = ("title", "unknown")
    balanced: bool = False
    seed: int = 0
    fingerprint: str = "abc"
    quantizer: SimpleNamespace = field(init=False)

    def __post_init__(self):
        self.quantizer = SimpleNamespace(codebooks_LKD=self.codebooks_LKD)


def make_case(num_items: int = 60, size: int = 4, L: int = 2, D: int = 3, seed: int = 0) -> dict:
    """Arguments of `quality_of_ids`: codes of an extra level, embeddings near them, items, histories."""
    rng = np.random.default_rng(seed)
    codebooks_LKD = rng.normal(size=(L, size, D)).astype(np.float32) / np.array([1, 3, 9, 27])[:L, None, None]
    raw_IL = np.minimum(rng.geometric(0.4, size=(num_items, L)) - 1, size - 1).astype(np.int32)
    extra_I = np.array([(raw_IL[:row] == raw_IL[row]).all(axis=1).sum() for row in range(num_items)], dtype=np.int32)
    embeddings_ID = sum(codebooks_LKD[level, raw_IL[:, level]] for level in range(L))
    embeddings_ID = (embeddings_ID + 0.1 * rng.normal(size=(num_items, D))).astype(np.float32)
    item_ids = [f"i{row}" for row in range(num_items)]
    kinds = [["all", f"kind {raw_IL[row, 0]}", *["rare"] * (row % 5 == 0)] for row in range(num_items)]
    items = pl.DataFrame(
        {
            "item_id": item_ids,
            "title": [f"title <b>{row % 50}</b>" for row in range(num_items)],
            "categories": kinds,
            "brand": [f"brand {rng.integers(6)}" for _ in range(num_items)],
        },
        schema_overrides={"categories": pl.List(pl.String)},
    ).sample(fraction=1.0, shuffle=True, seed=seed)
    ids = FakeIds(item_ids, raw_IL, np.c_[raw_IL, extra_I], (*[size] * L, int(extra_I.max()) + 1), codebooks_LKD)
    return {
        "semantic_ids": ids,
        "embeddings_ID": embeddings_ID,
        "items": items,
        "interactions": make_histories(ids, raw_IL, rng),
    }


def make_histories(ids: FakeIds, raw_IL: np.ndarray, rng: np.random.Generator, num_users: int = 40) -> pl.DataFrame:
    """Users who like one first code more than the others; some items are bought again."""
    rows = []
    for user in range(num_users):
        liked = np.where(raw_IL[:, 0] == user % 3, 5.0, 1.0)
        bought = rng.choice(len(liked), size=rng.integers(1, 9), p=liked / liked.sum())
        rows += [(f"u{user}", ids.item_ids[item]) for item in bought]
    return pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")


def make_quality(**changed) -> IdQuality:
    """The figures of such a catalog, or with other arguments."""
    return quality_of_ids(**make_case() | changed)


__all__ = ["FakeIds", "make_case", "make_quality"]
