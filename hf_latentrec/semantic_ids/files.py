"""The files of semantic IDs: written whole or not at all, read with errors that name them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..data.files import read_json


ARRAYS_FILE = "semantic_ids.safetensors"
INDEX_FILE = "semantic_ids.index.json"
JSON_FILE = "semantic_ids.json"
_ARRAYS = ("codebooks", "codes", "raw_codes")
_FACTS = ("policy", "balanced", "seed", "embedding_model", "text_fields", "versions", "item_ids")


def write_together(folder: Path, contents: dict[str, bytes]) -> None:
    """Files that belong together: all are written beside their places first, and then moved there."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {name: folder / f"{name}.unfinished" for name in contents}
    for name, path in unfinished.items():
        path.write_bytes(contents[name])
    for name, path in unfinished.items():
        os.replace(path, folder / name)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of semantic IDs."""
    _check_is_there(path)
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: truncated, or no safetensors file ({error}); fetch it again, or build the semantic IDs again"
        ) from error
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise ValueError(f"{path}: no {missing[0]!r} in it, only {sorted(arrays)}; build the semantic IDs again")
    return arrays


def read_json_file(path: Path, version: int) -> dict:
    """`semantic_ids.json`, of the one version that is read."""
    _check_is_there(path)
    facts = read_json(path)
    if facts.get("format") != version or any(name not in facts for name in _FACTS):
        raise ValueError(
            f"{path}: not the file of semantic IDs that is read here (format {version}, with {', '.join(_FACTS)}); it "
            f"has format {facts.get('format')} with {', '.join(facts)}; build the semantic IDs again"
        )
    return facts


def read_index(path: Path) -> dict[str, list[str]]:
    """Item -> tokens."""
    _check_is_there(path)
    return read_json(path)


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; semantic IDs are {JSON_FILE}, {ARRAYS_FILE} and {INDEX_FILE} in one folder, as "
            "recipes/build_semantic_ids.py writes them"
        )


__all__ = [
    "ARRAYS_FILE",
    "INDEX_FILE",
    "JSON_FILE",
    "read_arrays",
    "read_index",
    "read_json_file",
    "write_together",
]
