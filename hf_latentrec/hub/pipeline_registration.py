"""What makes `pipeline("next-item-recommendation")` known to transformers, with no remote code."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import AutoModel, PreTrainedConfig
from transformers.pipelines import PIPELINE_REGISTRY

from .pipeline import TASK, NextItemRecommendationPipeline


NAME = "custom_pipelines"


class _OwnPipelines:
    """
    Hides the pipelines that a checkpoint brings along from transformers, which would ask for `trust_remote_code` to
    run a copy of what is installed already. They stay in the configuration, and are saved with it.
    """

    def __get__(self, config, owner=None) -> dict:
        return {}

    def __set__(self, config, value: dict) -> None:
        config.__dict__[NAME] = value


def register_pipeline(config_classes: Iterable[type[PreTrainedConfig]]) -> None:
    """
    Registers the task, and sees to it that checkpoints of these configurations use this library's pipeline.

    Args:
        config_classes: of the models that the pipeline can recommend with.
    """
    for config_class in config_classes:
        setattr(config_class, NAME, _OwnPipelines())
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=NextItemRecommendationPipeline, pt_model=(AutoModel,), type="text"
    )


__all__ = ["register_pipeline"]
