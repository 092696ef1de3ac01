"""The endpoint teacher against an endpoint with failures."""

from __future__ import annotations

import json

import pytest

from hf_latentrec.cot.endpoint_teacher import EndpointTeacher, Question, open_questions
from hf_latentrec.cot.jsonl import read_rows
from hf_latentrec.cot.teacher_prompt import build_messages, read_answer
from tests.cot.chat_server import GOOD, chat_server


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The client refuses any address in offline mode, this machine's own included."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def questions(*targets):
    return [Question(f"u-{target}", target, build_messages(["lamp"], target)) for target in targets]


@pytest.fixture
def ask(tmp_path):
    """`ask(behave, targets, ...)`: outcome, rows, rejected rows and what the server saw."""

    def ask(behave, targets, delay=0.0, **settings):
        with chat_server(lambda prompt, before: behave(prompt.removeprefix("Next item: "), before), delay) as seen:
            settings = {"model": "m", "base_url": seen.url, "first_wait": 0.01, "timeout": 10, **settings}
            outcome = EndpointTeacher(**settings).ask_all(questions(*targets), tmp_path / "out", tmp_path / "rejected")
        rows = {}
        for name in ("out", "rejected"):
            path = tmp_path / name
            rows[name] = [row for _, row in read_rows(path)] if path.exists() else []
        return outcome, rows["out"], rows["rejected"], seen

    return ask


def test_every_answer_is_a_row(ask):
    outcome, rows, rejected, seen = ask(
        lambda target, _: f"{GOOD} So: {target}.", "abcdefgh", max_tokens=9, delay=0.05, concurrency=4
    )
    assert outcome.complete and outcome.answered == 8 and rejected == []
    assert sorted(rows, key=lambda row: row["target"]) == [
        {"user_id": f"u-{t}", "target": t, "cot": f"{GOOD} So: {t}.", "teacher": "endpoint:m"} for t in "abcdefgh"
    ]
    assert 2 <= seen.most_at_a_time <= 4
    assert seen.bodies[0]["model"] == "m" and seen.bodies[0]["max_tokens"] == 9 and "temperature" not in seen.bodies[0]


def test_answers_of_no_use_are_kept_apart_with_the_reason(ask):
    answers = {
        "a": GOOD,
        "b": "",
        "c": None,
        "d": ("Again and again. " * 300, "length"),
        "e": "#### 1 2 3 4. 5 6 7. 8",
        "f": "Lamp. " * 100,
        "g": "One sentence.",
        "h": f"<think>Hm. {'x ' * 50}</think>\n{GOOD}",
        "i": ("<think>For ever and ever.", "length"),
        "j": f"Okay, the customer bought lamps.</think>\n\n{GOOD}",
    }
    outcome, rows, rejected, seen = ask(lambda target, _: answers[target], answers)
    assert {row["target"]: row["cot"] for row in rows} == {"a": GOOD, "h": GOOD, "j": GOOD}
    assert {row["target"]: row["reason"] for row in rejected} == {
        "b": "empty", "c": "empty", "d": "endless", "e": "garbage", "f": "garbage", "g": "garbage", "i": "endless",
    }  # fmt: skip
    assert outcome.complete and outcome.rejected == {"empty": 2, "endless": 2, "garbage": 3}
    assert set(seen.asked.values()) == {1} and max(len(row["text"]) for row in rejected) <= 2000


@pytest.mark.parametrize("failure", [500, 503, 429, "HANG UP", "HTML", "NO CHOICES"])
def test_what_may_pass_is_tried_again(ask, failure):
    outcome, rows, _, seen = ask(lambda target, before: failure if before < 2 else GOOD, "ab")
    assert outcome.complete and len(rows) == 2 and set(seen.asked.values()) == {3}


def test_a_timeout_is_tried_again(ask):
    outcome, rows, _, seen = ask(lambda *_: GOOD, "a", delay=0.5, timeout=0.1, max_tries=2)
    assert not outcome.complete and outcome.failed == 1 and rows == [] and set(seen.asked.values()) == {2}
    assert "InferenceTimeoutError" in outcome.last_error


def test_what_does_not_pass_is_not_tried_again(ask):
    outcome, rows, _, seen = ask(lambda target, _: 401 if target == "a" else GOOD, "abc", concurrency=1)
    assert outcome.asked_all and not outcome.complete and outcome.failed == 1 and len(rows) == 2
    assert set(seen.asked.values()) == {1} and "401" in outcome.last_error and "'u-a'" in outcome.last_error


def test_an_endpoint_that_dies_stops_the_run_and_the_next_one_goes_on(ask, tmp_path):
    targets = [f"t{n}" for n in range(40)]
    dead = lambda target, _: 500 if int(target[1:]) >= 10 else GOOD  # noqa: E731
    outcome, rows, _, seen = ask(dead, targets, concurrency=2, max_tries=2, max_failures=4)
    assert not outcome.asked_all and not outcome.complete and len(rows) == outcome.answered == 10
    assert 4 <= outcome.failed <= 5 and len(seen.asked) <= 16

    keys = [(f"u-{target}", target) for target in targets]
    still_open = open_questions(keys, tmp_path / "out", tmp_path / "rejected", "endpoint:m")
    assert still_open == list(range(10, 40))
    outcome, rows, _, seen = ask(lambda *_: GOOD, targets[10:])
    assert outcome.complete and len(rows) == 40 and len({row["target"] for row in rows}) == 40


def test_rejected_answers_are_not_asked_again(tmp_path):
    row = {"user_id": "u", "target": "a", "teacher": "endpoint:m"}
    (tmp_path / "out").write_text(json.dumps(row | {"cot": "Text."}) + "\n" + '{"user_id": "u", "targ')
    (tmp_path / "rejected").write_text(json.dumps(row | {"target": "b", "reason": "empty"}) + "\n")
    paths = (tmp_path / "out", tmp_path / "rejected")
    assert open_questions([("u", "a"), ("u", "b"), ("u", "c")], *paths, "endpoint:m") == [2]
    assert (tmp_path / "out").read_text().endswith("}\n")
    with pytest.raises(ValueError, match="line 1: was written by teacher 'endpoint:m', not by 'endpoint:n'"):
        open_questions([("u", "a")], *paths, "endpoint:n")


@pytest.mark.parametrize("name", ["out", "rejected"])
def test_a_file_of_someone_else_is_not_touched(tmp_path, name):
    paths = (tmp_path / "out", tmp_path / "rejected")
    (tmp_path / "out").write_text('{"user_id": "u", "targ')
    (tmp_path / name).write_text("My notes.")
    before = [path.read_bytes() for path in paths if path.exists()]
    with pytest.raises(ValueError, match=f"{name}: holds no row but b'My notes.', so it is no file of a teacher"):
        open_questions([("u", "a")], *paths, "endpoint:m")
    assert [path.read_bytes() for path in paths if path.exists()] == before


@pytest.mark.parametrize("rows", ["", '{"user_id": "u", "target": "a", "teacher": "endpoint:m"}\n'])
@pytest.mark.parametrize("torn", ["{", '{"user_id": "u", "targ'])
def test_a_torn_row_counts_for_nothing_and_is_removed_on_demand(tmp_path, rows, torn):
    paths = (tmp_path / "out", tmp_path / "rejected")
    paths[0].write_text(rows + torn)
    for repair, left in ((False, rows + torn), (True, rows)):
        assert open_questions([("u", "a"), ("u", "b")], *paths, "endpoint:m", repair=repair) == [0, 1][bool(rows) :]
        assert paths[0].read_text() == left


def test_the_hugging_face_token_stays_at_home(ask, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert ask(lambda *_: GOOD, "a")[-1].authorization == {"Bearer unused"}
    assert ask(lambda *_: GOOD, "a", api_key="mine")[-1].authorization == {"Bearer mine"}


def test_settings_are_checked():
    with pytest.raises(ValueError, match="concurrency is 0"):
        EndpointTeacher("m", concurrency=0)


def test_codes_are_not_taken_for_garbage():
    text = "Buys <a_1><b_2><c_3><d_4>, <a_1><b_3><c_3><d_4>. Next is <a_5><b_2><c_3><d_4>."
    assert read_answer(text, "stop") == (text, None)
