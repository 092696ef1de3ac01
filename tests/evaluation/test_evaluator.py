"""Ranks of the evaluator against scoring every item of the catalog, one user at a time."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from hf_latentrec.evaluation import RecEvaluator
from tests.tiny import make_tiny_recommender


@torch.no_grad()
def slow_rank(model, processor, history, target, exclude_seen):
    """1-based rank of the target among all items, scored one by one with a plain forward."""
    inputs = processor([history])
    scores = {}
    for row, item_id in enumerate(processor.catalog.item_ids):
        if exclude_seen and item_id in history:
            continue
        answer = torch.from_numpy(processor.catalog.answer_tokens(row)).long()[None]
        scores[item_id] = model(**inputs, labels=answer, item_trie=processor.item_trie).logps.sum().item()
    return sorted(scores, key=scores.get, reverse=True).index(target) + 1


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_equal_scoring_the_whole_catalog(exclude_seen):
    model, processor, splits = make_tiny_recommender(num_thoughts=1, initializer_range=0.2)
    model.eval()
    examples = splits["test"].select(range(6))
    evaluator = RecEvaluator(processor, examples, num_beams=len(processor.catalog), batch_size=4)
    result = evaluator.evaluate(model, exclude_seen)
    expected = [slow_rank(model, processor, row["history"], row["target"], exclude_seen) for row in examples]
    assert result.ranks.tolist() == expected
    assert result.user_ids == examples["user_id"][:]
    assert result.metrics["HR@10"] == pytest.approx(sum(rank <= 10 for rank in expected) / 6)


def test_excluding_seen_items_ranks_no_lower_and_mode_is_restored():
    model, processor, splits = make_tiny_recommender()
    model.train()
    evaluator = RecEvaluator(processor, splits["test"], num_beams=len(processor.catalog))
    free, unseen = (evaluator.evaluate(model, exclude_seen).ranks for exclude_seen in (False, True))
    assert (unseen <= free).all() and (unseen < free).any() and (unseen > 0).all()
    assert model.training


def test_a_user_who_has_seen_everything_is_named():
    model, processor, splits = make_tiny_recommender()
    rows = splits["test"].select(range(3)).to_list()
    rows[1]["history"] = processor.catalog.item_ids + rows[1]["history"]
    rows[0]["history"] = rows[0]["history"] * len(processor.catalog)  # long, but of few items
    evaluator = RecEvaluator(processor, Dataset.from_list(rows), num_beams=5)
    model.train()
    with pytest.raises(ValueError, match=f"user_id '{rows[1]['user_id']}' \\(example 1\\) has seen all"):
        evaluator.evaluate(model, exclude_seen=True)
    assert model.training
    assert len(evaluator.evaluate(model).ranks) == 3


def test_no_examples_is_an_error():
    _, processor, splits = make_tiny_recommender()
    with pytest.raises(ValueError, match="no examples"):
        RecEvaluator(processor, splits["test"].select([]))
