"""Anchors: built, found, mapped, resumed, refused."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

import hf_latentrec.cot.anchor_building as building
from hf_latentrec.cot import AnchorStore, build_anchors, model_fingerprint, text_fingerprint
from hf_latentrec.cot.segment_encoding import encode_with_codes


@pytest.fixture
def build(tiny, segments, tmp_path):
    """`build(...)`: anchors in several shards."""

    def build(segments=segments, model=tiny.model, folder=tmp_path / "anchors", **settings):
        settings = {"shard_size": 40, "batch_size": 7, **settings}
        return build_anchors(model, tiny.processor.tokenizer, segments, folder, **settings)

    return build


def alone(tiny, text, max_tokens=512):
    ids = encode_with_codes(tiny.processor.tokenizer, [text])[0][:max_tokens]
    with torch.no_grad():
        return tiny.model.model(torch.tensor([ids])).last_hidden_state[0, -1]


def rows_of(*rows):
    return Dataset.from_list([dict(zip(("user_id", "target", "segments"), row, strict=True)) for row in rows])


def test_lookup_gives_the_state_after_each_segment(tiny, segments, build):
    store = build()
    assert len(store.index["shards"]) > 2 and store.hidden_size == 32 and len(store) == len(segments)
    order = np.random.default_rng(0).permutation(len(segments))[:20].tolist()
    rows = segments.select(order)
    anchors, num_segments = store.lookup(rows["user_id"], rows["target"])
    lengths = [len(row) for row in rows["segments"]]
    assert num_segments.tolist() == lengths and num_segments.dtype == torch.int64
    assert anchors.shape == (20, max(lengths), 32) and anchors.dtype == torch.float32 and len(set(lengths)) > 1
    for row, texts in enumerate(rows["segments"]):
        assert not anchors[row, len(texts) :].any()
        for step, text in enumerate(texts):
            torch.testing.assert_close(anchors[row, step], alone(tiny, text), rtol=1e-5, atol=1e-5)
    assert store.num_segments(rows["user_id"], rows["target"]).tolist() == lengths
    assert store.num_segments([], []).dtype == np.int64


def test_who_has_no_text(tiny, build):
    store = build(rows_of(("u", "a", ["One.", "Two."]), ("u", None, ["Three."]), ("v", "a", ["Four."])))
    anchors, num_segments = store.lookup(["u", "u", "v", "v", "w"], ["a", "b", "a", "b", "a"])
    assert num_segments.tolist() == [2, 1, 1, 0, 0]
    for row, texts in enumerate([["One.", "Two."], ["Three."], ["Four."], [], []]):
        expected = torch.zeros(2, 32)
        for step, text in enumerate(texts):
            expected[step] = alone(tiny, text)
        torch.testing.assert_close(anchors[row], expected, rtol=1e-5, atol=1e-5)
    assert store.num_segments(["w", "u"], ["a", "z"]).tolist() == [0, 1]
    for_all = build(rows_of(("u", None, ["One."])), folder=store.folder / "for_all")
    assert for_all.num_segments(["u", "v"], ["a", "a"]).tolist() == [1, 0]
    nothing, none = store.lookup(["w"], ["a"])
    assert nothing.shape == (1, 1, 32) and not nothing.any() and none.tolist() == [0]
    assert store.lookup([], [])[0].shape == (0, 1, 32)


def test_equal_segments_are_encoded_once(segments, build, monkeypatch):
    encoded = []
    encode = building.encode_with_codes
    monkeypatch.setattr(
        building, "encode_with_codes", lambda tokenizer, texts: encoded.extend(texts) or encode(tokenizer, texts)
    )
    store = build()
    flat = [text for row in segments["segments"] for text in row]
    assert sorted(encoded) == sorted(set(flat)) and len(encoded) < len(flat)
    assert store.index["num_anchors"] == len(encoded) and store.index["num_segments"] == len(flat)


def test_a_model_in_training_stays_so_and_is_encoded_without_dropout(tiny, segments, build, tmp_path):
    model = copy.deepcopy(tiny.model)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    found = build(model=model, folder=tmp_path / "other").lookup(segments["user_id"], segments["target"])[0]
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(found, build().lookup(segments["user_id"], segments["target"])[0])


def test_finished_anchors_are_opened_not_built(segments, build, monkeypatch):
    build()
    monkeypatch.setattr(building, "encode_with_codes", None)
    order = np.random.default_rng(0).permutation(len(segments))
    assert len(build(segments.select(order))) == len(segments)  # in any order of the rows


def test_a_killed_run_keeps_its_shards(segments, build, monkeypatch, tmp_path):
    expected = build(folder=tmp_path / "whole").lookup(segments["user_id"], segments["target"])[0]
    encode, calls = building.encode_with_codes, []

    def die(tokenizer, texts):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(texts)
        return encode(tokenizer, texts)

    monkeypatch.setattr(building, "encode_with_codes", die)
    with pytest.raises(KeyboardInterrupt):
        build()
    folder = tmp_path / "anchors"
    with pytest.raises(ValueError, match="no complete anchors"):
        AnchorStore.open(folder)
    (folder / "anchors-00002-of-00099.safetensors.unfinished").write_bytes(b"half")
    first_files = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(first_files) == 2

    calls.clear()
    monkeypatch.setattr(building, "encode_with_codes", lambda *args: calls.append(1) or encode(*args))
    store = build()
    assert len(calls) == len(store.index["shards"]) - 2
    assert {path: path.stat().st_mtime_ns for path in first_files} == first_files
    torch.testing.assert_close(store.lookup(segments["user_id"], segments["target"])[0], expected)


def test_stale_anchors_are_refused(tiny, segments, build, monkeypatch, tmp_path):
    folder = tmp_path / "anchors"
    build()
    model, text = model_fingerprint(tiny.model), text_fingerprint(segments)
    assert AnchorStore.open(folder, model_fingerprint=model, text_fingerprint=text).hidden_size == 32
    with pytest.raises(ValueError, match=f"stale.*model_fingerprint is {model}, expected 0"):
        AnchorStore.open(folder, model_fingerprint="0")
    with pytest.raises(ValueError, match=f"stale.*text_fingerprint is {text}, expected 1"):
        AnchorStore.open(folder, text_fingerprint="1")
    other = copy.deepcopy(tiny.model)
    with torch.no_grad():
        other.model.norm.weight += 1
    with pytest.raises(ValueError, match="stale.*model_fingerprint"):
        build(model=other)
    with pytest.raises(ValueError, match="stale.*text_fingerprint"):
        build(segments.select(range(5)))
    with pytest.raises(ValueError, match="stale.*max_tokens is 512, expected 9"):
        build(max_tokens=9)
    (folder / "index.json").unlink()  # as after a kill: the shards know what they are of
    with pytest.raises(ValueError, match="stale.*model_fingerprint"):
        build(model=other)
    with pytest.raises(ValueError, match="no complete anchors"):
        AnchorStore.open(tmp_path / "nothing")


def test_another_version_is_refused(build, tmp_path):
    build()
    path = tmp_path / "anchors" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    with pytest.raises(ValueError, match="version 0, but version 1 is read"):
        AnchorStore.open(path.parent)


def test_long_segments_are_cut_and_counted(tiny, build, caplog):
    text = "A long segment that goes on and on."
    with caplog.at_level(logging.WARNING):
        store = build(rows_of(("u", "a", [text, "Short."])), max_tokens=10)
    assert store.index["num_cut"] == 1 and "1 segment(s) are longer than 10 tokens" in caplog.text
    torch.testing.assert_close(store.lookup(["u"], ["a"])[0][0, 0], alone(tiny, text, 10), rtol=1e-5, atol=1e-5)


def test_half_the_bytes(segments, build, tmp_path):
    users, targets = segments["user_id"], segments["target"]
    full, half = build(), build(folder=tmp_path / "half", dtype=torch.float16)
    found = half.lookup(users, targets)[0]
    assert found.dtype == torch.float32 and half.index["dtype"] == "float16"
    torch.testing.assert_close(found, full.lookup(users, targets)[0], rtol=2e-3, atol=2e-3)


def test_shards_are_mapped_not_read(segments, build):
    if sys.platform != "linux":
        pytest.skip("reads /proc/self/maps")
    store = build()
    maps = Path("/proc/self/maps").read_text()
    assert all(str(store.folder / shard["file"]) in maps for shard in store.index["shards"])


def test_workers_get_the_folder_not_the_numbers(segments, build):
    store = build()
    content = pickle.dumps(store)
    assert len(content) < 500
    users, targets = segments["user_id"][:3], segments["target"][:3]
    assert torch.equal(pickle.loads(content).lookup(users, targets)[0], store.lookup(users, targets)[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("u", "a", ["One."]), ("u", "a", ["Two."])], r"user 'u' with target 'a' has several rows \(2 such"),
        ([("u", None, ["One."]), ("u", None, ["Two."])], "user 'u' with target None has several rows"),
        ([("u", "a", ["One."]), ("v", "a", ["One.", " "])], r"row 1 \(user 'v'\) has no segment, or a blank one"),
        ([("u", "a", ["One."]), ("v", "a", [])], r"row 1 \(user 'v'\) has no segment"),
    ],
)
def test_bad_segments(build, rows, message):
    with pytest.raises(ValueError, match=message):
        build(rows_of(*rows))


def test_a_broken_model_is_noticed(tiny, build):
    broken = copy.deepcopy(tiny.model)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"state after segment 'One.' is not finite as float32 \(1 of 1"):
        build(rows_of(("u", "a", ["One."])), model=broken)
