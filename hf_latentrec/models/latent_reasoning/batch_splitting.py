"""Batches that do not fit into memory: run in parts, and put together again.

Shapes: B prompts, R returned answers, T answer, N thoughts, D hidden.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from transformers.utils import logging

from .modeling_outputs import LatentRecGenerateOutput


logger = logging.get_logger(__name__)
Part = TypeVar("Part")
PADDING = -100
# What the allocator of the CPU says; those of accelerators raise torch.OutOfMemoryError.
_CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "can't allocate memory")
_warned = False


def run_in_parts(run: Callable[[slice], Part], batch_size: int) -> list[Part]:
    """
    Runs a batch; where it does not fit into memory, its first half, and so on until it fits, and all that is left in
    parts of that size. Warns once per process.

    Args:
        run: takes the rows to run, returns their result.
        batch_size (`int`): B.

    Returns:
        `list`: the results in the order of the batch.

    Raises:
        torch.OutOfMemoryError: one row does not fit.
    """
    parts, start, size = [], 0, batch_size
    while start < batch_size:
        rows = slice(start, min(start + size, batch_size))
        part, problem = _try_to_run(run, rows)
        if problem is None:
            parts.append(part)
            start = rows.stop
            continue
        num_rows = rows.stop - rows.start
        if num_rows == 1:
            raise torch.OutOfMemoryError(
                f"generate: not even one prompt fits into memory ({problem}); pass fewer num_beams, or shorter "
                "prompts (max_history of the processor)"
            )
        size = (num_rows + 1) // 2
        # The failed run's tensors are gone with its traceback; what a cycle still holds, and the allocator's own:
        gc.collect()
        torch.cuda.empty_cache()
    if size < batch_size:
        _warn_once(
            f"A batch of {batch_size} prompts did not fit into memory; it ran in parts of {size}. Pass batches of "
            f"{size}, fewer num_beams or shorter prompts to save the failed attempts."
        )
    return parts


def merge_outputs(parts: list[LatentRecGenerateOutput]) -> LatentRecGenerateOutput:
    """
    What the whole batch would have returned.

    Args:
        parts (`list[LatentRecGenerateOutput]`): of consecutive prompts; `sub_catalog` is left to the caller.

    Returns:
        `LatentRecGenerateOutput`: narrower sequences are padded with -100, and shorter thoughts with 0, on the right.
    """
    if len(parts) == 1:
        return parts[0]
    num_users = [part.num_users for part in parts]
    first_users = [sum(num_users[:index]) for index in range(len(parts))]
    return LatentRecGenerateOutput(
        sequences=_cat([part.sequences for part in parts], PADDING),
        sequences_scores=torch.cat([part.sequences_scores for part in parts]),
        item_nodes=torch.cat([part.item_nodes for part in parts]),
        user_indices=torch.cat([part.user_indices + user for part, user in zip(parts, first_users, strict=True)]),
        num_users=sum(num_users),
        catalog_fingerprint=parts[0].catalog_fingerprint,
        thoughts=_cat([part.thoughts for part in parts], 0.0),
        num_thoughts=torch.cat([part.num_thoughts for part in parts]),
        depth_logits=None if parts[0].depth_logits is None else torch.cat([part.depth_logits for part in parts]),
    )


def _try_to_run(run: Callable[[slice], Part], rows: slice) -> tuple[Part | None, str | None]:
    """The result, or why it did not fit. The exception ends here, and with it the tensors of its frames."""
    try:
        return run(rows), None
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        problem = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in problem for text in _CPU_OUT_OF_MEMORY):
            raise
        return None, problem


def _cat(tensors: list[torch.Tensor], padding: float) -> torch.Tensor:
    """Concatenates along the first dimension; the second is padded to the longest."""
    width = max(tensor.shape[1] for tensor in tensors)
    padded = []
    for tensor in tensors:
        missing = tensor.new_full((len(tensor), width - tensor.shape[1], *tensor.shape[2:]), padding)
        padded.append(torch.cat([tensor, missing], dim=1))
    return torch.cat(padded)


def _warn_once(message: str) -> None:
    """Not `warning_once`, which goes by the text: this one names a size that may differ from batch to batch."""
    global _warned
    if not _warned:
        _warned = True
        logger.warning(message)


__all__ = ["merge_outputs", "run_in_parts"]
