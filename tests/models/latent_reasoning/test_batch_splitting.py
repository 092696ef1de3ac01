"""Batches that do not fit: parts against the whole, what is released, and what is said."""

from __future__ import annotations

import weakref

import pytest
import torch

from hf_latentrec.models.latent_reasoning import batch_splitting
from hf_latentrec.models.latent_reasoning.batch_splitting import merge_outputs, run_in_parts
from hf_latentrec.models.latent_reasoning.modeling_outputs import LatentRecGenerateOutput


CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


class Memory:
    """Holds `limit` rows; counts attempts, and the tensors of failed runs that are still there at the next one."""

    def __init__(self, limit, error=torch.OutOfMemoryError):
        self.limit, self.error, self.attempts, self.failed = limit, error, [], []

    def run(self, rows: slice) -> list[int]:
        assert all(tensor() is None for tensor in self.failed)
        self.attempts.append(rows.stop - rows.start)
        activations = torch.zeros(rows.stop - rows.start)
        if len(activations) > self.limit:
            self.failed.append(weakref.ref(activations))
            raise self.error(CPU_MESSAGE)
        return list(range(rows.start, rows.stop))


@pytest.fixture(autouse=True)
def not_warned_yet(monkeypatch):
    monkeypatch.setattr(batch_splitting, "_warned", False)


@pytest.fixture
def warnings(monkeypatch):
    """What is logged as a warning."""
    messages = []
    monkeypatch.setattr(batch_splitting.logger, "warning", messages.append)
    return messages


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize(
    "batch_size, limit, attempts",
    [(8, 8, [8]), (8, 3, [8, 4, 2, 2, 2, 2]), (7, 4, [7, 4, 3]), (5, 1, [5, 3, 2, 1, 1, 1, 1, 1]), (1, 1, [1])],
)
def test_halves_until_it_fits(warnings, error, batch_size, limit, attempts):
    memory = Memory(limit, error)
    parts = run_in_parts(memory.run, batch_size)
    assert sum(parts, []) == list(range(batch_size))
    assert memory.attempts == attempts
    assert len(warnings) == (len(attempts) > 1)


def test_one_warning_per_process_names_the_size_that_worked(warnings):
    run_in_parts(Memory(3).run, 8)
    run_in_parts(Memory(1).run, 6)
    assert len(warnings) == 1
    assert "batch of 8 prompts did not fit into memory; it ran in parts of 2." in warnings[0]


def test_one_prompt_that_does_not_fit_is_an_error(warnings):
    memory = Memory(0)
    with pytest.raises(torch.OutOfMemoryError, match=r"not even one .*DefaultCPUAllocator.*num_beams.*max_history"):
        run_in_parts(memory.run, 4)
    assert memory.attempts == [4, 2, 1] and warnings == []


def test_what_the_cpu_allocator_says_is_met(warnings):
    def run(rows: slice) -> int:
        return len(torch.empty((rows.stop - rows.start) ** 60, dtype=torch.uint8))  # 1, or an exabyte

    assert run_in_parts(run, 2) == [1, 1]


def test_other_errors_are_not_met():
    def run(rows: slice):
        calls.append(rows)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    calls = []
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_in_parts(run, 4)
    assert len(calls) == 1


def test_merge_pads_on_the_right_and_counts_users_on():
    first = LatentRecGenerateOutput(
        sequences=torch.tensor([[1, 2], [3, 4]]),
        sequences_scores=torch.tensor([-1.0, -2.0]),
        item_nodes=torch.tensor([5, 6]),
        user_indices=torch.tensor([0, 2]),  # prompt 1 has no answer
        num_users=3,
        thoughts=torch.ones(3, 1, 2),
        num_thoughts=torch.tensor([1, 1, 1]),
    )
    second = LatentRecGenerateOutput(
        sequences=torch.tensor([[7, 8, 9]]),
        sequences_scores=torch.tensor([-3.0]),
        item_nodes=torch.tensor([4]),
        user_indices=torch.tensor([0]),
        num_users=1,
        thoughts=torch.ones(1, 2, 2),
        num_thoughts=torch.tensor([2]),
    )
    merged = merge_outputs([first, second])
    assert merged.sequences.tolist() == [[1, 2, -100], [3, 4, -100], [7, 8, 9]]
    assert merged.sequences_scores.tolist() == [-1.0, -2.0, -3.0]
    assert merged.item_nodes.tolist() == [5, 6, 4]
    assert merged.user_indices.tolist() == [0, 2, 3] and merged.num_users == 4
    assert merged.thoughts[..., 0].tolist() == [[1, 0], [1, 0], [1, 0], [1, 1]]
    assert merged.num_thoughts.tolist() == [1, 1, 1, 2]
