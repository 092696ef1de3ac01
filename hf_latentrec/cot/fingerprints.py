"""What anchors were made from: digests of a model, a tokenizer and a text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import polars as pl
import torch

from ..data.schema import to_polars


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def model_fingerprint(model: PreTrainedModel) -> str:
    """
    A sha256 (64 hex digits) over names, types, shapes and values of the backbone's weights (`model.model`).

    What anchors do not depend on has no part in it: the reasoner, the policy head and the output projection. A stage-2
    model that starts from a stage-1 model therefore has its fingerprint. The same weights in another type do not.

    Args:
        model (`PreTrainedModel`): a recommender, on any device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """
    A sha256 (64 hex digits) over a tokenizer's vocabulary, added tokens and rules; settings of single calls (padding,
    truncation) have no part in it.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): a tokenizer with a `tokenizers` backend.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def text_fingerprint(segments: Dataset) -> str:
    """
    A sha256 (64 hex digits) over segments and the examples that they are for, the same in any order of rows.

    Args:
        segments (`datasets.Dataset`): `user_id, target, segments`, as from [`segment_cot`].

    Example:
        >>> from datasets import Dataset
        >>> rows = {"user_id": ["u", "v"], "target": ["a", None], "segments": [["One."], ["Two.", "Three."]]}
        >>> segments = Dataset.from_dict(rows)
        >>> text_fingerprint(segments) == text_fingerprint(segments.select([1, 0]))
        True
    """
    frame = to_polars(segments)
    parts = pl.col("segments").list.eval(_netstring(pl.element())).list.join("")
    rows = frame.select(pl.concat_str(_netstring(pl.col("user_id")), _netstring(pl.col("target")), parts))
    digest = hashlib.sha256(f"{frame.height}\n".encode())
    digest.update("\n".join(rows.to_series().sort()).encode())
    return digest.hexdigest()


def _netstring(text: pl.Expr) -> pl.Expr:
    """`12:...`: with its length before it, no text can run into the next one; `-` for none."""
    text = text.cast(pl.String)  # a column of nothing but None has no type
    return pl.concat_str(text.str.len_bytes().cast(pl.String), pl.lit(":"), text).fill_null("-")


__all__ = ["model_fingerprint", "text_fingerprint", "tokenizer_fingerprint"]
