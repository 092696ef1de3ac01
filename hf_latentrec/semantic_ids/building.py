"""From embeddings to semantic IDs, and to those of items that come later.

Shapes: I items, M new items, D embedding, L levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .collisions import POLICIES, resolve_collisions
from .residual_kmeans import ResidualKMeans
from .semantic_ids import SemanticIds


def build_semantic_ids(
    item_ids: Sequence[str],
    embeddings_ID: np.ndarray,
    *,
    num_levels: int = 4,
    codebook_size: int = 256,
    balanced: bool = True,
    on_collision: str = "extra_level",
    seed: int = 0,
    embedding_model: str | None = None,
    text_fields: Sequence[str] = (),
) -> SemanticIds:
    """
    Codebooks from the embeddings of a catalog, and codes for its items.

    Args:
        item_ids (`list[str]`): Ids of the items.
        embeddings_ID (`np.ndarray` of shape `[I, D]`): Their embeddings, in the same order; a memory map is read in
            blocks and not changed.
        num_levels (`int`, *optional*, defaults to 4): Levels of residual k-means, L.
        codebook_size (`int`, *optional*, defaults to 256): Codes of a level, K.
        balanced (`bool`, *optional*, defaults to `True`): Use each code of a level ceil(I / K) times at most. Plain
            k-means spends most codes of the later levels on single outliers, so that more items collide.
        on_collision (`str`, *optional*, defaults to `"extra_level"`): What becomes of items with the same codes: one
            more level numbers them (`"extra_level"`), they move to the nearest free code (`"nearest_free"`), or they
            `"share"` it.
        seed (`int`, *optional*, defaults to 0): The same seed gives the same codes.
        embedding_model (`str`, *optional*): What embedded the items, to be kept with the codes.
        text_fields (`list[str]`, *optional*): The columns that it read, to be kept with the codes.

    Returns:
        [`SemanticIds`]: version 1.

    Raises:
        `ValueError`: ids that do not match the embeddings or appear twice, an unknown policy, and what
            [`ResidualKMeans.fit`] and [`resolve_collisions`] refuse (NaN, fewer items than codes, no free code).

    Example:
        >>> lamps_and_soaps = np.array([[9.0, 0.0], [9.0, 0.2], [0.0, 7.0]], dtype=np.float32)
        >>> ids = build_semantic_ids(["L1", "L2", "S1"], lamps_and_soaps, num_levels=1, codebook_size=2)
        >>> (ids.codes_IL[0] == ids.codes_IL[1]).tolist(), ids.codes_IL[:, 1].tolist()
        ([True, False], [0, 1, 0])
        >>> add_items(ids, ["S2"], lamps_and_soaps[2:] - 0.1).codes_IL[2:, 1].tolist()
        [0, 1]
    """
    item_ids = list(item_ids)
    if on_collision not in POLICIES:
        raise ValueError(f"build_semantic_ids: on_collision={on_collision!r}; choose one of {', '.join(POLICIES)}")
    _check_ids("build_semantic_ids", item_ids, embeddings_ID)
    fitted = ResidualKMeans.fit(embeddings_ID, num_levels, codebook_size, balanced=balanced, seed=seed)
    return SemanticIds(
        item_ids,
        resolve_collisions(fitted.codes_IL, embeddings_ID, fitted, on_collision),
        ResidualKMeans(fitted.codebooks_LKD),
        on_collision,
        fitted.codes_IL,
        balanced=balanced,
        seed=seed,
        embedding_model=embedding_model,
        text_fields=tuple(text_fields),
    )


def add_items(semantic_ids: SemanticIds, new_item_ids: Sequence[str], new_embeddings_MD: np.ndarray) -> SemanticIds:
    """
    The next version: codes for new items from the saved codebooks. Codes of the items before do not move, and no token
    changes its meaning; only the extra level, where there is one, may have to grow.

    Args:
        semantic_ids ([`SemanticIds`]): The version before; it stays as it is.
        new_item_ids (`list[str]`): Ids that it does not hold.
        new_embeddings_MD (`np.ndarray` of shape `[M, D]`): Their embeddings, of the same model and text fields. Each
            level takes the nearest centroid, also where the codes of the older items were balanced.

    Returns:
        [`SemanticIds`]: the older items, then the new ones.

    Raises:
        `ValueError`: an id that is known already or appears twice, ids that do not match the embeddings, and what
            [`ResidualKMeans.encode`] and [`resolve_collisions`] refuse.
    """
    new_item_ids = list(new_item_ids)
    _check_ids("add_items", new_item_ids, new_embeddings_MD)
    known = set(semantic_ids.item_ids)
    if again := [item_id for item_id in new_item_ids if item_id in known]:
        raise ValueError(
            f"add_items: {len(again)} of {len(new_item_ids)} items have codes already, first {again[:3]}; codes never "
            "move, so pass new items only"
        )
    raw_codes_ML = semantic_ids.quantizer.encode(new_embeddings_MD)
    codes = resolve_collisions(
        raw_codes_ML,
        new_embeddings_MD,
        semantic_ids.quantizer,
        semantic_ids.policy,
        taken_ML=semantic_ids.codes_IL,
    )
    before = {"num_items": len(semantic_ids), "fingerprint": semantic_ids.fingerprint}
    return replace(
        semantic_ids,
        item_ids=[*semantic_ids.item_ids, *new_item_ids],
        codes_IL=np.concatenate([semantic_ids.codes_IL, codes]),
        raw_codes_IL=np.concatenate([semantic_ids.raw_codes_IL, raw_codes_ML]),
        earlier_versions=(*semantic_ids.earlier_versions, before),
    )


def _check_ids(name: str, item_ids: list[str], embeddings: np.ndarray) -> None:
    if embeddings.ndim != 2 or len(embeddings) != len(item_ids) or not item_ids:
        raise ValueError(
            f"{name}: {len(item_ids)} item ids and embeddings of shape {embeddings.shape}; pass one row per item, and "
            "at least one item"
        )
    counts = Counter(item_ids)
    if len(counts) < len(item_ids):
        repeated = next(item_id for item_id in item_ids if counts[item_id] > 1)
        rows = [str(row) for row, item_id in enumerate(item_ids) if item_id == repeated]
        raise ValueError(
            f"{name}: item_id {repeated!r} appears {len(rows)} times (rows {', '.join(rows)}); keep one row per item"
        )


__all__ = ["add_items", "build_semantic_ids"]
