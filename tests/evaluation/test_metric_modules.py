"""Metrics of ranked lists as modules of `evaluate`: against a slow loop, against trec_eval, on two processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_latentrec.evaluation import METRICS, metric_modules, ranking_metrics
from hf_latentrec.evaluation.metric_modules import RankingMetrics, ranked_list_metrics


KS = (1, 3, 5, 10, 30)
PROCESS = """
import json, sys
import evaluate

path, cache, process_id = sys.argv[1:3] + [int(sys.argv[3])]
metric = evaluate.load(
    path, "NDCG", num_process=2, process_id=process_id, experiment_id="two", cache_dir=cache
)
for predictions, references in json.load(sys.stdin):
    metric.add_batch(predictions=predictions, references=references)
print(json.dumps(metric.compute(ks=(1, 3, 10))))
"""


def make_users(num_users: int = 120) -> tuple[list[list[str]], list[list[str]]]:
    """Lists of 1 to 20 items against 1 to 12 relevant ones, out of 30, some of which cannot be predicted."""
    rng = np.random.default_rng(0)
    draw = lambda most, first: [f"item {i}" for i in first + rng.permutation(25)[: rng.integers(1, most + 1)]]  # noqa: E731
    return [draw(20, 0) for _ in range(num_users)], [draw(12, 5) for _ in range(num_users)]


def slow_user(ranked: list[str], relevant: list[str], k: int) -> dict[str, float]:
    hits, reciprocal, precisions, gain = 0, 0.0, 0.0, 0.0
    for place in range(1, k + 1):
        if place <= len(ranked) and ranked[place - 1] in relevant:
            hits += 1
            reciprocal = max(reciprocal, 1 / place)
            precisions += hits / place
            gain += 1 / math.log2(place + 1)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, k + 1) if place <= len(relevant))
    return {
        "HR": float(hits > 0),
        "NDCG": gain / ideal,
        "Recall": hits / len(relevant),
        "MRR": reciprocal,
        "MAP": precisions / len(relevant),
        "Precision": hits / k,
    }


def test_metrics_equal_a_slow_loop(tmp_path):
    predictions, references = make_users()
    metric = RankingMetrics(cache_dir=str(tmp_path))
    for start in range(0, 120, 50):  # the last batch is smaller
        metric.add_batch(predictions=predictions[start : start + 50], references=references[start : start + 50])
    metrics = metric.compute(ks=KS)
    assert list(metrics) == [f"{name}@{k}" for k in KS for name in METRICS]
    for k in KS:
        users = [slow_user(*user, k) for user in zip(predictions, references, strict=True)]
        for name in METRICS:
            assert metrics[f"{name}@{k}"] == pytest.approx(np.mean([user[name] for user in users]), abs=1e-12)


@pytest.mark.parametrize("k", [5, 10, 30])
def test_metrics_equal_those_of_trec_eval(k):
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="the independent metrics are in pytrec_eval-terrier")
    predictions, references = make_users()
    relevant = {str(user): dict.fromkeys(items, 1) for user, items in enumerate(references)}
    run = {  # trec_eval sorts by score; only its reciprocal rank has no cutoff of its own
        str(user): {item: float(-place) for place, item in enumerate(items[:k])}
        for user, items in enumerate(predictions)
    }
    names = {"HR": "success", "NDCG": "ndcg_cut", "Recall": "recall", "MAP": "map_cut", "Precision": "P"}
    measures = {f"{measure}.{k}" for measure in names.values()} | {"recip_rank"}
    users = pytrec_eval.RelevanceEvaluator(relevant, measures).evaluate(run).values()
    metrics = ranked_list_metrics(predictions, references, ks=(k,))
    for name in METRICS:
        measure = f"{names[name]}_{k}" if name in names else "recip_rank"
        assert metrics[f"{name}@{k}"] == pytest.approx(np.mean([user[measure] for user in users]))
    assert metrics[f"NDCG@{k}"] != metrics[f"MAP@{k}"] != metrics[f"Recall@{k}"]


def test_one_relevant_item_gives_the_metrics_of_its_rank():
    predictions, _ = make_users()
    targets = [f"item {i % 25}" for i in range(len(predictions))]
    ranks = [
        items.index(target) + 1 if target in items else 0 for items, target in zip(predictions, targets, strict=True)
    ]
    metrics = ranked_list_metrics(predictions, [[target] for target in targets], KS)
    assert metrics == pytest.approx(ranking_metrics(ranks, KS, METRICS))


def test_one_metric_by_name(tmp_path):
    metric = RankingMetrics("MAP", cache_dir=str(tmp_path))
    found = metric.compute(predictions=[["a", "b", "c", "d", "e"]], references=[["b", "d", "x"]], ks=(2, 5))
    assert found == pytest.approx({"MAP@2": 1 / 2 / 3, "MAP@5": (1 / 2 + 2 / 4) / 3})
    with pytest.raises(ValueError, match="metric 'AUC' is unknown"):
        RankingMetrics("AUC")


def test_two_processes_load_it_by_path_without_a_network(tmp_path):
    predictions, references = make_users(23)
    shares = [(0, 5), (5, 8), (8, 20), (20, 23)]  # the first process adds the first three batches
    batches = [(predictions[a:b], references[a:b]) for a, b in shares]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    jobs = []
    for process_id, mine in enumerate([batches[:3], batches[3:]]):
        command = [sys.executable, "-c", PROCESS, metric_modules.__file__, str(tmp_path / "data"), str(process_id)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        job = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
        job.stdin.write(json.dumps(mine))
        job.stdin.close()
        job.stdin = None
        jobs.append(job)
    outputs = [job.communicate(timeout=300) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    first, second = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    assert first == ranked_list_metrics(predictions, references, (1, 3, 10), ("NDCG",))
    assert second is None


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "there are no users"),
        ([["a"], []], [["a"], ["a"]], r"predictions: the list of the user in row 1 is empty \(1 such rows\); predict"),
        ([["a"], ["b"]], [["a"], []], "references: the list of the user in row 1 is empty"),
        ([["a"], ["b", "c", "b"]], [["a"], ["b"]], "predictions: the user in row 1 has the item 'b' more than once"),
        ([["a"], ["b", "c"]], [["a"], ["x", "x"]], "references: the user in row 1 has the item 'x' more than once"),
        ([["a"], ["b", None]], [["a"], ["b"]], "predictions: an item id of the user in row 1 is None"),
    ],
)
def test_bad_users_are_named_and_do_not_stay(predictions, references, message, tmp_path):
    # One case through a file, which has to be found free again; the others are quicker.
    metric = RankingMetrics(cache_dir=str(tmp_path), keep_in_memory=len(predictions) > 0)
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)
    with pytest.raises(ValueError, match=message):
        ranked_list_metrics(predictions, references)
    assert metric.compute(predictions=[["z"]], references=[["z"]], ks=(1,))["HR@1"] == 1


def test_the_same_item_of_two_users_is_no_duplicate():
    assert ranked_list_metrics([["a"], ["a"]], [["b"], ["a"]], ks=(1,), names=("HR",)) == {"HR@1": 0.5}


def test_bad_arguments_are_named():
    user = ([["a"]], [["a"]])
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        ranked_list_metrics([["a"]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="ks is empty"):
        ranked_list_metrics(*user, ks=())
    with pytest.raises(ValueError, match="found 0"):
        ranked_list_metrics(*user, ks=(1, 0))
    with pytest.raises(ValueError, match="'AUC' is unknown"):
        ranked_list_metrics(*user, names=("AUC",))
    with pytest.raises(ValueError, match="predictions: expected a list of item ids, as text"):
        ranked_list_metrics([[1]], [["a"]])


def test_a_cutoff_beyond_every_list_is_warned_of(caplog):
    ranked_list_metrics([["a"], ["a", "b"]], [["a"], ["a"]], ks=(1, 2))
    assert not caplog.records
    ranked_list_metrics([["a"], ["a", "b"]], [["a"], ["a"]], ks=(1, 3))
    assert "longest prediction has 2 items, so metrics at 3" in caplog.text
