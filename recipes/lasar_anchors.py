"""From the teacher's text to the anchors of stage 1, for train_lasar.py."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lasar_stages import ANCHORS


if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from hf_latentrec.cot import AnchorStore


def teacher_text(cot_file: str | None, examples: Dataset, items: Dataset, say: Callable[[str], None]) -> Dataset:
    """
    The text `user_id, target, cot` of examples: of the user's file, or written from the items by templates.

    Args:
        cot_file (`str`, *optional*): JSON lines.
        examples (`datasets.Dataset`): `user_id, history, target`.
        items (`datasets.Dataset`): the catalog's metadata.
        say (`Callable`): prints one line on what the text is.
    """
    from hf_latentrec.cot import match_examples, read_teacher_text, write_template_text

    if cot_file is None:
        text = write_template_text(examples, items)
        say("Teacher: TEMPLATES, filled in from the items; no language model wrote this text (--cot_file for one)")
    else:
        text = read_teacher_text(cot_file)
        say(f"Teacher: {cot_file}, {len(text):,} texts")
    counts = match_examples(text, examples)
    say("Teacher's text: " + ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items()))
    return text


def with_text(examples: Dataset, text: Dataset, max_missing_cot: float, split: str) -> Dataset:
    """
    Examples with their text in a column `cot`; those without any are left out.

    Args:
        examples (`datasets.Dataset`): `user_id, history, target`.
        text (`datasets.Dataset`): `user_id, target, cot`; without a target it serves what has no text of its own.
        max_missing_cot (`float`): the share of examples that may be without.
        split (`str`): what errors call the examples.
    """
    import polars as pl

    from hf_latentrec.data.schema import to_dataset, to_polars

    columns = ["user_id", "target", "cot"]
    known = to_polars(text).select(columns)
    general = known.filter(pl.col("target").is_null()).select("user_id", pl.col("cot").alias("general"))
    rows = to_polars(examples).join(known, on=["user_id", "target"], how="left", maintain_order="left")
    rows = rows.join(general, on="user_id", how="left", maintain_order="left")
    rows = rows.with_columns(pl.coalesce("cot", "general").alias("cot")).drop("general")
    found = rows.filter(pl.col("cot").is_not_null())
    missing = len(rows) - len(found)
    if missing > max_missing_cot * len(rows):
        first = rows.filter(pl.col("cot").is_null()).row(0, named=True)
        raise ValueError(
            f"{missing:,} of {len(rows):,} {split} examples have no text (first: user_id {first['user_id']!r}, target "
            f"{first['target']!r}), more than max_missing_cot {max_missing_cot:g}; give text for them in --cot_file, "
            "or a larger --max_missing_cot"
        )
    return to_dataset(found)


def open_anchors(
    folder: Path,
    text: Dataset,
    segmenter: str,
    max_segments: int,
    rebuild: bool,
    device: torch.device,
    say: Callable[[str], None],
) -> AnchorStore:
    """
    The anchors of a run's stage 1, made where there are none yet. Those of another stage 1, text or setting are an
    error.

    Args:
        folder (`Path`): of the whole run.
        text (`datasets.Dataset`): `user_id, target, cot`.
        segmenter (`str`): `"sentences"`, or a model of sentence embeddings.
        max_segments (`int`): most segments of a text, N_max.
        rebuild (`bool`): make them anew in any case.
        device (`torch.device`): where the model computes them.
        say (`Callable`): prints one line.
    """
    from accelerate import PartialState
    from transformers import AutoModel, AutoProcessor

    from hf_latentrec.cot import AnchorStore, build_anchors, load_sentence_encoder, segment_cot

    anchors, state = folder / ANCHORS, PartialState()
    if state.is_main_process:
        if rebuild and anchors.exists():
            shutil.rmtree(anchors)
        encoder = None if segmenter == "sentences" else load_sentence_encoder(segmenter, device=str(device))
        segments = segment_cot(text, encoder, max_segments=max_segments)
        say(f"Segments: {describe_counts(segments)}, cut by {segmenter}; their anchors, by stage 1, are in {anchors}")
        model = AutoModel.from_pretrained(folder / "stage1").to(device)
        tokenizer = AutoProcessor.from_pretrained(folder / "stage1").tokenizer
        try:
            build_anchors(model, tokenizer, segments, anchors, show_progress=True)
        except ValueError as error:
            raise ValueError(f"{error} (--rebuild_anchors true does both)") from error
    state.wait_for_everyone()
    return AnchorStore.open(anchors)


def describe_counts(segments: Dataset) -> str:
    """How many texts have how many segments: `"120 x 3, 40 x 4"`."""
    counts = Counter(map(len, segments["segments"]))
    return ", ".join(f"{counts[number]:,} texts x {number}" for number in sorted(counts))
