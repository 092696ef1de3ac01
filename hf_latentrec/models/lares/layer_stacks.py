"""Which layers a configuration asks for."""

from __future__ import annotations

from .configuration_lares import LaresConfig
from .frequency_layers import FilterLayer, FrequencyAttentionLayer
from .sequence_encoders import LayerStack, TransformerLayer


# TedRec's fusion of ids and texts comes before its layers, which are SASRec's.
LAYERS = {
    "sasrec": TransformerLayer,
    "fmlp": FilterLayer,
    "bsarec": FrequencyAttentionLayer,
    "tedrec": TransformerLayer,
}


def build_stack(config: LaresConfig, num_layers: int) -> LayerStack:
    """
    Layers of the backbone that a configuration names.

    Args:
        config ([`LaresConfig`]): names the backbone.
        num_layers (`int`): how many.

    Returns:
        [`LayerStack`].
    """
    return LayerStack([LAYERS[config.backbone](config) for _ in range(num_layers)])


__all__ = ["LAYERS", "build_stack"]
