"""Anchors stand where their answers stand, packed or not."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.cot.collator import AnchoredCollator
from hf_latentrec.data import NextItemCollator, PackedHistoryCollator, pack_examples
from tests.tiny import make_tiny_recommender
from tests.trainer.memory_anchors import MemoryAnchors


@pytest.fixture
def tiny():
    """Examples, with anchors for all but every fourth; the s-th of example r is r + s / 10."""
    _, processor, splits = make_tiny_recommender()
    train = splits["train"].select(range(12))
    by_answer = {
        (user, target): row + torch.arange(1 + row % 3)[:, None].expand(-1, 5) / 10
        for row, (user, target) in enumerate(zip(train["user_id"], train["target"], strict=True))
        if row % 4
    }
    return processor, train, MemoryAnchors(by_answer, 5)


def test_one_example_a_row(tiny):
    processor, train, anchors = tiny
    batch = AnchoredCollator(NextItemCollator(processor), anchors)(train.to_list())
    plain = NextItemCollator(processor)(train.to_list())
    assert batch.keys() - plain.keys() == {"anchors", "num_segments"}
    assert torch.equal(batch["labels"], plain["labels"])
    assert batch["anchors"].shape == (12, 3, 5)
    for row in range(12):
        count = 1 + row % 3 if row % 4 else 0
        expected = [row + step / 10 if step < count else 0.0 for step in range(3)]
        assert batch["num_segments"][row] == count
        assert batch["anchors"][row, :, 0].tolist() == pytest.approx(expected)


def test_packed_histories(tiny):
    """Every answer has the anchors that it has alone; rows hold different numbers of targets."""
    processor, train, anchors = tiny
    packed = pack_examples(train)
    assert len(set(map(len, packed["targets"]))) > 1
    batch = AnchoredCollator(PackedHistoryCollator(processor), anchors)(packed.to_list())
    alone = AnchoredCollator(NextItemCollator(processor), anchors)(train.to_list())
    is_answer = (batch["labels"] != -100).any(-1)
    assert batch["num_segments"].shape == is_answer.shape and not batch["num_segments"][~is_answer].any()
    assert torch.equal(batch["labels"][is_answer], alone["labels"])
    assert torch.equal(batch["anchors"][is_answer], alone["anchors"])
    assert torch.equal(batch["num_segments"][is_answer], alone["num_segments"])
    assert not batch["anchors"][~is_answer].any()


def test_bad_input(tiny):
    processor, train, anchors = tiny
    collate = AnchoredCollator(lambda examples: {}, anchors)
    with pytest.raises(ValueError, match="examples have the columns user_id, history, which do not say whose"):
        collate(train.remove_columns("target").to_list())
    user, target = train["user_id"][2], train["target"][2]
    anchors.by_answer[user, target][1, 3] = torch.nan
    with pytest.raises(ValueError, match=f"user '{user}', target '{target}', segment 1 holds NaN or infinite values"):
        collate(train.to_list())
