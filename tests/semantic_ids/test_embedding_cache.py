"""The cache's bookkeeping against a dictionary."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hf_latentrec.semantic_ids.embedding_cache import EmbeddingCache, text_keys


def vectors(texts):
    return np.array([[len(text), sum(map(ord, text)), ord(text[-1])] for text in texts], dtype=np.float32)


def test_a_key_is_the_sha256_of_the_text():
    texts = ["Lamp", "Lampe, weiß", *(str(number) for number in range(600))]  # about two of 600 end in a zero byte
    keys = text_keys(texts)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    assert any(digest.endswith(b"\0") for digest in digests)
    assert keys.tobytes() == b"".join(digests)


@pytest.mark.parametrize("seed", range(3))
def test_missing_and_assembled_are_those_of_a_dictionary(tmp_path, seed):
    rng, known = np.random.default_rng(seed), {}
    cache = EmbeddingCache(tmp_path, {"model": "a"}, "organization/model: a")
    for _ in range(8):
        texts = [f"text {number}" for number in rng.integers(0, 900, rng.integers(1, 200))]
        keys = text_keys(texts)
        rows = cache.missing(keys)
        expected = []
        for row, text in enumerate(texts):
            if text not in known and text not in texts[:row]:
                expected.append(row)
        assert rows.tolist() == expected
        for part in np.array_split(rng.permutation(rows), 3):
            new = [texts[row] for row in part]
            if new:
                cache.add(keys[part], vectors(new))
                known.update(zip(new, vectors(new), strict=True))
        assert cache.open(keys) is None
        cache.assemble(keys)
        np.testing.assert_array_equal(cache.open(keys), [known[text] for text in texts])


def test_the_folder_has_a_readable_name(tmp_path):
    one, other = (EmbeddingCache(tmp_path, {"model": kind}, "organization/model") for kind in "ab")
    assert one.folder != other.folder and one.folder.parent == tmp_path
    assert one.folder.name.startswith("organization_model-")


def test_a_chunk_that_vanished_is_named(tmp_path):
    cache, keys = EmbeddingCache(tmp_path, {"model": "a"}, "a"), text_keys(["a", "b"])
    cache.missing(keys)
    cache.add(keys[:1], vectors(["a"]))
    with pytest.raises(ValueError, match="vanished meanwhile"):
        cache.assemble(keys)


@pytest.mark.parametrize("other", [np.zeros((2, 3)), np.zeros(2, np.float32), np.zeros((3, 3), np.float32)])
def test_a_result_of_another_shape_is_made_again(tmp_path, caplog, other):
    cache, keys = EmbeddingCache(tmp_path, {"model": "a"}, "a"), text_keys(["a", "b"])
    cache.missing(keys)
    cache.add(keys, vectors(["a", "b"]))
    cache.assemble(keys)
    (path,) = cache.folder.glob("texts-*.npy")
    np.save(path, other)
    assert cache.open(keys) is None and "damaged" in caplog.text and not path.exists()
