"""Examples to padded batches, in the call convention of the recommenders.

Shapes: B rows, L prompt, T answer, G targets of a packed history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch


if TYPE_CHECKING:
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor

IGNORE_INDEX = -100


def pad_rows(sequences: list[np.ndarray], value: int, side: str = "right") -> torch.Tensor:
    """Rows of different length as one LongTensor."""
    width = max(len(sequence) for sequence in sequences)
    padded = np.full((len(sequences), width), value, dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)] = sequence
    return torch.from_numpy(padded)


class NextItemCollator:
    """
    One example a row: `user_id, history, target` → left-padded prompts and the target's tokens as labels.

    Args:
        processor (`LatentRecProcessor`): tokenizes prompts and answers.

    Returns (when called with a list of examples):
        `dict`: `input_ids` and `attention_mask` [B, L], `labels` [B, T] with -100 for padding, `user_ids` (a list).
    """

    def __init__(self, processor: LatentRecProcessor):
        self.processor = processor

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        inputs = self.processor([example["history"] for example in examples], return_tensors="pt")
        targets = self.processor.catalog.rows([example["target"] for example in examples])
        return {
            **inputs,
            "labels": pad_rows(self.processor.answer_ids(targets), IGNORE_INDEX),
            "user_ids": [example["user_id"] for example in examples],
        }


class PackedHistoryCollator:
    """
    All targets of a history in one row: `user_id, items, targets` (see [`pack_examples`]) → the history's tokens
    once, and per target the index at which its branch starts.

    ```text
    items      A   B   C   D          targets 1, 2, 3
    input_ids  a a b b c c (d d)
    branch         ^   ^   ^          labels  b b | c c | d d
    ```

    Args:
        processor (`LatentRecProcessor`): its template must end with the history, so that the tokens before a target
            are the prompt of the shorter history.
        keep_answers (`bool`, *optional*, defaults to `True`): leave the last target in the prompt where the prompt's
            own states then score all answers (`labels_follow_prompt`). A model that thinks before it answers does not
            need it there.

    Returns (when called with a list of examples):
        `dict`: `input_ids`, `attention_mask` [B, L], `branch_starts` [B, G], `labels` [B, G, T],
        `labels_follow_prompt`, `user_ids`.

    Raises:
        ValueError: for a template with text after the history.
    """

    def __init__(self, processor: LatentRecProcessor, keep_answers: bool = True):
        if not processor.packable:
            raise ValueError(
                f"the prompt template {processor.prompt_template!r} has text after '{{history}}', so a history's "
                "prefix is not the prompt of the shorter history; train with one example per row "
                "(pack_histories=False), or use the compact template"
            )
        self.processor = processor
        self.labels_follow_prompt = keep_answers and processor.answers_follow_history

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        prompts, starts, answers = [], [], []
        for example in examples:
            rows = self.processor.catalog.rows(example["items"])
            ids, item_ends = self.processor.encode_history(rows)
            targets = np.asarray(example["targets"])
            starts.append(item_ends[targets - 1])
            prompts.append(ids if self.labels_follow_prompt else ids[: starts[-1].max()])
            answers.append(self.processor.answer_ids(rows[targets]))
        num_targets = max(len(row) for row in starts)
        nothing = np.empty(0, dtype=np.int64)
        flat_answers = [answer for row in answers for answer in [*row, *[nothing] * (num_targets - len(row))]]
        lengths = torch.tensor([len(ids) for ids in prompts])
        input_ids = pad_rows(prompts, self.processor.tokenizer.pad_token_id)
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "branch_starts": pad_rows(starts, 0),
            "labels": pad_rows(flat_answers, IGNORE_INDEX).view(len(examples), num_targets, -1),
            "labels_follow_prompt": self.labels_follow_prompt,
            "user_ids": [example["user_id"] for example in examples],
        }


__all__ = ["NextItemCollator", "PackedHistoryCollator", "pad_rows"]
