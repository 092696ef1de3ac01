"""Encodes the segments of the teacher's text into anchors, shard by shard, and goes on where a run was killed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from ..data.schema import to_polars
from ..models.modes import eval_mode
from .anchors import EXAMPLES_FILE, INDEX_FILE, VERSION, AnchorStore, check_fresh, read_index
from .fingerprints import model_fingerprint, text_fingerprint, tokenizer_fingerprint
from .segment_encoding import encode_with_codes, last_token_states


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


logger = logging.getLogger(__name__)


def build_anchors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    segments: Dataset,
    folder: str | Path,
    *,
    batch_size: int = 64,
    max_tokens: int = 512,
    shard_size: int = 65_536,
    dtype: torch.dtype = torch.float32,
    show_progress: bool = False,
) -> AnchorStore:
    """
    Anchors of segments: the last hidden state of the model, after its final norm, at the last token of each segment,
    encoded alone (LASAR section 2.3).

    Equal segments are encoded once. Complete anchors of the same model, tokenizer, text and settings are opened, not
    built again; of a run that was killed the finished shards are kept.

    Args:
        model (`PreTrainedModel`): the stage-1 recommender; it is put into eval mode meanwhile.
        tokenizer (`PreTrainedTokenizerFast`): its tokenizer; see [`encode_with_codes`] for how it reads text.
        segments (`datasets.Dataset`): `user_id, target, segments`, as from [`segment_cot`].
        folder (`str` or `Path`): where the anchors are written.
        batch_size (`int`, *optional*, defaults to 64): segments per pass.
        max_tokens (`int`, *optional*, defaults to 512): a longer segment keeps its first tokens (counted, logged and
            in the index as `num_cut`).
        shard_size (`int`, *optional*, defaults to 65536): segments per file.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): of the numbers on disk.
        show_progress (`bool`, *optional*, defaults to `False`): a progress bar over segments.

    Returns:
        [`AnchorStore`]

    Raises:
        ValueError: the folder holds anchors of another model, tokenizer, text or setting, two rows are for the same
            example, a row has no segment or a blank one, or a state is not finite in `dtype`.
    """
    folder = Path(folder)
    frame = to_polars(segments).select(pl.col("user_id", "target").cast(pl.String), "segments")
    _check(frame)
    origin = {
        "model_fingerprint": model_fingerprint(model),
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
        "text_fingerprint": text_fingerprint(segments),
        "max_tokens": max_tokens,
        "shard_size": shard_size,
        "dtype": str(dtype).removeprefix("torch."),
    }
    index = read_index(folder)
    if index is not None:
        check_fresh(index, origin, folder)
        return AnchorStore(folder, index)

    folder.mkdir(parents=True, exist_ok=True)
    flat = frame["segments"].list.explode(empty_as_null=False)
    texts = flat.unique().sort()  # in any order of the examples the same shards
    _write_examples(frame, texts, folder / EXAMPLES_FILE)
    parts = [texts[start : start + shard_size] for start in range(0, len(texts), shard_size)]
    shards = []
    progress = tqdm(total=len(texts), desc="anchors", unit="segment", disable=not show_progress)
    with eval_mode(model), progress as bar:
        for number, part in enumerate(parts):
            path = folder / f"anchors-{number:05}-of-{len(parts):05}.safetensors"
            num_cut = _finished_shard(path, origin)
            if num_cut is None:
                num_cut = _write_shard(model, tokenizer, part.to_list(), path, origin, batch_size, dtype, bar)
            else:
                bar.update(len(part))
            shards.append({"file": path.name, "rows": len(part), "num_cut": num_cut})
    num_cut = sum(shard["num_cut"] for shard in shards)
    if num_cut:
        logger.warning("build_anchors: %d segment(s) are longer than %d tokens and were cut", num_cut, max_tokens)
    sizes = {"hidden_size": model.config.hidden_size, "num_examples": frame.height, "num_segments": len(flat)}
    index = {"version": VERSION, **origin, **sizes, "num_anchors": len(texts), "num_cut": num_cut, "shards": shards}
    _write_whole(folder / INDEX_FILE, lambda path: path.write_text(json.dumps(index, indent=2), encoding="utf-8"))
    return AnchorStore(folder, index)


def _check(frame: pl.DataFrame) -> None:
    twice = frame.filter(pl.struct("user_id", "target").is_duplicated())
    if twice.height:
        user_id, target = twice.row(0)[:2]
        raise ValueError(
            f"build_anchors: user {user_id!r} with target {target!r} has several rows ({twice.height} such row(s)); "
            "keep one per example"
        )
    blank = pl.col("segments").list.eval(pl.element().fill_null("").str.strip_chars() == "").list.any()
    wrong = frame.with_row_index("row").filter(blank | (pl.col("segments").list.len().fill_null(0) == 0))
    if wrong.height or not frame.height:
        where = f"row {wrong['row'][0]} (user {wrong['user_id'][0]!r})" if wrong.height else "the table"
        raise ValueError(
            f"build_anchors: {where} has no segment, or a blank one ({wrong.height} such row(s)); remove what is empty"
        )


def _write_examples(frame: pl.DataFrame, texts: pl.Series, path: Path) -> None:
    """Writes which rows of all shards, taken together, are the segments of each example."""
    row_of = pl.DataFrame({"segments": texts}).with_row_index("rows")
    rows = (
        frame.select("user_id", "target", "segments")
        .with_row_index("example")
        .explode("segments")
        .join(row_of, on="segments", how="left", maintain_order="left")
        .group_by("example", maintain_order=True)
        .agg(pl.first("user_id", "target"), pl.col("rows").cast(pl.Int64))
        .drop("example")
    )
    _write_whole(path, rows.write_parquet)


def _finished_shard(path: Path, origin: dict[str, Any]) -> int | None:
    """How many segments of a finished shard were cut; None where it is not finished."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return None
    check_fresh(json.loads(metadata.get("origin", "{}")), origin, path.parent)
    return int(metadata["num_cut"])


def _write_shard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    path: Path,
    origin: dict[str, Any],
    batch_size: int,
    dtype: torch.dtype,
    bar: tqdm,
) -> int:
    """Encodes and writes one shard; returns how many of its segments were cut."""
    token_ids = encode_with_codes(tokenizer, texts)
    num_cut = sum(len(ids) > origin["max_tokens"] for ids in token_ids)
    token_ids = [ids[: origin["max_tokens"]] for ids in token_ids]
    anchors_SD = torch.empty(len(texts), model.config.hidden_size, dtype=dtype)
    for rows_B, states_BD in last_token_states(model, token_ids, batch_size):
        anchors_SD[torch.from_numpy(rows_B)] = states_BD.to(dtype)
        bar.update(len(rows_B))
    wrong = torch.nonzero(~anchors_SD.isfinite().all(dim=-1))
    if len(wrong):
        raise ValueError(
            f"build_anchors: the state after segment {texts[int(wrong[0])]!r} is not finite as {origin['dtype']} "
            f"({len(wrong)} of {len(texts)} segments of {path.name}); look at the model's weights, or pass "
            "dtype=torch.float32"
        )
    metadata = {"origin": json.dumps(origin), "num_cut": str(num_cut)}
    _write_whole(path, lambda unfinished: save_file({"anchors": anchors_SD}, unfinished, metadata))
    return num_cut


def _write_whole(path: Path, write) -> None:
    """Writes under another name first, so that a file of the right name is always whole."""
    unfinished = path.with_name(path.name + ".unfinished")
    write(unfinished)
    os.replace(unfinished, path)


__all__ = ["build_anchors"]
