"""Teacher text -> segments: one per thought. Sentences, or sentences joined while their embeddings stay close."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ..data.schema import to_dataset, to_polars
from .sentences import split_sentences


if TYPE_CHECKING:
    from datasets import Dataset


logger = logging.getLogger(__name__)

SENTENCE_ENCODER = "BAAI/bge-small-en-v1.5"
Encoder = Callable[[Sequence[str]], np.ndarray]


def load_sentence_encoder(model: str = SENTENCE_ENCODER, batch_size: int = 256, device: str | None = None) -> Encoder:
    """
    A sentence-transformers model as the function that [`segment_cot`] takes.

    Args:
        model (`str`, *optional*, defaults to `"BAAI/bge-small-en-v1.5"`): hub id or folder.
        batch_size (`int`, *optional*, defaults to 256): sentences per batch.
        device (`str`, *optional*): where it runs; its own choice if not given.

    Returns:
        `Callable`: texts -> `np.ndarray` [n, D].

    Raises:
        ImportError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            "segments by embeddings need sentence-transformers: pip install 'hf_latentrec[cot]', or cut by sentences, "
            "which needs no model"
        ) from error
    encoder = SentenceTransformer(model, device=device)
    return lambda texts: encoder.encode(list(texts), batch_size=batch_size, show_progress_bar=False)


def segment_cot(
    cot: Dataset,
    encoder: Encoder | None = None,
    *,
    max_segments: int = 8,
    min_similarity: float = 0.7,
    max_characters: int = 8192,
) -> Dataset:
    """
    Cuts teacher text into segments, at most one per thought (LASAR section 2.3).

    Without an encoder every sentence is a segment, and of too many, neighbours are joined evenly. With an encoder,
    neighbouring sentences are cut apart where the cosine similarity of their embeddings is below `min_similarity`;
    of too many cuts those with the lowest similarity stay.

    Args:
        cot (`datasets.Dataset`): `user_id, target, cot`, as from [`read_teacher_text`].
        encoder (`Callable`, *optional*): texts -> `np.ndarray` [n, D], such as [`load_sentence_encoder`] returns.
        max_segments (`int`, *optional*, defaults to 8): most segments of a text; the largest depth of a model.
        min_similarity (`float`, *optional*, defaults to 0.7): in [-1, 1]; for an encoder only. The scale is the
            encoder's: look at the segment counts that are logged.
        max_characters (`int`, *optional*, defaults to 8192): what a longer text holds beyond is left out (counted).

    Returns:
        `datasets.Dataset`: `user_id` (str), `target` (str or None) and `segments` (list[str]), one row per text, in
        their order.

    Raises:
        ValueError: an argument is out of range, a text is blank, or the embeddings do not fit the sentences.

    Example:
        >>> from datasets import Dataset
        >>> rows = {"user_id": ["u"], "target": ["i7"], "cot": ["Likes lamps. Has a desk. Wants a desk lamp."]}
        >>> segment_cot(Dataset.from_dict(rows))[0]["segments"]
        ['Likes lamps.', 'Has a desk.', 'Wants a desk lamp.']
        >>> segment_cot(Dataset.from_dict(rows), max_segments=2)[0]["segments"]
        ['Likes lamps.', 'Has a desk. Wants a desk lamp.']
    """
    if max_segments < 1 or max_characters < 1 or not -1 <= min_similarity <= 1:
        raise ValueError(
            f"segment_cot: max_segments={max_segments}, max_characters={max_characters}, "
            f"min_similarity={min_similarity}; needs at least 1, at least 1, and a cosine in [-1, 1]"
        )
    frame = to_polars(cot)
    texts = frame["cot"].to_list()
    too_long = sum(len(text) > max_characters for text in texts)
    if too_long:
        logger.warning("segment_cot: %d text(s) are longer than %d characters and were cut", too_long, max_characters)
    sentences = [split_sentences(text[:max_characters]) for text in texts]
    counts = np.array([len(row) for row in sentences], dtype=np.int64)
    if not counts.all():
        row = int(np.argmin(counts))
        raise ValueError(
            f"segment_cot: row {row}: the text of user {frame['user_id'][row]!r} holds no sentence "
            f"({(counts == 0).sum()} such row(s)); remove the rows"
        )
    flat = pl.Series("segments", [sentence for row in sentences for sentence in row], dtype=pl.String)
    if encoder is None:
        starts = _even_starts(counts, max_segments)
    else:
        starts = _similarity_starts(_neighbour_similarity(flat, encoder), counts, max_segments, min_similarity)
    segments = _join(flat, starts, counts)
    logger.info("segment_cot: texts by segments: %s", dict(segments.list.len().value_counts(sort=True).iter_rows()))
    return to_dataset(frame.select("user_id", "target").with_columns(segments))


def _even_starts(counts: np.ndarray, max_segments: int) -> np.ndarray:
    """Whether each sentence opens a segment [S]: of n sentences, the k-th segment opens at floor(k n / segments)."""
    num_segments = np.repeat(np.minimum(counts, max_segments), counts)
    place, n = _places(counts), np.repeat(counts, counts)
    # segment of sentence i: the largest k with floor(k n / m) <= i
    segment = ((place + 1) * num_segments - 1) // n
    before = (place * num_segments - 1) // n
    return segment != np.where(place == 0, -1, before)


def _similarity_starts(
    similarity: np.ndarray, counts: np.ndarray, max_segments: int, min_similarity: float
) -> np.ndarray:
    """Whether each sentence opens a segment [S], by its similarity to the one before it in its text [S]."""
    first = _places(counts) == 0
    text = np.repeat(np.arange(len(counts)), counts)
    wanted = first | (similarity < min_similarity)
    # In each text: its first sentence, then the cuts from the lowest similarity on.
    order = np.lexsort((np.where(first, -np.inf, similarity), ~wanted, text))
    rank = np.empty_like(order)
    rank[order] = _places(counts)
    return wanted & (rank < max_segments)


def _neighbour_similarity(sentences: pl.Series, encoder: Encoder) -> np.ndarray:
    """Cosine similarity of each sentence to the one before it [S]; the first has 1. Equal ones are encoded once."""
    unique = sentences.unique(maintain_order=True)
    embeddings = np.asarray(encoder(unique.to_list()), dtype=np.float32)
    if embeddings.ndim != 2 or len(embeddings) != len(unique) or not np.isfinite(embeddings).all():
        raise ValueError(
            f"segment_cot: the encoder returned {embeddings.shape} for {len(unique)} sentences, or numbers that are "
            "not finite; it must return one finite embedding per sentence [n, D]"
        )
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings /= np.maximum(norms, np.finfo(np.float32).tiny)
    rows = sentences.replace_strict(unique, np.arange(len(unique)), return_dtype=pl.Int64).to_numpy()
    similarity = np.ones(len(rows), dtype=np.float32)
    for start in range(1, len(rows), 65_536):  # never a copy of all embeddings
        part = slice(start, start + 65_536)
        before = slice(start - 1, start - 1 + len(rows[part]))
        similarity[part] = np.einsum("sd,sd->s", embeddings[rows[part]], embeddings[rows[before]])
    return similarity


def _join(sentences: pl.Series, starts: np.ndarray, counts: np.ndarray) -> pl.Series:
    """Sentences [S] -> a list of segments per text."""
    frame = pl.DataFrame({
        "segments": sentences,
        "segment": np.cumsum(starts),
        "text": np.repeat(np.arange(len(counts)), counts),
    })  # fmt: skip
    joined = frame.group_by("text", "segment", maintain_order=True).agg(pl.col("segments").str.join(" "))
    return joined.group_by("text", maintain_order=True).agg("segments")["segments"]


def _places(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... within each text [S]."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


__all__ = ["SENTENCE_ENCODER", "load_sentence_encoder", "segment_cot"]
