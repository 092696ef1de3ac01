"""The regularizers of factorized reasoning (FLR Eq. 5 to 8), for supervised fine-tuning and reinforcement learning.

Shapes: B prompts, G answers of a prompt, L prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..models.latent_reasoning.modeling_outputs import LatentRecOutput
from .latent_config import LatentConfig
from .latent_trainer import LatentTrainer
from .losses import attention_diversity_loss, orthogonality_loss, sparsity_loss, uncertainty_weighted


FACTOR_LOSSES = ("orthogonality", "diversity", "sparsity")  # in the order of the reasoner's `loss_log_variances`


@dataclass
class FactorLossConfig(LatentConfig):
    """
    Which regularizers are on, and how they are weighted.

    Args:
        factor_losses (`list[str]`, *optional*): of `"orthogonality"` (FLR Eq. 5), `"diversity"` of attention (Eq. 6)
            and `"sparsity"` of gates (Eq. 7); all by default, none with `[]`.
        factor_loss_weights (`list[float]`, *optional*): one fixed weight per entry of `factor_losses`. By default the
            weights are learned with the model, see [`uncertainty_weighted`].

    Raises:
        ValueError: for an unknown or repeated loss, or weights that do not fit.
    """

    factor_losses: list[str] = field(
        default_factory=lambda: list(FACTOR_LOSSES),
        metadata={"help": "Regularizers of the factors that are on.", "choices": list(FACTOR_LOSSES)},
    )
    factor_loss_weights: list[float] | None = field(
        default=None, metadata={"help": "A fixed weight for each of factor_losses; learned if not given."}
    )

    def __post_init__(self):
        super().__post_init__()
        name, losses, weights = type(self).__name__, self.factor_losses, self.factor_loss_weights
        unknown = [loss for loss in losses if loss not in FACTOR_LOSSES]
        if unknown or len(set(losses)) < len(losses):
            raise ValueError(f"{name}: factor_losses is {losses}; choose each of {FACTOR_LOSSES} once at most")
        if weights is None:
            return
        if len(weights) != len(losses) or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise ValueError(
                f"{name}: factor_loss_weights is {weights} and factor_losses {losses}; give each loss a finite weight "
                "that is not negative, or leave factor_loss_weights out to learn the weights"
            )


class FactorLossMixin(LatentTrainer):
    """
    Adds the regularizers to a trainer's terms. Each is a mean over the thoughts of the global batch, and over the
    iterations of a thought.

    Logged besides the terms themselves: `factors/{loss}`, the loss without its weight, and `factors/{loss}_weight`.
    """

    args: FactorLossConfig

    def prepare_factor_losses(self, model: nn.Module) -> None:
        """Refuses a model without factors; has the weights of the losses learned, or not."""
        name, reasoner = type(self).__name__, model.config.reasoner_config
        if reasoner.num_factors is None or reasoner.num_thoughts == 0:
            raise ValueError(
                f"{name}: the model has reasoner {reasoner.reasoner!r} and num_thoughts {reasoner.num_thoughts}, but "
                'factors come from reasoner="factorized_attention" with num_thoughts=1'
            )
        model.reasoner.loss_log_variances.requires_grad_(self.learns_loss_weights)

    @property
    def learns_loss_weights(self) -> bool:
        """Whether the weights of the losses are learned."""
        return bool(self.args.factor_losses) and self.args.factor_loss_weights is None

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """As in transformers; weight decay would pull a learned loss weight to 1/2."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith("loss_log_variances")]

    def factor_terms(
        self,
        output: LatentRecOutput,
        inputs: dict[str, Any],
        counts: torch.Tensor,
        num_thoughts_in_batch: torch.Tensor | int,
    ) -> dict[str, torch.Tensor]:
        """
        The weighted regularizers of a micro-batch; they add up to those of the global batch.

        Args:
            output (`LatentRecOutput`): of the model's forward.
            inputs (`dict`): what it was called with: `attention_mask`, and `branch_starts` of packed histories.
            counts (`torch.BoolTensor` [B] or [B, G]): False for thoughts that only fill up a batch.
            num_thoughts_in_batch (`torch.Tensor` or `int`): thoughts of the global batch.

        Returns:
            `dict`: named scalars.
        """
        num_positions = count_positions(inputs)
        values_by_loss = {
            "orthogonality": [orthogonality_loss(factors) for factors in output.factors],
            "diversity": [attention_diversity_loss(weights, num_positions) for weights in output.factor_attentions],
            "sparsity": [sparsity_loss(gates) for gates in output.factor_gates],
        }
        share = counts.sum() / num_thoughts_in_batch
        terms = {}
        for position, name in enumerate(self.args.factor_losses):
            total = torch.stack(values_by_loss[name]).mean(0).masked_fill(~counts, 0.0).sum()
            loss = total / num_thoughts_in_batch
            if self.learns_loss_weights:
                log_variance = output.loss_log_variances[FACTOR_LOSSES.index(name)]
                weighted, offset = uncertainty_weighted(loss, log_variance)
                terms[name] = weighted + offset * share  # the batch has the offset once
                weight, _ = uncertainty_weighted(torch.ones_like(loss), log_variance)
            else:
                weight = torch.tensor(self.args.factor_loss_weights[position], device=loss.device)
                terms[name] = weight * loss
            self.means.add(f"factors/{name}", total, counts.sum())
            self.means.add(f"factors/{name}_weight", weight, 1)
        return terms


def count_positions(inputs: dict[str, Any]) -> torch.Tensor:
    """
    How many tokens of its prompt each thought can look at.

    Args:
        inputs (`dict`): `attention_mask` [B, L], and for packed histories `branch_starts` [B, G].

    Returns:
        `torch.LongTensor` [B] or [B, G].

    Example:
        >>> count_positions({"attention_mask": torch.tensor([[0, 1, 1]]), "branch_starts": torch.tensor([[2, 3]])})
        tensor([[1, 2]])
    """
    real_BL = inputs["attention_mask"].bool()
    if inputs.get("branch_starts") is None:
        return real_BL.sum(-1)
    slot_L = torch.arange(real_BL.shape[1], device=real_BL.device)
    return (real_BL[:, None] & (slot_L < inputs["branch_starts"][..., None])).sum(-1)


__all__ = ["FACTOR_LOSSES", "FactorLossConfig", "FactorLossMixin", "count_positions"]
