"""The configurations: nested settings survive saving, wrong ones are refused."""

from __future__ import annotations

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

import hf_latentrec  # noqa: F401  (registers the Auto classes)
from hf_latentrec import LatentReasonerConfig, LlamaLatentRecConfig, Qwen2LatentRecConfig, Qwen3LatentRecConfig


CONFIGS = [Qwen2LatentRecConfig, Qwen3LatentRecConfig, LlamaLatentRecConfig]


@pytest.mark.parametrize("config_class", CONFIGS)
def test_saved_and_loaded_with_the_auto_class(config_class, tmp_path):
    config = config_class(
        reasoner_config={"num_thoughts": 4}, embedding_dropout=0.1, start_thought_token_id=5, hidden_size=64
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["reasoner_config"] == {
        "reasoner": "feedback",
        "num_thoughts": 4,
        "thought_markers": True,
        "num_factors": None,
        "adaptive_depth": False,
        "num_iterations": None,
    }
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is config_class
    for name in ("embedding_dropout", "start_thought_token_id", "end_thought_token_id", "hidden_size"):
        assert getattr(loaded, name) == getattr(config, name)
    assert loaded.reasoner_config == LatentReasonerConfig(num_thoughts=4)
    assert AutoConfig.from_pretrained(tmp_path, num_thoughts=2).num_thoughts == 2
    changed = AutoConfig.from_pretrained(tmp_path, reasoner_config={"reasoner": "latent_attention", "num_thoughts": 1})
    assert changed.reasoner_config == LatentReasonerConfig(reasoner="latent_attention", num_thoughts=1)
    assert changed.to_dict()["reasoner_config"]["thought_markers"] is False


def test_settings_that_are_not_named_stay(tmp_path):
    reasoner = {"reasoner": "latent_attention", "num_thoughts": 4, "adaptive_depth": True, "thought_markers": True}
    config = Qwen3LatentRecConfig(reasoner_config=reasoner)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='{"num_thoughts": 2, "adaptive_depth": False}'):
        AutoConfig.from_pretrained(tmp_path, num_thoughts=2)
    for changes in ({"num_thoughts": 2, "adaptive_depth": False}, {"num_thoughts": 8}, {"thought_markers": False}):
        for named in ({}, {"reasoner": "latent_attention"}):
            loaded = AutoConfig.from_pretrained(tmp_path, reasoner_config={**named, **changes})
            assert loaded.reasoner_config == LatentReasonerConfig(**{**reasoner, **changes})
    config.reasoner_config = {"num_thoughts": 3}
    assert config.reasoner_config == LatentReasonerConfig(**{**reasoner, "num_thoughts": 3})
    config.reasoner_config = {"reasoner": "feedback", "thought_markers": False}
    assert config.reasoner_config == LatentReasonerConfig(thought_markers=False)
    with pytest.raises(ValueError, match="num_thoughts 0.*or adaptive_depth=False"):
        AutoConfig.from_pretrained(tmp_path, reasoner_config={"num_thoughts": 0})


def test_no_reasoning_is_the_default():
    assert Qwen3LatentRecConfig().num_thoughts == 0
    assert Qwen3LatentRecConfig(num_thoughts=3).reasoner_config.num_thoughts == 3


def test_factors_are_the_papers_unless_said_otherwise():
    config = LatentReasonerConfig(reasoner="factorized_attention", num_thoughts=1)
    assert (config.num_factors, config.num_iterations, config.thought_markers) == (4, 2, False)
    assert [config.num_steps(n) for n in (0, 1)] == [0, 2]
    other = LatentReasonerConfig(num_thoughts=3)
    assert (other.num_factors, other.num_iterations, other.num_steps(3)) == (None, None, 3)


def test_markers_are_the_papers_unless_said_otherwise():
    assert LatentReasonerConfig(reasoner="feedback").thought_markers
    assert not LatentReasonerConfig(reasoner="latent_attention").thought_markers
    assert not LatentReasonerConfig(reasoner="feedback", thought_markers=False).thought_markers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reasoner_config": {"thoughts": 4}}, "unknown setting.*thoughts"),
        ({"reasoner_config": {"reasoner": "telepathy"}}, "'telepathy' is unknown"),
        ({"num_thoughts": -1}, "num_thoughts is -1"),
        ({"reasoner_config": {"num_factors": 3}}, "num_factors is 3 and num_iterations None"),
        ({"reasoner_config": {"reasoner": "latent_attention", "num_iterations": 2}}, "'latent_attention' has neither"),
        ({"reasoner_config": {"reasoner": "factorized_attention", "num_factors": 0}}, "num_factors is 0"),
        ({"reasoner_config": {"reasoner": "factorized_attention", "num_iterations": 0}}, "num_iterations is 0"),
        ({"reasoner_config": {"reasoner": "factorized_attention", "num_thoughts": 2}}, "num_thoughts is 2.*refines"),
        ({"embedding_dropout": 1.0}, "embedding_dropout is 1.0"),
        ({"use_sliding_window": True, "max_window_layers": 0}, "sliding-window attention"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Qwen3LatentRecConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"embedding_dropout": "0.1"}, "embedding_dropout"),
        ({"start_thought_token_id": 1.5}, "start_thought_token_id"),
        ({"num_thoughts": "3"}, "num_thoughts"),
        ({"reasoner_config": 3}, "reasoner_config"),
        ({"reasoner_config": {"num_thoughts": 2.0}}, "num_thoughts"),
        ({"reasoner_config": {"num_thoughts": 2, "adaptive_depth": "yes"}}, "adaptive_depth"),
    ],
)
@pytest.mark.parametrize("config_class", CONFIGS)
def test_types_are_checked(config_class, settings, field):
    with pytest.raises(StrictDataclassError, match=f"'{field}'"):
        config_class(**settings)


def test_whole_numbers_are_numbers():
    assert Qwen3LatentRecConfig(embedding_dropout=0).embedding_dropout == 0


def test_thoughts_are_checked_on_assignment():
    config = Qwen3LatentRecConfig()
    with pytest.raises(ValueError, match="num_thoughts is -2"):
        config.num_thoughts = -2
