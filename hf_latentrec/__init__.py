"""hf_latentrec: recommenders that think in latent space before they answer, for transformers and TRL.

Importing the package registers its models and its processor with the Auto classes of transformers.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoProcessor

from .models.lares.configuration_lares import LaresConfig
from .models.lares.item_table import ItemTable
from .models.lares.modeling_lares import LaresForSequentialRecommendation, LaresModel
from .models.latent_reasoning.catalog import ItemCatalog
from .models.latent_reasoning.configuration_latent_reasoning import (
    LatentReasonerConfig,
    LlamaLatentRecConfig,
    Qwen2LatentRecConfig,
    Qwen3LatentRecConfig,
)
from .models.latent_reasoning.item_trie import ItemTrie
from .models.latent_reasoning.logits_process import ItemTrieLogitsProcessor
from .models.latent_reasoning.modeling_latent_reasoning import (
    LlamaForLatentReasoningRec,
    Qwen2ForLatentReasoningRec,
    Qwen3ForLatentReasoningRec,
)
from .models.latent_reasoning.processing_latentrec import LatentRecProcessor


__version__ = "0.1.0"

_MODELS = {
    Qwen2LatentRecConfig: Qwen2ForLatentReasoningRec,
    Qwen3LatentRecConfig: Qwen3ForLatentReasoningRec,
    LlamaLatentRecConfig: LlamaForLatentReasoningRec,
}

for _config_class, _model_class in _MODELS.items():
    AutoConfig.register(_config_class.model_type, _config_class)
    AutoModel.register(_config_class, _model_class)
    AutoProcessor.register(_config_class, LatentRecProcessor)

AutoConfig.register(LaresConfig.model_type, LaresConfig)
AutoModel.register(LaresConfig, LaresForSequentialRecommendation)

__all__ = [
    "ItemCatalog",
    "ItemTable",
    "ItemTrie",
    "ItemTrieLogitsProcessor",
    "LaresConfig",
    "LaresForSequentialRecommendation",
    "LaresModel",
    "LatentReasonerConfig",
    "LatentRecProcessor",
    "LlamaForLatentReasoningRec",
    "LlamaLatentRecConfig",
    "Qwen2ForLatentReasoningRec",
    "Qwen2LatentRecConfig",
    "Qwen3ForLatentReasoningRec",
    "Qwen3LatentRecConfig",
]
