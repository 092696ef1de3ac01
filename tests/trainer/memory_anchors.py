"""Anchors of a few answers in memory, with the interface of `AnchorStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch


ADAPTIVE = {"reasoner": "feedback", "num_thoughts": 3, "adaptive_depth": True}
SEGMENTS = [0, 1, 2, 3, 5, 1, 2, 3]  # of the toy users; the model has 3 thoughts at most


class MemoryAnchors:
    """Anchors [S, D] by user and target."""

    def __init__(self, by_answer: Mapping[tuple[str, str], torch.Tensor], hidden_size: int):
        self.by_answer = dict(by_answer)
        self.hidden_size = hidden_size

    @classmethod
    def draw(cls, answers: Sequence[tuple[str, str]], num_segments: Sequence[int], hidden_size: int) -> MemoryAnchors:
        """Random ones, always the same; answers with 0 segments have none."""
        generator = torch.Generator().manual_seed(0)
        drawn = {
            answer: torch.randn(count, hidden_size, generator=generator)
            for answer, count in zip(answers, num_segments, strict=True)
        }
        return cls({answer: anchors for answer, anchors in drawn.items() if len(anchors)}, hidden_size)

    def num_segments(self, user_ids: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        return np.array([len(self.by_answer.get(answer, ())) for answer in zip(user_ids, targets, strict=True)])

    def lookup(self, user_ids: Sequence[str], targets: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        num_segments = self.num_segments(user_ids, targets)
        anchors = torch.zeros(len(num_segments), max(1, num_segments.max()), self.hidden_size)
        for row, answer in enumerate(zip(user_ids, targets, strict=True)):
            if num_segments[row]:
                anchors[row, : num_segments[row]] = self.by_answer[answer]
        return anchors, torch.from_numpy(num_segments)
