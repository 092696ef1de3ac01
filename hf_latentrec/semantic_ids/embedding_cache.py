"""Embeddings of texts on disk: a folder per model and settings, written in chunks that are complete or not there.

Shapes: I texts, U distinct texts, N texts of a chunk, D numbers of an embedding.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np


logger = logging.getLogger(__name__)


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """The sha256 of each text, `np.ndarray` [I] of 32 bytes."""
    return np.array([hashlib.sha256(text.encode()).digest() for text in texts], dtype="S32")


class EmbeddingCache:
    """
    Embeddings by the sha256 of their text.

    A chunk is a safetensors file with `keys` [N, 32] and `embeddings` [N, D] float32. It gets its name when it is
    complete, so a killed run leaves whole chunks only. Embeddings in the order of a list of texts are one more file,
    `texts-*.npy`, which is memory-mapped. All of it can be deleted at any time. A damaged file is removed with a
    warning and made again; a whole file of another model is an error.

    Args:
        cache_dir (`Path`): for the folders of all models.
        identity (`Mapping[str, str]`): what the embeddings depend on besides the text, such as model and settings.
        name (`str`): a readable name for the folder.
    """

    def __init__(self, cache_dir: Path, identity: Mapping[str, str], name: str):
        self.identity = dict(identity)
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        self.folder = Path(cache_dir) / f"{re.sub(r'[^0-9A-Za-z.-]+', '_', name)[-60:]}-{digest[:16]}"

    def missing(self, keys_I: np.ndarray) -> np.ndarray:
        """Rows [U] (int64, ascending) of texts that have no embedding yet; of equal texts, the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        distinct_U, rows_U = np.unique(keys_I, return_index=True)
        known = [keys_N for _, keys_N in self._chunks()]
        return np.sort(rows_U[~np.isin(distinct_U, np.concatenate([keys_I[:0], *known]))])

    def add(self, keys_N: np.ndarray, embeddings_ND: np.ndarray) -> None:
        """Writes a chunk."""
        from safetensors.numpy import save_file

        path = self.folder / f"chunk-{hashlib.sha256(keys_N.tobytes()).hexdigest()[:16]}.safetensors"
        tensors = {
            "keys": np.frombuffer(keys_N.tobytes(), dtype=np.uint8).reshape(-1, 32),
            "embeddings": np.ascontiguousarray(embeddings_ND, dtype=np.float32),
        }
        save_file(tensors, f"{path}.tmp", metadata=self.identity)
        os.replace(f"{path}.tmp", path)

    def open(self, keys_I: np.ndarray) -> np.ndarray | None:
        """Embeddings [I, D] in the order of the texts, memory-mapped; `None` where they were not assembled yet."""
        path = self._in_order(keys_I)
        if not path.exists():
            return None
        try:
            embeddings_ID = np.load(path, mmap_mode="r", allow_pickle=False)
            if embeddings_ID.dtype == np.float32 and embeddings_ID.ndim == 2 and len(embeddings_ID) == len(keys_I):
                return embeddings_ID
            problem = f"{embeddings_ID.dtype} {embeddings_ID.shape}"
        except (ValueError, OSError, EOFError) as error:
            problem = str(error)
        self._remove(path, problem)
        return None

    def assemble(self, keys_I: np.ndarray) -> None:
        """Writes the embeddings in the order of the texts, chunk by chunk; every text needs to have one."""
        chunks = list(self._chunks())
        known, slots = np.unique(np.concatenate([keys_N for _, keys_N in chunks]), return_index=True)
        places_I = np.minimum(np.searchsorted(known, keys_I), len(known) - 1)
        if not np.array_equal(known[places_I], keys_I):
            raise ValueError(f"{self.folder}: embeddings vanished meanwhile; run it again, one job at a time")
        slots_I = slots[places_I]  # row in all chunks behind one another
        order = np.argsort(slots_I, kind="stable")
        path, result_ID, end = self._in_order(keys_I), None, 0
        for chunk, keys_N in chunks:
            start, end = end, end + len(keys_N)
            first, last = np.searchsorted(slots_I, [start, end], sorter=order)
            rows = order[first:last]
            if len(rows):
                embeddings_ND = _read(chunk, "embeddings")
                if result_ID is None:
                    shape = (len(keys_I), embeddings_ND.shape[1])
                    result_ID = np.lib.format.open_memmap(f"{path}.tmp", "w+", np.float32, shape)
                result_ID[rows] = embeddings_ND[slots_I[rows] - start]
        result_ID.flush()
        os.replace(f"{path}.tmp", path)

    def _chunks(self) -> Iterator[tuple[Path, np.ndarray]]:
        """The whole chunks and their keys [N]; a damaged one is removed."""
        for path in sorted(self.folder.glob("chunk-*.safetensors")):
            keys_N = self._read_keys(path)
            if keys_N is not None:
                yield path, keys_N

    def _in_order(self, keys_I: np.ndarray) -> Path:
        return self.folder / f"texts-{hashlib.sha256(keys_I.tobytes()).hexdigest()[:16]}.npy"

    def _read_keys(self, path: Path) -> np.ndarray | None:
        """Keys [N] of a chunk; `None` for a damaged one, which is removed."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                identity = file.metadata()
                keys_N = np.frombuffer(file.get_tensor("keys").tobytes(), dtype="S32")
                shape = file.get_slice("embeddings").get_shape()
        except (SafetensorError, OSError, ValueError) as error:
            return self._remove(path, str(error))
        if identity != self.identity:
            raise ValueError(
                f"{path}: holds embeddings of {identity}, expected {self.identity}; remove the file, or use a "
                "cache_dir of your own"
            )
        if len(shape) != 2 or shape[0] != len(keys_N):
            return self._remove(path, f"{len(keys_N)} keys and embeddings of shape {shape}")
        return keys_N

    def _remove(self, path: Path, problem: str) -> None:
        logger.warning(f"{path}: damaged ({problem}); it is removed, and what it held is made again")
        path.unlink()


def _read(path: Path, name: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.get_tensor(name)


__all__ = ["EmbeddingCache", "text_keys"]
