"""The one schema of the library: interactions and items as two `datasets.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from datasets import Dataset, Features


@dataclass(frozen=True)
class RecData:
    """
    Interactions and the items that they name.

    Args:
        interactions (`datasets.Dataset`):
            One row per event: `user_id` (str), `item_id` (str), `position` (int64, 0-based within the user), where
            known `timestamp` (float64, in the unit of the source) and, where published, `split` (`"train"`, `"valid"`
            or `"test"`: the split in which the event is a target). More columns may follow.
        items (`datasets.Dataset`):
            One row per item, in catalog order: `item_id` (str), where known `title` (str) and `semantic_id`
            (list[str], the code sequence). More columns may follow.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_latentrec.data import RecData, validate
    >>> interactions = Dataset.from_dict({"user_id": ["u", "u"], "item_id": ["a", "b"], "position": [0, 1]})
    >>> data = validate(RecData(interactions, items=Dataset.from_dict({"item_id": ["a", "b"]})))
    >>> data.num_users, data.num_items, data.num_interactions
    (1, 2, 2)

    ```
    """

    interactions: Dataset
    items: Dataset

    @property
    def num_users(self) -> int:
        return to_polars(self.interactions)["user_id"].n_unique()

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_interactions(self) -> int:
        return len(self.interactions)


def to_polars(dataset: Dataset) -> pl.DataFrame:
    """Rows of a `datasets.Dataset` in their present order, as a polars frame."""
    return dataset.with_format(None).to_polars()


def to_dataset(frame: pl.DataFrame) -> Dataset:
    """A polars frame as a `datasets.Dataset`, with `string` and `List` where arrow would have the large types."""
    schema = pa.schema([(field.name, _small(field.type)) for field in frame.head(0).to_arrow().schema])
    return Dataset.from_polars(frame, features=Features.from_arrow_schema(schema))


def _small(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(dtype):
        return pa.list_(_small(dtype.value_type))
    return pa.string() if pa.types.is_large_string(dtype) else dtype


def in_user_order(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """
    Sort events by user (in the order of their first rows), then by the columns `by`; ties keep their order.
    `position` is counted anew from 0.
    """
    first_row = pl.col("_row").min().over("user_id").alias("_user")
    frame = frame.with_row_index("_row").with_columns(first_row).sort("_user", *by, maintain_order=True)
    position = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("position")
    frame = frame.drop("_row", "_user").with_columns(position)
    known = [name for name in ("user_id", "item_id", "position", "timestamp", "split") if name in frame.columns]
    return frame.select(*known, pl.exclude(known))


__all__ = ["RecData", "in_user_order", "to_dataset", "to_polars"]
