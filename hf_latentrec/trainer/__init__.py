"""One configuration and one trainer per algorithm, over one small base; losses, rewards and advantages as
functions."""

from __future__ import annotations

from .advantages import BatchAdvantage, GroupAdvantage, batch_advantage, group_advantage
from .checkpoints import last_complete_checkpoint
from .factor_losses import FactorLossConfig
from .flr_sft_config import FLRSFTConfig
from .flr_sft_trainer import FLRSFTTrainer
from .grpo_config import RecGRPOConfig
from .grpo_trainer import RecGRPOTrainer
from .lasar_grpo_config import LASARGRPOConfig
from .lasar_grpo_trainer import LASARGRPOTrainer
from .lora import add_lora, added_token_ids, merge_lora
from .losses import (
    PolicyLoss,
    attention_diversity_loss,
    clipped_policy_loss,
    group_mean,
    kl_k3,
    orthogonality_loss,
    sparsity_loss,
    uncertainty_weighted,
)
from .lr_grpo_config import LRGRPOConfig
from .lr_grpo_trainer import LRGRPOTrainer
from .rec_config import RecConfig
from .rec_trainer import RecTrainer
from .rewards import PerplexityReward, ndcg_reward, perplexity_reward, rule_reward
from .sampling import EpochSampler
from .sft_config import LatentSFTConfig
from .sft_trainer import LatentSFTTrainer


__all__ = [
    "BatchAdvantage",
    "EpochSampler",
    "FLRSFTConfig",
    "FLRSFTTrainer",
    "FactorLossConfig",
    "GroupAdvantage",
    "LASARGRPOConfig",
    "LASARGRPOTrainer",
    "LRGRPOConfig",
    "LRGRPOTrainer",
    "LatentSFTConfig",
    "LatentSFTTrainer",
    "PerplexityReward",
    "PolicyLoss",
    "RecConfig",
    "RecGRPOConfig",
    "RecGRPOTrainer",
    "RecTrainer",
    "add_lora",
    "added_token_ids",
    "attention_diversity_loss",
    "batch_advantage",
    "clipped_policy_loss",
    "group_advantage",
    "group_mean",
    "kl_k3",
    "last_complete_checkpoint",
    "merge_lora",
    "ndcg_reward",
    "orthogonality_loss",
    "perplexity_reward",
    "rule_reward",
    "sparsity_loss",
    "uncertainty_weighted",
]
