"""Embeddings from elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from hf_latentrec.semantic_ids.embedding_files import load_embeddings


IDS = ["a", "b", "c", "d"]


def write(folder, suffix, embeddings, ids):
    path = folder / f"own{suffix}"
    if suffix == ".npy":
        np.save(path, embeddings)
        (folder / "own.ids.json").write_text(json.dumps(ids))
    else:
        save_file({"embeddings": embeddings}, path, metadata={"item_ids": json.dumps(ids)})
    return path


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wanted", [IDS, IDS[::-1], ["d", "b"]])
def test_rows_come_in_the_order_of_the_items(tmp_path, suffix, dtype, wanted):
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    found = load_embeddings(write(tmp_path, suffix, embeddings, IDS), wanted)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [embeddings[IDS.index(item)].astype(np.float32) for item in wanted])
    in_place = suffix == ".npy" and dtype == np.float32 and wanted == IDS
    assert isinstance(found, np.memmap) == in_place and not (in_place and found.flags.writeable)


def test_whole_numbers_are_ids(tmp_path):
    path = write(tmp_path, ".npy", np.eye(2, dtype=np.float32), [10, 9])
    assert load_embeddings(path, ["9", "10"]).tolist() == [[0, 1], [1, 0]]


EYE = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize(
    ("embeddings", "ids", "message"),
    [
        (EYE, IDS[:3], "4 rows, but 3 item ids"),
        (EYE, ["a", "b", "c", "b"], r"'b' appears more than once \(rows 1, 3\)"),
        (EYE, ["a", "x", "c", "y"], "2 of 4 items have no embedding, first 'b', 'd'"),
        (EYE, ["a", None, "c", "d"], "position 1: None is not an item id"),
        (EYE, {"a": 0}, "expected a list of item ids"),
        (EYE.astype(np.int32), IDS, "int32 of shape"),
        (EYE[0], IDS, r"float32 of shape \(4,\)"),
        (EYE[:, :0], IDS, r"float32 of shape \(4, 0\)"),
        (np.where(EYE > 0, np.nan, EYE)[::-1].copy(), IDS, "the embedding of item 'a' is not finite"),
        (np.full((4, 2), 1e300), IDS, "not finite in float32"),
    ],
)
def test_bad_files(tmp_path, suffix, embeddings, ids, message):
    with pytest.raises(ValueError, match=message):
        load_embeddings(write(tmp_path, suffix, embeddings, ids), IDS)


def test_a_row_that_is_not_finite_is_found_in_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_latentrec.semantic_ids.embedding_files.BLOCK_ROWS", 3)
    broken = EYE.copy()
    broken[3, 1] = np.inf
    with pytest.raises(ValueError, match="item 'd'"):
        load_embeddings(write(tmp_path, ".npy", broken, IDS), IDS)


def test_damaged_and_missing_files(tmp_path):
    for suffix in (".npy", ".safetensors"):
        path = write(tmp_path, suffix, EYE, IDS)
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ValueError, match="not a readable"):
            load_embeddings(path, IDS)
    path = write(tmp_path, ".npy", EYE, IDS)
    (tmp_path / "own.ids.json").write_text('["a", "b"')
    with pytest.raises(ValueError, match="own.ids.json: not valid JSON"):
        load_embeddings(path, IDS)
    (tmp_path / "own.ids.json").unlink()
    with pytest.raises(FileNotFoundError, match="own.ids.json"):
        load_embeddings(path, IDS)
    with pytest.raises(FileNotFoundError, match="nothing.npy"):
        load_embeddings(tmp_path / "nothing.npy", IDS)


def test_files_of_another_kind(tmp_path):
    (tmp_path / "own.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"read from \.npy and \.safetensors"):
        load_embeddings(tmp_path / "own.pt", IDS)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a readable \.npy file"):
        load_embeddings(tmp_path / "objects.npy", IDS)
    save_file({"weight": EYE}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"the tensors \['weight'\] and the metadata \[\]; expected"):
        load_embeddings(tmp_path / "model.safetensors", IDS)
    tensors = {"embeddings": torch.eye(4, dtype=torch.bfloat16)}
    save_torch_file(tensors, tmp_path / "half.safetensors", metadata={"item_ids": json.dumps(IDS)})
    with pytest.raises(ValueError, match="write it again, with float32 or float16"):
        load_embeddings(tmp_path / "half.safetensors", IDS)
