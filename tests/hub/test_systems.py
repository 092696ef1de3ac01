"""Which system a model is, is declared by its configuration and its trainer."""

from __future__ import annotations

import re

import pytest

import hf_latentrec
from hf_latentrec import LaresConfig, Qwen2LatentRecConfig, Qwen3LatentRecConfig, SASRecConfig
from hf_latentrec.hub import SYSTEMS, system_of
from hf_latentrec.models.lares.configuration_sequential import SequentialConfig
from hf_latentrec.trainer import SequentialTrainingConfig


def thinking(**reasoner) -> Qwen3LatentRecConfig:
    return Qwen3LatentRecConfig(reasoner_config={"num_thoughts": 1, **reasoner})


@pytest.mark.parametrize(
    ("reasoner", "trainer", "system"),
    [
        ({"reasoner": "latent_attention"}, "LatentSFTTrainer", "latentr3"),
        ({"reasoner": "latent_attention"}, None, "latentr3"),
        ({"reasoner": "factorized_attention"}, "LRGRPOTrainer", "flr"),
        ({"reasoner": "feedback", "num_thoughts": 4}, "LASARSFTTrainer", "lasar"),
        ({"reasoner": "feedback", "num_thoughts": 4}, "LatentSFTTrainer", None),
        ({"reasoner": "feedback", "num_thoughts": 4}, None, None),
        ({"reasoner": "feedback", "num_thoughts": 8, "adaptive_depth": True}, None, "lasar"),
    ],
)
def test_a_language_model_that_thinks(reasoner, trainer, system):
    assert system_of(thinking(**reasoner), "title", trainer) == system


def test_without_thoughts_it_is_the_control():
    config = Qwen2LatentRecConfig(reasoner_config={"reasoner": "latent_attention", "num_thoughts": 0})
    assert system_of(config, "title", "LatentSFTTrainer") == "bigrec"
    assert system_of(config, "semantic_id", "LASARGRPOTrainer") == "minionerec"
    assert system_of(config) is None


def test_every_recommender_of_item_ids_is_a_system():
    configs = [getattr(hf_latentrec, name) for name in hf_latentrec.__all__ if name.endswith("Config")]
    found = {config.__name__: system_of(config()) for config in configs if issubclass(config, SequentialConfig)}
    assert len(found) == 11 and None not in found.values() and len(set(found.values())) == 11


def test_contrastive_losses_make_other_systems_of_sasrec():
    args = {name: SequentialTrainingConfig("out", contrastive=name, use_cpu=True) for name in ("cl4srec", "duorec")}
    assert [system_of(SASRecConfig(), training_args=args[name]) for name in args] == ["cl4srec", "duorec"]
    assert system_of(SASRecConfig(), training_args=SequentialTrainingConfig("out", use_cpu=True)) == "sasrec"
    assert system_of(LaresConfig(), training_args=args["duorec"]) == "lares"


def test_systems_are_described_and_cited():
    for key, system in SYSTEMS.items():
        assert 2 <= len(re.findall(r"\.(?= |$)", system.summary)) <= 3, key
        citation = system.bibtex(key)
        if citation is None:
            assert key == "popularity"
        else:
            assert citation.startswith(f"@misc{{{key},\n  title = {{") and citation.count("{") == citation.count("}")
    assert all(key in SYSTEMS for key in ("lasar", "latentr3", "flr", "lares"))
