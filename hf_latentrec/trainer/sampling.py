"""The order in which every trainer sees its examples, and how processes share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import BatchSampler, Sampler


MEGA_BATCH = 50  # batches that are sorted by length together


class EpochSampler(Sampler[int]):
    """
    Example indices in an order that depends on `seed` and the epoch alone, so that a resumed run sees what an
    uninterrupted one sees.

    With `lengths`, batches hold examples of similar length: the shuffled examples are sorted within stretches of 50
    batches, then the batches are shuffled. With `repeat_count`, each block of `steps_per_block` batches comes that
    many times in a row. In both, an incomplete batch stays last, since a loader cuts the order into batches by
    counting.

    Args:
        num_examples (`int`): size of the data set.
        batch_size (`int`, *optional*, defaults to 1): examples of a step on all processes together.
        lengths (`Sequence[int]`, *optional*): length of each example; groups batches by length.
        repeat_count (`int`, *optional*, defaults to 1): how often each block comes; above 1, what does not fill a
            block is left out.
        steps_per_block (`int`, *optional*, defaults to 1): batches in a block.
        shuffle (`bool`, *optional*, defaults to `True`): `False` keeps the order of the data set.
        seed (`int`, *optional*, defaults to 0): of the order.

    Raises:
        ValueError: where `lengths` do not match the data set, or it is too small to fill one repeated block.

    Example:
        >>> sampler = EpochSampler(6, batch_size=2, repeat_count=2, shuffle=False)
        >>> list(sampler)
        [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]

        >>> sampler = EpochSampler(5)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> first == list(sampler)
        False
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int = 1,
        *,
        lengths: Sequence[int] | None = None,
        repeat_count: int = 1,
        steps_per_block: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ):
        if lengths is not None and len(lengths) != num_examples:
            raise ValueError(f"EpochSampler: {len(lengths)} lengths for {num_examples} examples; pass one per example")
        if repeat_count > 1 and num_examples < batch_size * steps_per_block:
            raise ValueError(
                f"EpochSampler: {num_examples} examples do not fill one block of {steps_per_block} x {batch_size} "
                f"that is to be repeated {repeat_count} times; make the batch smaller or repeat_count 1"
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.repeat_count = repeat_count
        self.block_size = batch_size * steps_per_block
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Selects the order of that epoch; transformers and accelerate call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.repeat_count == 1:
            return self.num_examples
        return self.num_examples // self.block_size * self.block_size * self.repeat_count

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.num_examples)
        if self.shuffle:
            # Not an attribute named `generator`: accelerate would take it and reseed it.
            rng = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.num_examples, generator=rng)
            if self.lengths is not None:
                order = self._group_by_length(order, rng)
        if self.repeat_count > 1:
            num_blocks = self.num_examples // self.block_size
            blocks = order[: num_blocks * self.block_size].view(num_blocks, self.block_size)
            order = blocks.repeat_interleave(self.repeat_count, dim=0).flatten()
        return iter(order.tolist())

    def _group_by_length(self, order: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        stretches = order.split(MEGA_BATCH * self.batch_size)
        order = torch.cat(
            [stretch[self.lengths[stretch].argsort(descending=True, stable=True)] for stretch in stretches]
        )
        num_full = self.num_examples // self.batch_size
        full = order[: num_full * self.batch_size].view(num_full, self.batch_size)
        full = full[torch.randperm(num_full, generator=rng)]
        return torch.cat([full.flatten(), order[num_full * self.batch_size :]])


class SharedBatchSampler(BatchSampler):
    """
    Batches for several processes in turns, as [`~torch.utils.data.BatchSampler`] cuts them but for the end of an
    epoch, which all processes share as evenly as they can: each example comes once, and what one process would have in
    its last batch is spread over them.

    Where fewer examples are left than there are processes, the last two rounds are made equally large instead; with
    batches of one example, which cannot become smaller, these few are left out of that epoch.

    Args:
        sampler (`Sampler`): the order of examples.
        batch_size (`int`): examples of a batch on one process.
        num_processes (`int`): how many take turns.
        drop_last (`bool`, *optional*, defaults to `False`): leave out what does not fill a batch on every process.

    Raises:
        ValueError: for fewer examples than processes.

    Example:
        >>> list(SharedBatchSampler(range(7), batch_size=2, num_processes=2))
        [[0, 1], [2, 3], [4, 5], [6]]
        >>> list(SharedBatchSampler(range(9), batch_size=4, num_processes=2))
        [[0, 1, 2], [3, 4], [5, 6], [7, 8]]
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, num_processes: int, drop_last: bool = False):
        super().__init__(sampler, batch_size, drop_last)
        self.num_processes = num_processes
        if len(sampler) < num_processes:
            raise ValueError(
                f"{len(sampler)} training examples cannot be shared by {num_processes} processes; start fewer"
            )

    def round_sizes(self) -> list[int]:
        """Examples of each round, in which every process has one batch."""
        num_full, rest = divmod(len(self.sampler), self.batch_size * self.num_processes)
        sizes = [self.batch_size * self.num_processes] * num_full
        if rest >= self.num_processes and not self.drop_last:
            sizes.append(rest)
        elif rest and self.batch_size > 1 and not self.drop_last:
            both = sizes.pop() + rest
            sizes += [both - both // 2, both // 2]
        return sizes

    def __len__(self) -> int:
        return len(self.round_sizes()) * self.num_processes

    def __iter__(self) -> Iterator[list[int]]:
        examples = iter(self.sampler)
        for size in self.round_sizes():
            share, larger = divmod(size, self.num_processes)
            for process in range(self.num_processes):
                yield list(islice(examples, share + (process < larger)))


__all__ = ["EpochSampler", "SharedBatchSampler"]
