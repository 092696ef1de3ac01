"""Pickled and broken weights are refused and named, by LLM recommenders, LARES and the baselines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, Qwen3Config, Qwen3ForCausalLM

from hf_latentrec import LaresForSequentialRecommendation, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.models.lares import safe_weights as of_lares
from hf_latentrec.models.latent_reasoning import safe_weights
from tests.models.lares.toy_models import make_model as make_sequential
from tests.models.latent_reasoning.conftest import SIZES


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    config = Qwen3LatentRecConfig(**SIZES, head_dim=8)
    torch.manual_seed(0)
    Qwen3ForLatentReasoningRec(config).save_pretrained(folder / "llm")
    for kind in ("lares", "sasrec"):
        make_sequential(kind).save_pretrained(folder / kind)
    return folder


@pytest.fixture(params=["llm", "lares", "sasrec"])
def folder(request, originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals / request.param, tmp_path / "model"))


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights(folder):
    pickle_weights(folder)
    message = r"the weights of .* are in pytorch_model\.bin alone, a pickle.*use a revision with model\.safetensors"
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="use_safetensors is False; leave it out"):
        AutoModel.from_pretrained(folder, use_safetensors=False)
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model.bin.index.json")
    with pytest.raises(ValueError, match=r"in pytorch_model\.bin\.index\.json alone"):
        AutoModel.from_pretrained(folder)


def test_a_pickle_beside_safetensors_is_not_read(folder):
    (folder / "pytorch_model.bin").write_text("no weights")
    loaded, saved = AutoModel.from_pretrained(folder).state_dict(), load_file(folder / "model.safetensors")
    assert saved and all(torch.equal(loaded[name], weight) for name, weight in saved.items())


def test_a_pickled_backbone(tmp_path):
    Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)).save_pretrained(tmp_path)
    assert Qwen3ForLatentReasoningRec.from_pretrained(tmp_path).num_parameters()
    pickle_weights(tmp_path)
    with pytest.raises(ValueError, match=r"in pytorch_model\.bin alone"):
        Qwen3ForLatentReasoningRec.from_pretrained(tmp_path)


@pytest.mark.parametrize("length", [0, 30, -10])
def test_truncated_weights(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors of .* is truncated or no safetensors file"):
        AutoModel.from_pretrained(folder)


def test_a_truncated_shard(originals, tmp_path):
    AutoModel.from_pretrained(originals / "llm").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert AutoModel.from_pretrained(tmp_path).num_parameters()
    shards[1].write_bytes(shards[1].read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf": {shards[1].name} of .* is truncated"):
        AutoModel.from_pretrained(tmp_path)
    shards[1].unlink()
    with pytest.raises(OSError, match=shards[1].name):
        AutoModel.from_pretrained(tmp_path)


def test_missing_files(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named model.safetensors"):
        AutoModel.from_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(OSError, match="config.json' is not a valid JSON file"):
        AutoModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="in its config.json"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["missing", "missing/model"])
def test_a_mistyped_path_is_the_error_of_transformers(tmp_path, name):
    messages = []
    for model_class in (Qwen3ForCausalLM, Qwen3ForLatentReasoningRec, LaresForSequentialRecommendation):
        with pytest.raises(OSError) as error:
            model_class.from_pretrained(tmp_path / name)
        messages.append(str(error.value))
    assert str(tmp_path / name) in messages[0] and len(set(messages)) == 1


def test_both_folders_have_the_same_code():
    assert Path(of_lares.__file__).read_text() == Path(safe_weights.__file__).read_text()
