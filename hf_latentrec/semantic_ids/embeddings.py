"""Texts -> embeddings by any sentence-transformers model, cached on disk and shared out to several processes.

Shapes: I texts, N texts of a chunk, D numbers of an embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from .embedding_cache import EmbeddingCache, text_keys
from .embedding_model import ModelSource


if TYPE_CHECKING:
    from accelerate import PartialState


CHUNK_SIZE = 256  # texts that are embedded between two writes


def embed_texts(
    texts: Sequence[str],
    model_name_or_path: str | Path,
    cache_dir: str | Path,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    revision: str | None = None,
    normalize: bool = True,
    dtype: str = "float32",
) -> np.ndarray:
    """
    Embeddings of texts by a sentence-transformers model.

    Only texts that are not in the cache are embedded, equal ones once, long ones first so that a batch has little
    padding. They are written in chunks: a killed run goes on where it stopped. Under `accelerate launch` every process
    calls this with the same texts and embeds its share; all need to see the same `cache_dir`.

    Args:
        texts (`Sequence[str]`): texts, such as those of [`item_texts`].
        model_name_or_path (`str` or `Path`): id on the hub, or a folder. Weights need to be safetensors.
        cache_dir (`str` or `Path`): where embeddings are kept, each model (and revision, or change of its files) and
            each setting below apart. One job at a time.
        batch_size (`int`, *optional*, defaults to 64): texts per pass.
        max_length (`int`, *optional*): tokens of a text that are read; as many as the model reads if not given.
        revision (`str`, *optional*): branch, tag or commit of a model on the hub.
        normalize (`bool`, *optional*, defaults to `True`): scales embeddings to length 1.
        dtype (`str`, *optional*, defaults to `"float32"`): in which the model computes; embeddings are float32.

    Returns:
        `np.ndarray` [I, D], float32, in the order of the texts: a read-only memory map of a file in `cache_dir`. The
        same on every process.

    Raises:
        ImportError: sentence-transformers is not installed.
        ValueError: there are no texts, an embedding is not finite, the model or a setting does not work, or a file of
            the cache is of another model.
    """
    from accelerate.utils import broadcast_object_list

    _check(texts, batch_size, max_length)
    state, keys_I = _processes(), text_keys(texts)
    (source,) = broadcast_object_list(
        [ModelSource.find(str(model_name_or_path), revision) if state.is_main_process else None]
    )
    settings = {"max_length": str(max_length), "normalize": str(normalize), "dtype": dtype}
    cache = EmbeddingCache(Path(cache_dir), {"model": source.revision, **settings}, source.name)
    # The main process alone looks: what the others would see depends on who has written already.
    (rows,) = broadcast_object_list([_to_embed(texts, keys_I, cache) if state.is_main_process else None])
    size = max(CHUNK_SIZE // batch_size, 1) * batch_size
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    # Neighbouring chunks hold texts of about the same length, so dealing them out in turn shares the work evenly.
    mine = chunks[state.process_index :: state.num_processes]
    if mine:
        model = source.load(max_length, dtype, str(state.device))

        def encode(chunk: list[str]) -> np.ndarray:
            return model.encode(chunk, batch_size=batch_size, normalize_embeddings=normalize, show_progress_bar=False)

        _embed(texts, keys_I, mine, encode, cache, f"{source.path} in {dtype}", state.is_main_process)
    state.wait_for_everyone()
    if state.is_main_process and cache.open(keys_I) is None:
        cache.assemble(keys_I)
    state.wait_for_everyone()
    embeddings_ID = cache.open(keys_I)
    if embeddings_ID is None:
        raise ValueError(
            f"process {state.process_index} does not see what the main process wrote into {cache.folder}; pass a "
            "cache_dir on a file system that all processes share"
        )
    return embeddings_ID


def _check(texts: Sequence[str], batch_size: int, max_length: int | None) -> None:
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"embed_texts: expected a list with at least one text, found {texts!r}")
    wrong = next(((row, text) for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"embed_texts: text {wrong[0]} is {wrong[1]!r}; pass text, such as item_texts returns")
    if batch_size < 1 or (max_length is not None and max_length < 1):
        raise ValueError(f"embed_texts: batch_size={batch_size}, max_length={max_length}; pass positive numbers")


def _processes() -> PartialState:
    """All that were started together; several that take themselves to be alone would write the same files at once."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state, started = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")), os.environ.get("WORLD_SIZE", "1")
    if str(state.num_processes) != started:
        raise ValueError(
            f"embed_texts: {started} processes were started, but accelerate sees {state.num_processes}; on CPUs set "
            "ACCELERATE_USE_CPU=true, or make PartialState(cpu=True) first"
        )
    return state


def _to_embed(texts: Sequence[str], keys_I: np.ndarray, cache: EmbeddingCache) -> np.ndarray:
    """Rows of texts to embed, the longest first: a batch that is too big for the memory fails at once."""
    if cache.open(keys_I) is not None:
        return np.zeros(0, dtype=np.int64)
    rows = cache.missing(keys_I)
    lengths = np.array([len(texts[row]) for row in rows], dtype=np.int64)
    return rows[np.argsort(-lengths, kind="stable")]


def _embed(
    texts: Sequence[str],
    keys_I: np.ndarray,
    chunks: list[np.ndarray],
    encode: Callable[[list[str]], np.ndarray],
    cache: EmbeddingCache,
    model: str,
    show_progress: bool,
) -> None:
    with tqdm(total=sum(map(len, chunks)), desc="Embedding", unit="text", disable=not show_progress) as bar:
        for rows_N in chunks:
            embeddings_ND = encode([texts[row] for row in rows_N])
            finite_N = np.isfinite(embeddings_ND).all(axis=1)
            if finite_N.any():
                cache.add(keys_I[rows_N[finite_N]], embeddings_ND[finite_N])
            if not finite_N.all():
                wrong = rows_N[finite_N.argmin()]
                raise ValueError(
                    f"embed_texts: {(~finite_N).sum()} of {len(rows_N)} texts have embeddings by {model} that are not "
                    f"finite, first text {wrong} {texts[wrong][:80]!r}; use another model or, if it was not, "
                    'dtype="float32"'
                )
            bar.update(len(rows_N))


__all__ = ["embed_texts"]
