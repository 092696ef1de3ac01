"""The order of examples: complete, seeded, epoch-aware, and cut into the right batches on several processes."""

from __future__ import annotations

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from hf_latentrec.trainer.sampling import EpochSampler, SharedBatchSampler


LENGTHS = [(7 * index) % 23 for index in range(103)]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_example_comes_once(lengths, epoch):
    sampler = EpochSampler(103, 4, lengths=lengths, seed=3)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(103)) and order != list(range(103))
    assert len(sampler) == 103


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_order_depends_on_seed_and_epoch_alone(lengths):
    def order(seed, epoch):
        sampler = EpochSampler(103, 4, lengths=lengths, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0) and order(1, 1) == order(1, 1)
    assert order(1, 0) != order(1, 1) and order(1, 0) != order(2, 0)


def test_shuffle_off_keeps_the_order():
    assert list(EpochSampler(5, 2, shuffle=False)) == [0, 1, 2, 3, 4]


def test_grouping_saves_padding_and_keeps_the_incomplete_batch_last():
    def padding(order):
        batches = list(BatchSampler(order, 4, drop_last=False))
        assert [len(batch) for batch in batches] == [4] * 25 + [3]
        return sum(max(LENGTHS[i] for i in batch) * len(batch) - sum(LENGTHS[i] for i in batch) for batch in batches)

    grouped = list(EpochSampler(103, 4, lengths=LENGTHS))
    assert padding(grouped) < padding(list(EpochSampler(103, 4))) / 5
    longest = [max(LENGTHS[i] for i in grouped[at : at + 4]) for at in range(0, 100, 4)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_blocks_are_repeated():
    sampler = EpochSampler(11, 2, repeat_count=3, steps_per_block=2, seed=5)
    order = list(sampler)
    assert len(order) == len(sampler) == 2 * 4 * 3  # 3 examples do not fill a block
    for start in (0, 12):
        block = order[start : start + 4]
        assert order[start : start + 12] == block * 3 and len(set(block)) == 4
    assert not set(order[:4]) & set(order[12:])


def test_processes_share_the_steps_of_one():
    """Two processes of 2 examples see, step by step, what one process of 4 sees."""
    options = {"lengths": LENGTHS[:100], "repeat_count": 2, "steps_per_block": 5}
    one = list(BatchSampler(EpochSampler(100, 4, **options), 4, drop_last=False))
    shards = [
        list(BatchSamplerShard(BatchSampler(EpochSampler(100, 4, **options), 2, drop_last=False), 2, process))
        for process in range(2)
    ]
    assert [first + second for first, second in zip(*shards, strict=True)] == one


@pytest.mark.parametrize("num_examples", range(4, 40))
@pytest.mark.parametrize(("batch_size", "num_processes"), [(1, 1), (1, 4), (2, 1), (2, 3), (3, 4), (8, 2)])
def test_processes_share_the_end_of_an_epoch(num_examples, batch_size, num_processes):
    sampler = EpochSampler(num_examples, batch_size * num_processes, seed=1)
    batches = SharedBatchSampler(sampler, batch_size, num_processes)
    shards = [BatchSamplerShard(batches, num_processes, process) for process in range(num_processes)]
    for shard in shards:
        shard.batch_size = None
        assert len(list(shard)) == len(shard)
    rounds = [list(parts) for parts in zip(*shards, strict=True)]
    assert all(1 <= len(part) <= batch_size for parts in rounds for part in parts)
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in rounds)
    left_out = num_examples % num_processes if batch_size == 1 else 0
    assert [row for parts in rounds for part in parts for row in part] == list(sampler)[: num_examples - left_out]
    alone = list(BatchSampler(sampler, batch_size * num_processes, drop_last=False))
    if len(alone[-1]) >= num_processes:  # every process has a part
        assert [sum(parts, []) for parts in rounds] == alone
    dropped = SharedBatchSampler(sampler, batch_size, num_processes, drop_last=True)
    assert len(list(dropped)) == len(dropped) == num_examples // (batch_size * num_processes) * num_processes
    assert all(len(batch) == batch_size for batch in dropped)


def test_errors_name_the_numbers():
    with pytest.raises(ValueError, match="3 training examples cannot be shared by 4 processes"):
        SharedBatchSampler(range(3), 2, 4)
    with pytest.raises(ValueError, match="2 lengths for 3 examples"):
        EpochSampler(3, lengths=[1, 2])
    with pytest.raises(ValueError, match="3 examples do not fill one block of 2 x 2"):
        EpochSampler(3, 2, repeat_count=2, steps_per_block=2)
