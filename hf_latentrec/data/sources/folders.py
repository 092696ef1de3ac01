"""Folders that are data sets already: everything [`load_data`] reads."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ..loading import load_data
from ..schema import to_polars
from .column_mapping import select_interactions, select_items
from .raw_data import RawData


FILES = (
    "events.parquet",
    "items.parquet",
    "*.inter.json",
    "*.index.json",
    "*.inter",
    "*.item",
    "*.txt",
    "*_item2*.json",
)


def read_folder(
    interactions: str | Path,
    items: None = None,
    *,
    work_dir: str | Path,
    time_unit: str = "s",
    keep_codes: bool = False,
) -> RawData:
    """
    Read a data set in one of the formats of [`load_data`], to apply rules, text or semantic IDs of one's own.

    Args:
        interactions (`str` or `Path`):
            The folder, e.g. with RecBole atomic files, `X.inter.json` or `events.parquet`; or a sequences file.
        items (`None`):
            As in all readers; the folder holds its items.
        work_dir (`str` or `Path`):
            As in all readers; these formats are loaded whole, so nothing is written there.
        time_unit (`str`, *optional*, defaults to `"s"`):
            `"s"`, `"ms"`, `"us"` or `"ns"`: the unit of the folder's timestamps, see [`to_seconds`].
        keep_codes (`bool`, *optional*, defaults to `False`):
            Whether the folder's semantic IDs are a column `semantic_id` of the items. By default they are left out:
            codes belong to the catalog and the text they were built from, and after a reader come rules that change
            the one and IDs that are built anew. Beside those, old codes would be taken for new ones.

    Returns:
        [`RawData`]: The events of each user in their order, with `timestamp` or, where the folder has no times,
        `position`; with `split` where one is published, and `rating` where it is known. Items have all their columns
        as text or list of text, and are `None` where nothing but their ids is known.

    Raises:
        `FileNotFoundError`, `ValueError`: See [`load_data`]; a rating is no number.
    """
    if items is not None:
        raise ValueError(f"read_folder: items={str(items)!r}; name only the folder, it holds its items")
    folder = Path(interactions)
    data = load_data(folder)
    events, described = to_polars(data.interactions), to_polars(data.items)
    if "timestamp" in events.columns:
        events = events.drop("position")
    events = select_interactions(events.lazy(), folder.name, time_unit=time_unit)
    described = select_items(described.lazy(), folder.name)
    if "semantic_id" in described.columns and not keep_codes:
        described = described.drop("semantic_id")
    described = described.with_columns(
        pl.col(pl.String).exclude("item_id").fill_null(""), pl.col(pl.List(pl.String)).fill_null([])
    )
    files = (folder,) if folder.is_file() else tuple(sorted({file for kind in FILES for file in folder.glob(kind)}))
    return RawData(events, described if described.width > 1 else None, folder.name, files)


__all__ = ["read_folder"]
