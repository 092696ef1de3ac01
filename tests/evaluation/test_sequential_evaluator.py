"""The evaluator of item-ID recommenders against one user at a time, with scores that are known."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_latentrec import ItemTable, SASRecConfig, SASRecForSequentialRecommendation
from hf_latentrec.evaluation import SequentialEvaluator, load_ranks, ranking_metrics, save_ranks


ROOT = Path(__file__).resolve().parents[2]
ITEMS = [f"i{row:02d}" for row in range(23)]


class KnownScores(torch.nn.Module):
    """Scores depend on the last item alone; item i22 may not be recommended."""

    def __init__(self):
        super().__init__()
        self.items = ITEMS
        self.scores = np.random.default_rng(3).integers(0, 12, (len(ITEMS), len(ITEMS))).astype(float)  # with ties
        self.scores[:, 22] = -np.inf
        self.batch_sizes, self.given = [], []

    def rank_targets(self, histories, targets, exclude_seen=False, **given):
        assert not self.training
        self.batch_sizes.append(len(histories))
        self.given.append(given)
        return np.array([self.slow_rank(*pair, exclude_seen) for pair in zip(histories, targets, strict=True)])

    def slow_rank(self, history, target, exclude_seen):
        scores = self.scores[ITEMS.index(history[-1])].copy()
        if exclude_seen:
            scores[[ITEMS.index(item) for item in history]] = -np.inf
        if scores[ITEMS.index(target)] == -np.inf:
            return 0
        return 1 + np.argsort(-scores, kind="stable").tolist().index(ITEMS.index(target))


def make_examples(num_users: int = 29) -> Dataset:
    """User 3 has seen the target, and that of user 4 may not be recommended."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(29):
        sequence = rng.permutation(len(ITEMS))[: rng.integers(2, 12)]
        history, target = [ITEMS[row] for row in sequence[:-1]], ITEMS[sequence[-1]]
        rows.append({"user_id": f"u{user}", "history": history, "target": target})
    rows[3]["target"] = next(item for item in rows[3]["history"] if item != "i22")
    rows[4]["target"] = "i22"
    return Dataset.from_list(rows[:num_users])


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 1024])
def test_ranks_equal_one_user_at_a_time(exclude_seen, batch_size):
    model, examples = KnownScores().train(), make_examples()
    result = SequentialEvaluator(examples, batch_size=batch_size).evaluate(model, exclude_seen)
    expected = [model.slow_rank(row["history"], row["target"], exclude_seen) for row in examples]
    assert result.ranks.tolist() == expected and result.user_ids == list(examples["user_id"])
    assert expected[4] == 0 and (expected[3] == 0) == exclude_seen
    assert result.metrics == ranking_metrics(expected, (5, 10, 20))
    assert sum(model.batch_sizes) == 29 and max(model.batch_sizes) == min(batch_size, 29)
    assert model.training and result.num_thoughts is None


class Counting:
    """A model of `make_model` that counts how often states are made and blocks are scored."""

    def __init__(self, model):
        self.model, self.calls = model, {"user_states": 0, "score": 0}
        for name in self.calls:
            setattr(model, name, partial(self._count, name, getattr(model, name)))

    def _count(self, name, method, *arguments, **given):
        self.calls[name] += 1
        return method(*arguments, **given)


def make_recommender(titles=None):
    """SASRec with random weights; items i20 to i22 are cold."""
    torch.manual_seed(5)
    items = ItemTable(ITEMS, titles, popularity=[1] * 20 + [0] * 3)
    return SASRecForSequentialRecommendation(SASRecConfig(num_items=23, initializer_range=1.0), items).eval()


@torch.inference_mode()
def slow_order(model, history, exclude_seen):
    """Item ids from the best on, by all scores of one user."""
    scores = model.score(model.user_states([history]))[0].tolist()
    rows = sorted(range(20), key=lambda row: -scores[row])
    return [ITEMS[row] for row in rows if not (exclude_seen and ITEMS[row] in history)]


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("block_size", [None, 6])
def test_titles_match_and_recommendations_are_kept(exclude_seen, block_size, monkeypatch):
    titles = [None if row % 4 == 0 else f"title {row % 6}" for row in range(23)]
    model, examples = make_recommender(titles), make_examples()
    for name in ("rank_targets", "rank_and_recommend"):
        monkeypatch.setattr(model, name, partial(getattr(model, name), block_size=block_size))
    by_title = SequentialEvaluator(examples, batch_size=8, match="title").evaluate(model, exclude_seen).ranks
    both = SequentialEvaluator(examples, batch_size=8, match="title", top_k=25).evaluate(model, exclude_seen)
    by_item = SequentialEvaluator(examples, batch_size=8).evaluate(model, exclude_seen).ranks
    title_of, expected = dict(zip(ITEMS, titles, strict=True)), []
    for row, example in enumerate(examples):
        order = slow_order(model, example["history"], exclude_seen)
        assert [ITEMS[item] for item in both.recommendations[row] if item >= 0] == order
        assert (both.recommendations[row][len(order) :] == -1).all() and both.recommendations.shape == (29, 25)
        title = title_of[example["target"]]
        same = [item == example["target"] or (title is not None and title_of[item] == title) for item in order]
        expected.append(same.index(True) + 1 if True in same else 0)
    assert by_title.tolist() == both.ranks.tolist() == expected
    assert ((by_title > 0) & (by_title < by_item)).any() and ((by_title > 0) & (by_item == 0)).any()


def test_recommendations_take_no_second_scoring():
    counting, examples = Counting(make_recommender([f"t{row % 5}" for row in range(23)])), make_examples()
    SequentialEvaluator(examples, batch_size=15, top_k=5, match="title").evaluate(counting.model)
    assert counting.calls == {"user_states": 2, "score": 2}
    ranks = SequentialEvaluator(examples).evaluate(counting.model).ranks
    kept = SequentialEvaluator(examples, top_k=3).evaluate(counting.model)
    assert kept.ranks.tolist() == ranks.tolist() and kept.recommendations.shape == (29, 3)


def test_steps_and_seed_reach_the_model_where_they_are_given(tmp_path):
    model, examples = KnownScores(), make_examples(3)
    result = SequentialEvaluator(examples, num_steps=7, seed=0).evaluate(model)
    assert model.given == [{"num_steps": 7, "seed": 0}] and result.num_thoughts.tolist() == [7, 7, 7]
    evaluator = SequentialEvaluator(examples, split_fingerprint="ab12")
    result = evaluator.evaluate(model)
    assert model.given[1:] == [{}]
    circumstances = {"split_fingerprint": evaluator.split_fingerprint, "num_beams": evaluator.num_beams}
    save_ranks(tmp_path / "r.parquet", result.user_ids, result.ranks, protocol="full", **circumstances)
    file = load_ranks(tmp_path / "r.parquet")
    assert file.metadata["num_beams"] is None and file.num_thoughts is None


def test_a_recommender_that_is_no_network_is_ranked_too():
    model = KnownScores()

    class Plain:
        items, training = ITEMS, False

        def rank_targets(self, *arguments, **given):
            return model.eval().rank_targets(*arguments, **given)

    examples = make_examples()
    ranks = SequentialEvaluator(examples).evaluate(Plain()).ranks
    assert ranks.tolist() == SequentialEvaluator(examples).evaluate(model).ranks.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"examples": make_examples(2).select([])}, "SequentialEvaluator: there are no examples"),
        ({"batch_size": 0}, "SequentialEvaluator: batch_size is 0"),
        ({"ks": (5, 24)}, "the cutoff 24 is above the size of the catalog, 23 items"),
        ({"top_k": -2}, "SequentialEvaluator: top_k is -2"),
        ({"match": "name"}, r"match is 'name'; choose one of \('item', 'title'\)"),
        ({"ks": (0,)}, "a cutoff is a whole number from 1, found 0"),
        ({"ks": ()}, "ks is empty"),
    ],
)
def test_what_cannot_be_evaluated_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SequentialEvaluator(**{"examples": make_examples(2), **settings}).evaluate(KnownScores())


def test_a_user_who_has_seen_everything_is_named():
    examples = make_examples(3).to_list()
    examples[1]["history"] = ITEMS
    evaluator = SequentialEvaluator(Dataset.from_list(examples))
    with pytest.raises(ValueError, match=r"user_id 'u1' \(example 1\) has seen all 23 items"):
        evaluator.evaluate(KnownScores(), exclude_seen=True)


def test_two_processes_give_the_ranks_of_one(tmp_path):
    """On three batches, one process has one batch more than the other."""
    model, examples = KnownScores(), make_examples(29)
    alone = SequentialEvaluator(examples, batch_size=12).evaluate(model)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        [*command, __file__, str(tmp_path)], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    best = SequentialEvaluator(examples, batch_size=12, top_k=4).evaluate(make_recommender()).recommendations
    for process in range(2):
        assert np.load(tmp_path / f"{process}.npy").tolist() == [alone.ranks.tolist(), [3] * 29]
        assert np.load(tmp_path / f"{process}_best.npy").tolist() == best.tolist()


if __name__ == "__main__":  # one process of the test above
    from accelerate import PartialState

    state = PartialState(cpu=True)
    model = KnownScores()
    result = SequentialEvaluator(make_examples(29), batch_size=12, num_steps=3).evaluate(model)
    assert len(model.batch_sizes) == 2 - state.process_index
    np.save(Path(sys.argv[1], f"{state.process_index}.npy"), np.stack([result.ranks, result.num_thoughts]))
    result = SequentialEvaluator(make_examples(29), batch_size=12, top_k=4).evaluate(make_recommender())
    np.save(Path(sys.argv[1], f"{state.process_index}_best.npy"), result.recommendations)
    state.destroy_process_group()
