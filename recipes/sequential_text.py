"""Embeddings of the items' text, for models that read it."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import torch
    from datasets import Dataset

TEXT_COLUMNS = ("title", "brand", "category", "categories", "description", "text")
WORDS = "words"
NUM_BUCKETS = 256


def item_texts(items: Dataset) -> list[str]:
    """All text of each item in one line; empty where it has none."""
    columns = [items[name][:] for name in TEXT_COLUMNS if name in items.column_names]
    texts = [" ".join(map(_flat, values)).strip() for values in zip(*columns, strict=True)]
    if not any(texts):
        raise ValueError(
            f"the items have no text (columns: {items.column_names}; text is read from {', '.join(TEXT_COLUMNS)}), "
            "but this model reads it; use data that has titles, or another --model"
        )
    return texts


def _flat(value: str | list[str] | None) -> str:
    return value if isinstance(value, str) else " ".join(filter(None, value or []))


def hashed_words(texts: list[str], num_buckets: int = NUM_BUCKETS) -> np.ndarray:
    """
    Words counted in buckets by their checksum, weighted by rarity (the logarithm of the share of texts that have
    them) and scaled to length 1; zeros where there is no word. A word counts once a text; half of all words count
    negative, so that those that share a bucket cancel out on average.

    Args:
        texts (`list[str]` of length I): of the items.
        num_buckets (`int`, *optional*, defaults to 256): E.

    Returns:
        `np.ndarray` [I, E], float32.
    """
    words = [sorted(set(re.findall(r"\w+", text.lower()))) for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(found) for found in words])
    vocabulary, word = np.unique([word for found in words for word in found], return_inverse=True)
    checksum = np.array([zlib.crc32(word.encode()) for word in vocabulary])
    rarity = np.log(len(texts) / np.bincount(word))
    weight = np.where(checksum & 1, rarity, -rarity)
    vectors = np.zeros((len(texts), num_buckets))
    np.add.at(vectors, (row, (checksum >> 1)[word] % num_buckets), weight[word])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length == 0, 1, length)).astype(np.float32)


def embed_item_text(items: Dataset, encoder: str = WORDS) -> torch.Tensor:
    """
    Args:
        items (`datasets.Dataset`): with text in some of the columns that `TEXT_COLUMNS` names.
        encoder (`str`, *optional*, defaults to `"words"`): [`hashed_words`], or a model of sentence embeddings by its
            hub id or folder.

    Returns:
        `torch.Tensor` [I, E], float32.
    """
    import torch

    texts = item_texts(items)
    if encoder == WORDS:
        return torch.from_numpy(hashed_words(texts))
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"text_encoder {encoder!r} is a model of sentence embeddings; install it with "
            "`pip install 'hf_latentrec[cot]'`, or pass --text_encoder words"
        ) from error
    return torch.from_numpy(SentenceTransformer(encoder).encode(texts, show_progress_bar=True)).float()


__all__ = ["WORDS", "embed_item_text"]
