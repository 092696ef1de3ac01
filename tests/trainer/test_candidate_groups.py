"""Groups of candidates: repaired, and how much they differ, against slow loops."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.trainer.candidate_groups import candidate_diversity, repair_groups


NONE = [-100, -100]


def test_repair_takes_the_worst_candidate_that_exists():
    candidates = torch.tensor(
        [
            [[1, 1], [1, 2], [1, 3]],  # lacks the target: the last gives way
            [[1, 1], [1, 2], NONE],  # the last that exists
            [[9, 9], [1, 2], [1, 3]],  # has it first
            [[1, 1], [9, 9], NONE],  # has it last
            [NONE, NONE, NONE],
        ]
    )
    before = candidates.clone()
    repaired = repair_groups(candidates, torch.tensor([[9, 9]] * 5))
    assert repaired.repaired.tolist() == [True, True, False, False, True]
    assert repaired.candidates[0].tolist() == [[1, 1], [1, 2], [9, 9]]
    assert repaired.candidates[1].tolist() == [[1, 1], [9, 9], NONE]
    assert torch.equal(repaired.candidates[2:4], before[2:4])
    assert repaired.candidates[4].tolist() == [[9, 9], NONE, NONE]
    assert torch.equal(candidates, before)


def test_diversity_equals_the_loop():
    candidates = torch.randint(1, 4, (5, 4, 3))
    candidates[:, :, 2] = torch.where(torch.rand(5, 4) < 0.5, candidates[:, :, 2], -100)  # answers of 2 or 3 tokens
    candidates[1, 3] = candidates[2, 1:] = candidates[3] = -100
    for diversity, group in zip(candidate_diversity(candidates).tolist(), candidates.tolist(), strict=True):
        group = [[token for token in answer if token != -100] for answer in group]
        group = [answer for answer in group if answer]
        shares = []
        for i, first in enumerate(group):
            for second in group[i + 1 :]:
                length = max(len(first), len(second))
                same = sum(x == y for x, y in zip(first, second, strict=False))
                shares.append((length - same) / length)
        assert diversity == pytest.approx(sum(shares) / len(shares) if shares else 0.0, abs=1e-6)
