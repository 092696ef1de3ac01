"""Data sets of the Hugging Face Hub, and local folders that `datasets` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from datasets import Dataset, Features, Value, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from .column_mapping import resolve_columns, select_interactions, select_items
from .item_table import distinct_items
from .raw_data import RawData


def read_hub(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    work_dir: str | Path,
    config: str | None = None,
    split: str = "train",
    item_config: str | None = None,
    item_split: str = "train",
    columns: Mapping[str, str] | None = None,
    item_columns: Mapping[str, str] | None = None,
    time_unit: str = "s",
    on_conflict: str = "error",
) -> RawData:
    """
    Read interactions and items through [`~datasets.load_dataset`].

    `datasets` keeps what it fetches in its own cache. From there the columns that are needed are written once, in
    batches, as parquet below `work_dir`, and scanned lazily. CSV files are read as text, so that ids stay as they
    stand (`"007"`).

    Args:
        interactions (`str` or `Path`):
            Name on the hub (`"org/name"`), or a local folder with parquet, JSON lines or CSV files.
        items (`str` or `Path`, *optional*):
            The same for the items. It may be the same data set with another config or split.
        work_dir (`str` or `Path`):
            Folder for the parquet files.
        config (`str`, *optional*):
            Config (subset) of the interactions, where there are several.
        split (`str`, *optional*, defaults to `"train"`):
            Split of the interactions; `"train+test"` joins two.
        item_config (`str`, *optional*):
            Config of the items.
        item_split (`str`, *optional*, defaults to `"train"`):
            Split of the items.
        columns (`Mapping[str, str]`, *optional*):
            Our name -> the data set's for the interactions, see [`select_interactions`].
        item_columns (`Mapping[str, str]`, *optional*):
            The same for the items, see [`select_items`].
        time_unit (`str`, *optional*, defaults to `"s"`):
            `"s"`, `"ms"`, `"us"`, `"ns"`, or `"text"` for written times and columns of dates.
        on_conflict (`str`, *optional*, defaults to `"error"`):
            For item rows with one id and different text, see [`distinct_items`].

    Returns:
        [`RawData`]: named after the data set; `files` are the parquet files below `work_dir`.

    Raises:
        `ValueError`: The data set, its config or its split cannot be loaded, or see [`select_interactions`],
            [`select_items`], [`distinct_items`].
    """
    dataset, name = _load(interactions, config, split)
    needed = resolve_columns(columns, dataset.column_names, name)
    dataset = dataset.select_columns(list(dict.fromkeys(needed.values())))
    files = [_stage(dataset, Path(work_dir) / "hub_interactions.parquet")]
    events = select_interactions(pl.scan_parquet(files[0]), name, columns, time_unit)
    described, dropped = None, {}
    if items is not None:
        dataset, items_name = _load(items, item_config, item_split)
        files.append(_stage(dataset, Path(work_dir) / "hub_items.parquet"))
        described = select_items(pl.scan_parquet(files[1]), items_name, item_columns)
        described, dropped = distinct_items(described, items_name, on_conflict)
    return RawData(events, described, name, tuple(files), dropped)


def _load(path: str | Path, config: str | None, split: str) -> tuple[Dataset, str]:
    """The data set and what errors call it."""
    name = Path(path).name if Path(path).is_dir() else str(path)
    name = " ".join([name, *([config] if config else []), split])
    try:
        builder = load_dataset_builder(str(path), config)
        options = {}
        if builder.name == "csv":  # pandas would read "007" as 7 and the id "NA" as nothing
            first_split = next(iter(builder.as_streaming_dataset().values()))
            text = Features({column: Value("string") for column in next(iter(first_split))})
            options = {"features": text, "keep_default_na": False}
        dataset = load_dataset(str(path), config, split=split, **options)
    except (OSError, ValueError, DatasetGenerationError, StopIteration) as error:
        found = " ".join(f"{error or 'no rows'}: {error.__cause__ or ''}".split())[:400]
        raise ValueError(
            f"{name}: not loaded by `datasets` ({found}); check the name, the config and the split, and that the "
            "files are whole"
        ) from error
    if len(dataset) == 0:
        raise ValueError(f"{name}: no rows; check the config and the split")
    return dataset, name


def _stage(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_parquet(path)
    return path


__all__ = ["read_hub"]
