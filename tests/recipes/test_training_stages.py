"""What training recipes share about stages: order, what is complete, names of examples."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import TrainerState

from hf_latentrec import ItemTable, PopularityConfig, PopularityRecommender
from hf_latentrec.evaluation import SequentialEvaluator, load_ranks


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

from training_stages import (  # noqa: E402
    Stage,
    check_stages,
    conditions_of,
    describe_best,
    describe_other_tests,
    evaluate_protocols,
    example_ids,
    run_stages,
    stage_names,
    stage_settings,
)


PLAN = {stage.name: stage for stage in (Stage("one", None, 0, "first"), Stage("two", "one", 1, "second"))}
TEST, SPLIT = {"users": 100, "beams": 50}, "of these data"


def test_stages_run_once_in_order_and_all_results_come_back(tmp_path, capsys):
    ran = []

    def run(stage):
        ran.append(stage.name)
        return {"HR@10": 0.5 * stage.num_thoughts}

    assert run_stages(PLAN, ["one"], tmp_path, run, TEST, SPLIT) == {"one": {"HR@10": 0.0}}
    assert run_stages(PLAN, ["two", "one"], tmp_path, run, TEST, SPLIT) == {
        "one": {"HR@10": 0.0},
        "two": {"HR@10": 0.5},
    }
    assert ran == ["one", "two"]
    assert capsys.readouterr().out.split("\n") == ["", "=== first ===", "", "=== second ===", ""]


def test_a_stage_of_an_earlier_run_says_how_it_was_tested(tmp_path):
    labels, now = {"one": "first", "two": "second"}, {"users": 100, "beams": 20}
    run_stages(PLAN, ["one"], tmp_path, lambda stage: {}, TEST, SPLIT)
    run_stages(PLAN, ["one", "two"], tmp_path, lambda stage: {}, now, SPLIT)
    assert conditions_of(tmp_path / "one", now) == TEST and conditions_of(tmp_path / "two", TEST) == now
    assert conditions_of(tmp_path / "of an earlier version", now) == now
    assert describe_other_tests(tmp_path, labels, now) == (
        "\nfirst: of an earlier run, beams 50; to test it anew, remove one/test_metrics.json"
    )
    assert describe_other_tests(tmp_path, {"two": "second"}, now) == ""


def test_stages_of_other_data_are_refused_and_stand_in_no_table(tmp_path, capsys):
    def run(stage):
        (tmp_path / stage.name).mkdir()
        (tmp_path / stage.name / "config.json").write_text('{"split_fingerprint": "of other data"}')
        return {}

    run_stages(PLAN, ["one"], tmp_path, run, TEST, "of other data")
    with pytest.raises(ValueError, match="one was trained with split_fingerprint of other data, but this data has of"):
        run_stages(PLAN, ["one"], tmp_path, run, TEST, SPLIT)
    assert run_stages(PLAN, ["two"], tmp_path, lambda stage: {"HR@10": 1.0}, TEST, SPLIT) == {"two": {"HR@10": 1.0}}
    assert f"{tmp_path / 'one'} was trained on other data" in capsys.readouterr().out


def test_a_stage_that_fails_is_not_complete(tmp_path):
    def run(stage):
        (tmp_path / stage.name).mkdir()
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        run_stages(PLAN, ["one"], tmp_path, run, TEST, SPLIT)
    with pytest.raises(ValueError, match="one, which is not complete; run one first"):
        check_stages(PLAN, ["two"], tmp_path, resume=True)
    check_stages(PLAN, ["one", "two"], tmp_path, resume=True)


def test_a_run_has_one_stage_at_least():
    assert stage_names(["one", "two"]) == ["one", "two"] and stage_names("one") == ["one"]
    for nothing in ([], None, ""):
        with pytest.raises(ValueError, match="stages is empty"):
            stage_names(nothing)


@pytest.mark.parametrize(
    ("names", "resume", "message"),
    [
        (["three"], False, "stages holds 'three'; choose from"),
        (["two", "one"], False, "stage two starts from .*one, which is not complete"),
        (["old"], False, "old exists; pass --resume_from_checkpoint true"),
    ],
)
def test_stages_that_cannot_run_are_refused(tmp_path, names, resume, message):
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match=message):
        check_stages({**PLAN, "old": Stage("old", None, 0, "old")}, names, tmp_path, resume)


@pytest.mark.parametrize(
    ("checkpoint", "step", "words"),
    [
        (None, None, "NDCG@10 was never measured in training; the last weights are kept"),
        ("checkpoint-0", 0, "best NDCG@10 of validation: 0.0542, before training; the model that the stage started"),
        ("checkpoint-4515", 4515, "best NDCG@10 of validation: 0.0542, after 4,515 of 5,805 steps; these weights are"),
    ],
)
def test_it_is_told_which_weights_are_kept(checkpoint, step, words):
    state = TrainerState(
        best_model_checkpoint=checkpoint, best_global_step=step, best_metric=0.05417, global_step=5805
    )
    assert describe_best(state, "NDCG@10").startswith(words)


def test_settings_are_shared_where_a_trainer_knows_them():
    @dataclass
    class Known:
        seed: int = 0
        steps: int = 0

    @dataclass
    class Given(Known):
        seed: int = 7
        beams: int = 3

    assert stage_settings(Given(), Known, steps=5) == Known(seed=7, steps=5)


def test_examples_of_one_user_are_told_apart():
    assert example_ids(["a", "b", "a", "a", "b"]) == ["a", "b", "a#2", "a#3", "b#2"]


def test_rank_files_tell_what_was_asked(tmp_path):
    items = ItemTable(["a", "b", "c", "d"], popularity=[4, 0, 9, 1])
    model = PopularityRecommender(PopularityConfig(num_items=4), items)
    rows = [("u", ["a"], "c"), ("v", ["d", "c", "a"], "b"), ("u", ["a", "c"], "d")]
    examples = Dataset.from_list([{"user_id": u, "history": h, "target": t} for u, h, t in rows])
    evaluator = SequentialEvaluator(examples, ks=(2,), split_fingerprint="ab12")
    results = evaluate_protocols(evaluator, model, PLAN["one"], tmp_path, "a way", ["seen items excluded"], seed=3)
    file = load_ranks(tmp_path / "one_a_way_seen_items_excluded.parquet")
    assert file.user_ids == ["u", "v", "u#2"] and file.ranks.tolist() == [1, 0, 1]
    assert results["seen items excluded"].ranks.tolist() == [1, 0, 1]
    assert {name: column.tolist() for name, column in file.columns.items()} == {
        "user": ["u", "v", "u"],
        "target": ["c", "b", "d"],
        "target_popularity": [9, 0, 1],
        "history_length": [1, 3, 2],
    }
    assert (file.metadata["seed"], file.metadata["split_fingerprint"]) == (3, "ab12")


def test_metrics_are_written_last(tmp_path):
    run_stages(PLAN, ["one"], tmp_path, lambda stage: {"HR@10": 0.25}, TEST, SPLIT)
    assert json.loads((tmp_path / "one" / "test_metrics.json").read_text()) == {"HR@10": 0.25}
