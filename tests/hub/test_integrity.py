"""Every file that is missing, changed, pickled or smuggled in is named."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

from hf_latentrec.hub import integrity
from hf_latentrec.hub.integrity import check_files, is_pickle, write_checksums
from tests.models.lares.toy_models import make_model
from tests.tiny import make_tiny_recommender


@pytest.fixture
def folder(tmp_path) -> Path:
    """A made-up model with a file for every case."""
    (tmp_path / "evaluation").mkdir()
    files = {"config.json": "{}", "model.safetensors": "w" * 50, "code.py": "x = 1", "evaluation/run.json": "[]"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_size_and_digest_of_every_file(folder, monkeypatch):
    monkeypatch.setattr(integrity, "BLOCK_SIZE", 7)
    (folder / "README.md").write_text("card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("{}")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.pyc").write_text("")
    path = write_checksums(folder)
    assert path == folder / "checksums.json"
    described = json.loads(path.read_text())["files"]
    assert set(described) == {"config.json", "model.safetensors", "code.py", "evaluation/run.json"}
    for name, values in described.items():
        content = (folder / name).read_bytes()
        assert values == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    check_files(folder)
    before = path.read_bytes()
    assert write_checksums(str(folder)).read_bytes() == before  # does not describe itself


def test_what_is_no_part_of_the_model_may_change(folder):
    write_checksums(folder)
    for name in ("README.md", "figure.png", "notes.txt", "evaluation/ranks.parquet", ".gitattributes"):
        (folder / name).write_text("new")
    check_files(folder)


def test_all_problems_are_named_at_once(folder):
    write_checksums(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_text("v" * 50)
    (folder / "code.py").write_text("x = 1  # longer")
    (folder / "evaluation" / "more.py").write_text("")
    (folder / "state.pt").write_text("")
    with pytest.raises(ValueError) as error:
        check_files(folder)
    for problem in (
        f"{folder} is not the model that was saved",
        "config.json is missing",
        "model.safetensors has another content",
        "code.py has 15 bytes, not 5",
        "evaluation/more.py is code that checksums.json does not name",
        "state.pt is a pickle",
    ):
        assert problem in str(error.value)
    assert "run.json" not in str(error.value)


@pytest.mark.parametrize("name", ["new.py", "sub/new.PY", "lib.so", "lib.dll", "new.pyc"])
def test_new_code(folder, name):
    write_checksums(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    with pytest.raises(ValueError, match=f"{name} is code that checksums.json does not name"):
        check_files(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "optimizer.PT", "a/x.pkl"])
def test_pickles_by_name(folder, name):
    write_checksums(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    for call in (check_files, write_checksums):
        with pytest.raises(ValueError, match=f"{name} is a pickle"):
            call(folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(ValueError, match=f"{name} is a pickle"):
        check_files(folder)


def test_pickles_by_content(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "zipped.bin")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "numbers.bin").write_bytes(b"\x00\x01\x02")
    (tmp_path / "empty.bin").write_bytes(b"")
    found = {path.name: is_pickle(path) for path in tmp_path.iterdir()}
    assert found == {"zipped.bin": True, "plain.bin": True, "numbers.bin": False, "empty.bin": False}


def test_folders_that_cannot_be_checked(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        check_files(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no files"):
        write_checksums(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no checksums.json; write it with write_checksums"):
        check_files(tmp_path)
    for text in ("", '{"files": {"config.json"', "[]", "{}", '{"files": {"config.json": 3}}', '{"files": []}'):
        (tmp_path / "checksums.json").write_text(text)
        with pytest.raises(ValueError, match="checksums.json is truncated or no list of checksums"):
            check_files(tmp_path)


def test_saved_models(tmp_path):
    tiny = make_tiny_recommender()
    tiny.model.save_pretrained(tmp_path / "llm")
    tiny.processor.save_pretrained(tmp_path / "llm")
    make_model("lares").save_pretrained(tmp_path / "lares")
    for name, some in (("llm", "catalog.safetensors"), ("lares", "items.json")):
        write_checksums(tmp_path / name)
        check_files(tmp_path / name)
        (tmp_path / name / some).write_bytes((tmp_path / name / some).read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"{some} has"):
            check_files(tmp_path / name)
