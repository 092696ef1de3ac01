"""Embeddings from elsewhere: a file of vectors and the ids of their items.

Shapes: I items, N rows of the file, D numbers of an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ..data.files import id_text, read_text


BLOCK_ROWS = 65536


def load_embeddings(path: str | Path, item_ids: Sequence[str]) -> np.ndarray:
    """
    Your own embeddings of items, in the order of `item_ids`.

    Either `X.npy` [N, D] with the N item ids beside it in `X.ids.json`, a list; or `X.safetensors` with a tensor
    `embeddings` [N, D] and the list, as JSON, in its metadata under `item_ids`. Rows of other items are left out.

    Args:
        path (`str` or `Path`): the file with the vectors, of any float type.
        item_ids (`Sequence[str]`): the items that need one.

    Returns:
        `np.ndarray` [I, D], float32; memory-mapped where an `.npy` of float32 has exactly these items in this order.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or of another kind, ids and rows do not fit together, an item has no vector, or
            a number is not finite.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "own.npy", np.eye(2, dtype=np.float32))
        >>> _ = (folder / "own.ids.json").write_text('["a", "b"]')
        >>> load_embeddings(folder / "own.npy", ["b", "a"]).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the folder and the name")
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"{path}: embeddings are read from .npy and .safetensors; save them as one of these")
    embeddings_ND, ids_N = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
    if embeddings_ND.ndim != 2 or embeddings_ND.shape[1] == 0 or embeddings_ND.dtype.kind != "f":
        raise ValueError(
            f"{path}: holds {embeddings_ND.dtype} of shape {embeddings_ND.shape}; expected floats, one row per item"
        )
    rows = _rows_of(item_ids, ids_N, len(embeddings_ND), path)
    if not (embeddings_ND.dtype == np.float32 and np.array_equal(rows, np.arange(len(embeddings_ND)))):
        with np.errstate(over="ignore"):  # what becomes infinite is found below
            embeddings_ND = embeddings_ND[rows].astype(np.float32)
    for start in range(0, len(embeddings_ND), BLOCK_ROWS):
        finite = np.isfinite(embeddings_ND[start : start + BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise ValueError(
                f"{path}: the embedding of item {item_ids[row]!r} is not finite in float32; correct it or leave the "
                "item out"
            )
    return embeddings_ND


def _read_npy(path: Path) -> tuple[np.ndarray, list[str]]:
    ids = path.with_suffix(".ids.json")
    try:
        embeddings_ND = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}); fetch or write it again") from error
    return embeddings_ND, _parse_ids(read_text(ids), str(ids))


def _read_safetensors(path: Path) -> tuple[np.ndarray, list[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            found, metadata = sorted(file.keys()), file.metadata() or {}
            if "embeddings" in found and "item_ids" in metadata:
                return file.get_tensor("embeddings"), _parse_ids(metadata["item_ids"], f"{path}: item_ids")
    except (SafetensorError, TypeError) as error:  # TypeError: numpy has no such type
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); write it again, with float32 or float16"
        ) from error
    raise ValueError(
        f"{path}: holds the tensors {found} and the metadata {sorted(metadata)}; expected a tensor 'embeddings' and a "
        "JSON list of ids in the metadata under 'item_ids'"
    )


def _parse_ids(text: str, where: str) -> list[str]:
    try:
        ids = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error}); write the list of item ids again") from error
    if not isinstance(ids, list):
        raise ValueError(f"{where}: expected a list of item ids, found {str(ids)[:80]}")
    return [id_text(value, f"{where}, position {row}") for row, value in enumerate(ids)]


def _rows_of(item_ids: Sequence[str], ids_N: list[str], num_rows: int, path: Path) -> np.ndarray:
    """Rows [I] of the items in the file."""
    if len(ids_N) != num_rows:
        raise ValueError(f"{path}: has {num_rows} rows, but {len(ids_N)} item ids; write both from the same list")
    known = pl.DataFrame({"item_id": ids_N}, schema={"item_id": pl.String}).with_row_index("row")
    repeated = known.filter(pl.col("item_id").is_duplicated())
    if repeated.height:
        item_id = repeated["item_id"][0]
        rows = ", ".join(map(str, repeated.filter(pl.col("item_id") == item_id)["row"].head(2)))
        raise ValueError(f"{path}: item {item_id!r} appears more than once (rows {rows}); keep one row per item")
    wanted = pl.DataFrame({"item_id": list(item_ids)}, schema={"item_id": pl.String})
    rows = wanted.join(known, on="item_id", how="left", maintain_order="left")["row"]
    if rows.null_count():
        missing = wanted.filter(rows.is_null())["item_id"]
        raise ValueError(
            f"{path}: {len(missing)} of {len(wanted)} items have no embedding, first "
            f"{', '.join(map(repr, missing.head(3)))}; add them, or leave these items out"
        )
    return rows.to_numpy().astype(np.int64)


__all__ = ["load_embeddings"]
