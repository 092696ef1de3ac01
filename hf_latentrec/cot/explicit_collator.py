"""Batches for a model that is to write the teacher's text before its answer (see `explicit_cot.py` of the models).

Shapes: B prompts, L prompt, T text and answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.collators import IGNORE_INDEX, pad_rows
from ..models.latent_reasoning.tokenization import thought_token_ids


if TYPE_CHECKING:
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor


class ExplicitCoTCollator:
    """
    One example a row, whose answer starts with a text: `user_id, history, target, cot` → left-padded prompts, and as
    labels the tokens of the text, `<e>`, and the target.

    Args:
        processor (`LatentRecProcessor`): tokenizes prompts, texts and answers.
        max_cot_tokens (`int`): a text is cut there; `<e>` and the answer follow all the same.

    Returns (when called with a list of examples):
        `dict`: `input_ids` and `attention_mask` [B, L], `labels` [B, T] with -100 for padding, `user_ids` (a list).

    Raises:
        ValueError: for a tokenizer without the closing marker, or an example without text.
    """

    def __init__(self, processor: LatentRecProcessor, max_cot_tokens: int = 256):
        self.processor, self.max_cot_tokens = processor, max_cot_tokens
        self.end_token_id = thought_token_ids(processor.tokenizer)["end_thought_token_id"]
        if self.end_token_id is None:
            raise ValueError(
                "ExplicitCoTCollator: the tokenizer has no marker that closes a text; call add_item_tokens(tokenizer)"
            )

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        for example in examples:
            if not example["cot"]:
                raise ValueError(
                    f"ExplicitCoTCollator: user_id {example['user_id']!r}, target {example['target']!r}: there is no "
                    "text in the column 'cot'; leave the example out"
                )
        inputs = self.processor([example["history"] for example in examples], return_tensors="pt")
        targets = self.processor.catalog.rows([example["target"] for example in examples])
        texts = self.processor.tokenizer(
            [example["cot"] for example in examples], add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        labels = [
            np.concatenate([text[: self.max_cot_tokens], [self.end_token_id], answer]).astype(np.int64)
            for text, answer in zip(texts, self.processor.answer_ids(targets), strict=True)
        ]
        return {
            **inputs,
            "labels": pad_rows(labels, IGNORE_INDEX),
            "user_ids": [example["user_id"] for example in examples],
        }


__all__ = ["ExplicitCoTCollator"]
