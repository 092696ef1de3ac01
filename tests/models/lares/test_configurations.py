"""Settings that are refused, and configurations that are saved and loaded."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hf_latentrec import LaresConfig, SASRecConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_items": 0}, "num_items is 0; pass a positive number"),
        ({"max_history": 0}, "max_history is 0"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size 10 is no multiple of num_attention_heads 4"),
        ({"dropout": 1.0}, "dropout is 1.0; pass a value in"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"objective": "hinge"}, "objective is 'hinge'; choose one of"),
        ({"num_negatives": 0}, "num_negatives is 0"),
    ],
)
@pytest.mark.parametrize("config_class", [SASRecConfig, LaresConfig])
def test_settings_of_every_recommender(config_class, settings, message):
    with pytest.raises(ValueError, match=f"{config_class.__name__}: {message}"):
        config_class(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "gru"}, "backbone is 'gru'; choose one of"),
        ({"aggregation": "mean"}, "aggregation is 'mean'; choose one of"),
        ({"num_pre_layers": -1}, "num_pre_layers is -1; pass 0 or more"),
        ({"num_core_layers": 0}, "num_core_layers is 0; pass 1 or more"),
        ({"mean_steps": 0}, "mean_steps is 0; pass 1 or more"),
        ({"initial_std": -1.0}, "initial_std is -1.0; pass 0 or more"),
    ],
)
def test_settings_of_lares(settings, message):
    with pytest.raises(ValueError, match=f"LaresConfig: {message}"):
        LaresConfig(**settings)


def test_types_are_checked():
    with pytest.raises(StrictDataclassError):
        LaresConfig(mean_steps="four")


def test_defaults_are_those_of_the_paper():
    config = LaresConfig()
    assert (config.num_pre_layers, config.num_core_layers, config.mean_steps) == (2, 2, 4)
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (64, 256, 2)
    assert (config.dropout, config.max_history, config.initial_std, config.initial_scale) == (0.5, 20, 1.0, 3.0)


@pytest.mark.parametrize(
    "config",
    [SASRecConfig(num_items=5, objective="bce"), LaresConfig(num_items=7, mean_steps=2, aggregation="concat")],
)
def test_saved_and_loaded(tmp_path, config):
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is type(config)
    assert loaded.to_diff_dict().keys() == config.to_diff_dict().keys()
    assert loaded.num_items == config.num_items and loaded.objective == config.objective
    if isinstance(config, LaresConfig):
        assert (loaded.mean_steps, loaded.aggregation) == (2, "concat")
