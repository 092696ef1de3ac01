"""Batches with the hidden states of reasoning texts beside them.

Shapes: B rows, G targets of a packed history, S segments of a text, D hidden, n answers of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    from .anchors import AnchorStore


class AnchoredCollator:
    """
    Adds to each answer of a batch the anchors of its reasoning text.

    Args:
        collator (`Callable`): makes the batch, as [`~hf_latentrec.data.NextItemCollator`] or
            [`~hf_latentrec.data.PackedHistoryCollator`].
        anchors (`AnchorStore`): of the training examples.

    Returns (when called with a list of examples):
        `dict`: what `collator` gives, and `anchors` [B, S, D] (float32, 0 beyond an answer's segments) with
        `num_segments` [B] (0: no text); of packed histories [B, G, S, D] and [B, G].

    Raises:
        ValueError: for examples that do not say whose they are, or anchors that are not finite.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], anchors: AnchorStore):
        self.collator = collator
        self.anchors = anchors

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(examples)
        user_ids, targets, is_packed = self._answers(examples)
        anchors_nSD, num_segments_n = self.anchors.lookup(user_ids, targets)
        self._check_finite(anchors_nSD, user_ids, targets)
        if not is_packed:
            return {**batch, "anchors": anchors_nSD, "num_segments": num_segments_n}
        num_targets = torch.tensor([len(example["targets"]) for example in examples])
        # Answers stand first in a row, row after row; the rest of a row is padding.
        is_answer_BG = torch.arange(int(num_targets.max())) < num_targets[:, None]
        anchors_BGSD = anchors_nSD.new_zeros(*is_answer_BG.shape, *anchors_nSD.shape[1:])
        num_segments_BG = num_segments_n.new_zeros(is_answer_BG.shape)
        anchors_BGSD[is_answer_BG] = anchors_nSD
        num_segments_BG[is_answer_BG] = num_segments_n
        return {**batch, "anchors": anchors_BGSD, "num_segments": num_segments_BG}

    def _answers(self, examples: list[dict[str, Any]]) -> tuple[list[str], list[str], bool]:
        """User and target of every answer, and whether a row holds several."""
        columns = examples[0].keys()
        if columns >= {"user_id", "items", "targets"}:
            answers = [
                (example["user_id"], example["items"][target]) for example in examples for target in example["targets"]
            ]
        elif columns >= {"user_id", "target"}:
            answers = [(example["user_id"], example["target"]) for example in examples]
        else:
            raise ValueError(
                f"AnchoredCollator: examples have the columns {', '.join(columns)}, which do not say whose reasoning "
                "belongs to them; pass user_id and target, or user_id, items and targets (packed)"
            )
        user_ids, targets = (list(column) for column in zip(*answers, strict=True))
        return user_ids, targets, "targets" in columns

    def _check_finite(self, anchors_nSD: torch.Tensor, user_ids: list[str], targets: list[str]) -> None:
        is_finite_nS = anchors_nSD.isfinite().all(-1)
        if not is_finite_nS.all():
            row, segment = (~is_finite_nS).nonzero()[0].tolist()
            raise ValueError(
                f"AnchoredCollator: the anchor of user {user_ids[row]!r}, target {targets[row]!r}, segment {segment} "
                "holds NaN or infinite values; build the anchors again, with a model whose hidden states are finite"
            )


__all__ = ["AnchoredCollator"]
