"""One configuration and one trainer per algorithm, over one small base; losses, rewards and advantages as
functions."""

from __future__ import annotations

from .advantages import (
    BaselineAdvantage,
    BatchAdvantage,
    GroupAdvantage,
    baseline_advantage,
    batch_advantage,
    group_advantage,
)
from .candidate_groups import candidate_diversity, repair_groups
from .checkpoints import last_complete_checkpoint
from .contrastive_losses import GlobalSamples, info_nce
from .data_selection import SelectedSamples, load_selection, save_selection, select_samples
from .factor_losses import FactorLossConfig
from .flr_grpo_config import FLRGRPOConfig
from .flr_grpo_trainer import FLRGRPOTrainer
from .flr_sft_config import FLRSFTConfig
from .flr_sft_trainer import FLRSFTTrainer
from .grpo_config import RecGRPOConfig
from .grpo_trainer import RecGRPOTrainer
from .lares_grpo_config import LaresGRPOConfig
from .lares_grpo_trainer import LaresGRPOTrainer
from .lares_trainer import LaresTrainer, LaresTrainingConfig
from .lasar_grpo_config import LASARGRPOConfig
from .lasar_grpo_trainer import LASARGRPOTrainer
from .lasar_sft_config import LASARSFTConfig
from .lasar_sft_trainer import LASARSFTTrainer
from .latent_config import LatentConfig
from .latent_trainer import LatentTrainer
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
from .reward_baseline import RewardBaseline
from .rewards import (
    PerplexityReward,
    hybrid_reward,
    mean_logps,
    ndcg_reward,
    perplexity_reward,
    rank_ndcg_reward,
    recall_reward,
    rule_reward,
)
from .rollout_config import RolloutConfig
from .rollout_trainer import RolloutTrainer
from .sampling import EpochSampler
from .sequential_config import SequentialTrainingConfig
from .sequential_trainer import SequentialTrainer
from .sft_config import LatentSFTConfig
from .sft_trainer import LatentSFTTrainer
from .thought_grpo_config import ThoughtGRPOConfig
from .thought_grpo_trainer import ThoughtGRPOTrainer
from .thought_losses import depth_entropy, reinforce_loss, thought_alignment


__all__ = [
    "BaselineAdvantage",
    "BatchAdvantage",
    "EpochSampler",
    "FLRGRPOConfig",
    "FLRGRPOTrainer",
    "FLRSFTConfig",
    "FLRSFTTrainer",
    "GlobalSamples",
    "FactorLossConfig",
    "GroupAdvantage",
    "LASARGRPOConfig",
    "LASARGRPOTrainer",
    "LASARSFTConfig",
    "LASARSFTTrainer",
    "LRGRPOConfig",
    "LRGRPOTrainer",
    "LatentSFTConfig",
    "LatentSFTTrainer",
    "PerplexityReward",
    "PolicyLoss",
    "LaresGRPOConfig",
    "LaresGRPOTrainer",
    "LaresTrainer",
    "LaresTrainingConfig",
    "LatentConfig",
    "RecConfig",
    "RecGRPOConfig",
    "RecGRPOTrainer",
    "LatentTrainer",
    "RecTrainer",
    "RewardBaseline",
    "RolloutConfig",
    "RolloutTrainer",
    "SequentialTrainer",
    "SequentialTrainingConfig",
    "ThoughtGRPOConfig",
    "ThoughtGRPOTrainer",
    "SelectedSamples",
    "add_lora",
    "added_token_ids",
    "attention_diversity_loss",
    "baseline_advantage",
    "batch_advantage",
    "candidate_diversity",
    "clipped_policy_loss",
    "depth_entropy",
    "group_advantage",
    "group_mean",
    "hybrid_reward",
    "info_nce",
    "kl_k3",
    "last_complete_checkpoint",
    "load_selection",
    "mean_logps",
    "merge_lora",
    "ndcg_reward",
    "orthogonality_loss",
    "perplexity_reward",
    "rank_ndcg_reward",
    "recall_reward",
    "reinforce_loss",
    "repair_groups",
    "rule_reward",
    "save_selection",
    "select_samples",
    "sparsity_loss",
    "thought_alignment",
    "uncertainty_weighted",
]
