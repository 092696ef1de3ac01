"""hf_latentrec: recommenders that think in latent space before they answer, for transformers and TRL.

Importing the package registers its models and its processor with the Auto classes of transformers, and the task
"next-item-recommendation" with its `pipeline`.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoProcessor

from .hub.pipeline import NextItemRecommendationPipeline
from .hub.pipeline_registration import register_pipeline
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
from .models.sequential.bert4rec import BERT4RecConfig, BERT4RecForSequentialRecommendation
from .models.sequential.bsarec import BSARecConfig, BSARecForSequentialRecommendation
from .models.sequential.caser import CaserConfig, CaserForSequentialRecommendation
from .models.sequential.fmlp import FMLPRecConfig, FMLPRecForSequentialRecommendation
from .models.sequential.gru4rec import GRU4RecConfig, GRU4RecForSequentialRecommendation
from .models.sequential.item_knn import ItemKNNConfig, ItemKNNRecommender
from .models.sequential.popularity import PopularityConfig, PopularityRecommender
from .models.sequential.rearec import ReaRecConfig, ReaRecForSequentialRecommendation
from .models.sequential.sasrec import SASRecConfig, SASRecForSequentialRecommendation
from .models.sequential.tedrec import TedRecConfig, TedRecForSequentialRecommendation


__version__ = "0.1.0"

_LLM_MODELS = {
    Qwen2LatentRecConfig: Qwen2ForLatentReasoningRec,
    Qwen3LatentRecConfig: Qwen3ForLatentReasoningRec,
    LlamaLatentRecConfig: LlamaForLatentReasoningRec,
}
_ITEM_ID_MODELS = {
    BERT4RecConfig: BERT4RecForSequentialRecommendation,
    BSARecConfig: BSARecForSequentialRecommendation,
    CaserConfig: CaserForSequentialRecommendation,
    FMLPRecConfig: FMLPRecForSequentialRecommendation,
    GRU4RecConfig: GRU4RecForSequentialRecommendation,
    ItemKNNConfig: ItemKNNRecommender,
    LaresConfig: LaresForSequentialRecommendation,
    PopularityConfig: PopularityRecommender,
    ReaRecConfig: ReaRecForSequentialRecommendation,
    SASRecConfig: SASRecForSequentialRecommendation,
    TedRecConfig: TedRecForSequentialRecommendation,
}

for _config_class, _model_class in (_LLM_MODELS | _ITEM_ID_MODELS).items():
    AutoConfig.register(_config_class.model_type, _config_class)
    AutoModel.register(_config_class, _model_class)
for _config_class in _LLM_MODELS:
    AutoProcessor.register(_config_class, LatentRecProcessor)
register_pipeline(_LLM_MODELS | _ITEM_ID_MODELS)

# Their folders stand alone: `save_pretrained` copies the code, for those who load without this package and with
# `trust_remote_code=True`. The baselines share code with LARES, so they need the package.
for _config_class, _model_class in (_LLM_MODELS | {LaresConfig: LaresForSequentialRecommendation}).items():
    _config_class.register_for_auto_class("AutoConfig")
    _model_class.register_for_auto_class("AutoModel")
LatentRecProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
    "BERT4RecConfig",
    "BERT4RecForSequentialRecommendation",
    "BSARecConfig",
    "BSARecForSequentialRecommendation",
    "CaserConfig",
    "CaserForSequentialRecommendation",
    "FMLPRecConfig",
    "FMLPRecForSequentialRecommendation",
    "GRU4RecConfig",
    "GRU4RecForSequentialRecommendation",
    "ItemCatalog",
    "ItemKNNConfig",
    "ItemKNNRecommender",
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
    "NextItemRecommendationPipeline",
    "PopularityConfig",
    "PopularityRecommender",
    "Qwen2ForLatentReasoningRec",
    "Qwen2LatentRecConfig",
    "Qwen3ForLatentReasoningRec",
    "Qwen3LatentRecConfig",
    "ReaRecConfig",
    "ReaRecForSequentialRecommendation",
    "SASRecConfig",
    "SASRecForSequentialRecommendation",
    "TedRecConfig",
    "TedRecForSequentialRecommendation",
]
