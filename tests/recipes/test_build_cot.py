"""The recipe that writes teacher text, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_latentrec.cot import read_teacher_text
from tests.cot.chat_server import GOOD, chat_server


RECIPE = Path(__file__).parents[2] / "recipes" / "build_cot.py"

# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(RECIPE.parent))

import build_cot as recipe  # noqa: E402


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Ten users with six items each, three of them training targets, out of twenty items with two codes."""
    folder = tmp_path_factory.mktemp("data")
    inter = {str(u): [(u * 3 + 7 * k) % 20 for k in range(6)] for u in range(10)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i // 5}>", f"<b_{i % 5}>"] for i in range(20)}))
    return folder


@pytest.fixture
def run(data_dir, tmp_path, monkeypatch):
    """`run(...)`: the exit status, with output in `out.jsonl`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def run(*arguments):
        arguments = [f"--data_dir={data_dir}", f"--output={tmp_path / 'out.jsonl'}", *map(str, arguments)]
        return recipe.main(*recipe.make_parser().parse_args_and_config(arguments))

    return run


@pytest.fixture
def rows(tmp_path):
    def rows(name="out.jsonl"):
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    return rows


def test_templates(run, rows, tmp_path, capsys):
    assert run() == 0
    text = rows()
    assert len(text) == 30 and {row["teacher"] for row in text} == {"template"}
    assert "Template teacher: 30 texts" in capsys.readouterr().out
    assert all(row["cot"].startswith("Behavioral evidence: ") for row in text)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert run() == 0 and (tmp_path / "out.jsonl").read_bytes() == before
    assert len(read_teacher_text(tmp_path / "out.jsonl")) == 30


def test_an_endpoint_and_its_resumption(run, rows, capsys):
    def behave(prompt, before):
        return {"<a_0><b_0>": "", "<a_0><b_1>": 500}.get(prompt.removeprefix("Next item: "), GOOD)

    with chat_server(behave) as seen:
        endpoint = ("--teacher=endpoint", "--model=m", f"--base_url={seen.url}", "--max_tries=1", "--first_wait=0.01")
        assert run(*endpoint) == 1
        captured = capsys.readouterr()
        refused, lost = seen.asked["Next item: <a_0><b_0>"], seen.asked["Next item: <a_0><b_1>"]
        assert refused and lost and seen.asked.total() == 30
        assert f"{30 - refused - lost} texts to" in captured.out and f"(empty {refused})" in captured.out
        assert "no titles" in captured.out
        assert f"{lost} examples have no answer yet" in captured.err and "same command again" in captured.err
        assert len(rows()) == 30 - refused - lost and len(rows("out.jsonl.rejected.jsonl")) == refused
        seen.asked.clear()
        assert run(*endpoint) == 1
        assert seen.asked == {"Next item: <a_0><b_1>": lost}
    with chat_server(lambda *_: GOOD) as seen:
        endpoint = ("--teacher=endpoint", "--model=m", f"--base_url={seen.url}")
        assert run(*endpoint) == 0 and seen.asked.total() == lost
        assert run(*endpoint) == 0 and seen.asked.total() == lost  # nothing left to ask
    assert len(rows()) == 30 - refused


def test_a_killed_run_loses_nothing_and_asks_nothing_twice(data_dir, run, tmp_path, rows, capsys):
    with chat_server(lambda *_: GOOD, delay=0.1) as seen:
        command = [
            sys.executable, str(RECIPE), f"--data_dir={data_dir}", f"--output={tmp_path / 'out.jsonl'}",
            "--teacher=endpoint", "--model=m", f"--base_url={seen.url}", "--concurrency=2",
        ]  # fmt: skip
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(RECIPE.parents[1])}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while seen.asked.total() < 10 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered = rows()
        under_way = seen.asked.total() - len(answered)
        assert 5 <= len(answered) < 30 and 0 <= under_way <= 2  # what was answered is in the file
        with (tmp_path / "out.jsonl").open("a") as file:
            file.write('{"user_id": "torn')

        time.sleep(0.3)
        seen.bodies.clear()
        assert run("--teacher=endpoint", "--model=m", f"--base_url={seen.url}") == 0
        assert f"{len(answered)} examples were done before" in capsys.readouterr().out
        assert len(seen.bodies) == 30 - len(answered)
    assert rows()[: len(answered)] == answered
    assert len({(row["user_id"], row["target"]) for row in rows()}) == len(rows()) == 30


def test_a_dry_run_asks_nobody(run, tmp_path, capsys):
    (tmp_path / "out.jsonl").write_text('{"user_id": "torn')
    with chat_server(lambda *_: GOOD) as seen:
        assert run("--teacher=endpoint", "--model=m", f"--base_url={seen.url}", "--dry_run", "--max_tokens=100") == 0
        assert not seen.asked
    printed = capsys.readouterr().out
    assert "30 requests to m" in printed and "at most 3,000 out" in printed
    assert printed.count("Next item: ") == 2 and "Step 5: Denoised Sequence" in printed
    assert [path.read_text() for path in tmp_path.glob("out*")] == ['{"user_id": "torn']


def test_a_file_of_ones_own(run, rows, tmp_path, capsys):
    own = tmp_path / "own.jsonl"
    keys = [(0, 14), (1, None), ("nobody", None), (2, 99)]
    own.write_text("".join(json.dumps({"user_id": u, "target": t, "cot": "Text."}) + "\n" for u, t in keys))
    assert run("--teacher=file", f"--text_file={own}") == 0
    assert [(row["user_id"], row["target"], row["teacher"]) for row in rows()] == [
        ("0", "14", "file"), ("1", None, "file"), ("2", "99", "file"),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "4 of 30 training examples have one, 26 have none; 1 row(s) of unknown users" in printed
    assert "1 row(s) are for no training target" in printed

    own.write_text('{"user_id": "nobody", "cot": "Text."}\n')
    with pytest.raises(ValueError, match="none of its 1 rows is for one of the 30"):
        run("--teacher=file", f"--text_file={own}")
    assert len(rows()) == 3


def test_what_another_teacher_wrote_is_not_touched(run, rows, tmp_path):
    path = tmp_path / "out.jsonl"
    expensive = json.dumps({"user_id": "0", "target": "7", "cot": "Text.", "teacher": "endpoint:m"}) + "\n"
    path.write_text(expensive)
    for arguments in ((), ("--teacher=endpoint", "--model=other", "--base_url=http://127.0.0.1:9/v1")):
        with pytest.raises(ValueError, match="was written by teacher 'endpoint:m'"):
            run(*arguments)
    assert path.read_text() == expensive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher=endpoint"], "needs --model"),
        (["--teacher=file"], "needs --text_file"),
        (["--model=m"], "--model is for --teacher endpoint"),
        (["--dry_run"], "--dry_run is for --teacher endpoint"),
        (["--teacher=endpoint", "--model=m", "--api_key_env=NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
    ],
)
def test_arguments_that_do_not_fit(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)


@pytest.mark.parametrize(("name", "value"), [("teacher", "tempalte"), ("item_tokenization", "titel")])
def test_choices_of_a_config_file_are_checked(run, tmp_path, name, value):
    (tmp_path / "cot.yaml").write_text(f"{name}: {value}\n")
    with pytest.raises(ValueError, match=f"{name} is '{value}'; choose one of"):
        run("--config", tmp_path / "cot.yaml")
