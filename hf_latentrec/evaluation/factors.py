"""How different the factors of a thought are: over one user's attention and vectors, and over many users.

Shapes: B users, F factors (rows of attention), L prompt, S slots, I history items, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..models.modes import eval_mode


if TYPE_CHECKING:
    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor


def cosine_matrix(vectors: torch.Tensor) -> torch.Tensor:
    """Cosines [..., F, F] between vectors [..., F, D], in float32; 0 with a vector of zeros."""
    directions = torch.nn.functional.normalize(vectors.float(), dim=-1)
    return directions @ directions.transpose(-1, -2)


def off_diagonal_mean(matrix: torch.Tensor) -> torch.Tensor:
    """Mean [...] of what stands off the diagonal of [..., F, F]; 0 where F is 1 and nothing does."""
    F = matrix.shape[-1]
    others = ~torch.eye(F, dtype=torch.bool, device=matrix.device)
    return (matrix * others).sum((-1, -2)) / max(F * (F - 1), 1)


def attention_on_items(attention_BFS: torch.Tensor, token_items_BL: torch.Tensor) -> torch.Tensor:
    """
    Sums attention over the tokens of each history item.

    Args:
        attention_BFS (`torch.Tensor`): attention over the prompt and any slots behind it.
        token_items_BL (`torch.LongTensor`): item of each prompt token, or -1, from `processor.token_items`.

    Returns:
        `torch.Tensor` [B, F, I]: in float32, over the items of the longest history; what a row lacks to 1 fell on
        other text of the prompt or on the slots behind it.

    Example:
        >>> attention_on_items(torch.tensor([[[0.5, 0.25, 0.125, 0.125]]]), torch.tensor([[0, 0, 1]]))
        tensor([[[0.7500, 0.1250]]])
    """
    B, F, _ = attention_BFS.shape
    L = token_items_BL.shape[1]
    num_items = int(token_items_BL.max()) + 1
    # The first column takes what belongs to no item.
    column_BFL = (token_items_BL + 1)[:, None].expand(-1, F, -1)
    sums = attention_BFS.new_zeros(B, F, num_items + 1, dtype=torch.float32)
    return sums.scatter_add(2, column_BFL, attention_BFS[..., :L].float())[..., 1:]


def disentanglement_score(attention_BFI: torch.Tensor, num_items_B: torch.Tensor) -> torch.Tensor:
    """
    FLR's Disentanglement Score, `DS = (1 - S_avg) * A_max` (section 5.6): high where the factors look at different
    items, and each at few.

    The paper leaves open what the attention is taken over and what is averaged. Here each factor's attention is that
    over the items of the history, scaled to sum to 1; `S_avg` is the mean cosine over all pairs of factors, `A_max`
    the mean over factors of the largest share of one item. With one factor, or one item, nothing can differ:
    `1 - S_avg`, and with it DS, is 0 by definition. DS lies in [0, 1].

    Args:
        attention_BFI (`torch.Tensor`): attention on items; 0 for items that a history does not have.
        num_items_B (`torch.LongTensor`): number of items of each history.

    Returns:
        `torch.Tensor` [B]

    Example:
        >>> apart, alike = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]
        >>> disentanglement_score(torch.tensor([apart, alike]), torch.tensor([2, 2]))
        tensor([1., 0.])
    """
    total_BF1 = attention_BFI.sum(-1, keepdim=True)
    shares_BFI = attention_BFI / total_BF1.clamp(min=torch.finfo(attention_BFI.dtype).tiny)
    diversity_B = (1 - off_diagonal_mean(cosine_matrix(shares_BFI))).clamp(min=0.0)
    undefined_B = (num_items_B < 2) | (attention_BFI.shape[1] < 2)
    sharpness_B = shares_BFI.amax(-1).mean(-1)
    return (diversity_B * sharpness_B).masked_fill(undefined_B, 0.0)


@dataclass(frozen=True)
class FactorStatistics:
    """
    Means over users, of the last iteration. The paper's "Avg |Corr|" can be read in two ways, so both are here.

    Args:
        num_users (`int`): users that were measured.
        num_factors (`int`): F.
        mean_abs_correlation (`float`, *optional*): mean over users of the mean |cosine| between two factors; None
            where there is one factor.
        abs_mean_correlation (`float`, *optional*): the other reading, mean |.| off the diagonal of `correlation`.
        correlation (`list[list[float]]` [F, F]): mean over users of the cosines between factors, signs kept.
        disentanglement_score (`float`): mean over users of [`disentanglement_score`].
        gates (`list[float]` [F]): mean gate of each factor.
        gate_entropy (`float`): mean entropy of the gates in nats; 0 to log F.
        dominant (`list[float]` [F]): share of users whose largest gate is that of the factor.
    """

    num_users: int
    num_factors: int
    mean_abs_correlation: float | None
    abs_mean_correlation: float | None
    correlation: list[list[float]]
    disentanglement_score: float
    gates: list[float]
    gate_entropy: float
    dominant: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@torch.inference_mode()
def measure_factors(
    model: LatentReasoningMixin,
    processor: LatentRecProcessor,
    histories: Sequence[Sequence[str]],
    batch_size: int = 64,
) -> FactorStatistics:
    """
    How far apart the factors of a model are, and how it weighs them, over many users.

    Args:
        model: a recommender with the reasoner `"factorized_attention"`.
        processor (`LatentRecProcessor`): catalog and prompt.
        histories (`list[list[str]]`): item ids of each user, oldest first.
        batch_size (`int`, *optional*, defaults to 64): users per batch.

    Returns:
        `FactorStatistics`: over all users.

    Raises:
        ValueError: no histories, or a model without factors.
    """
    check_thinks(model, "measure_factors")
    if (reasoner := model.config.reasoner_config.reasoner) != "factorized_attention":
        raise ValueError(
            f"measure_factors: the model's reasoner is {reasoner!r}, which has no factors; pass a model of the "
            "reasoner 'factorized_attention', or look at single users with explain()"
        )
    if len(histories) == 0:
        raise ValueError("measure_factors: there are no histories; pass at least one user's")
    # Users of similar history length share a batch, so little is padded.
    order = np.argsort([-len(history) for history in histories], kind="stable").tolist()
    starts = range(0, len(order), batch_size)
    parts: dict[str, list[torch.Tensor]] = {"correlation": [], "score": [], "gates": []}
    with eval_mode(model):
        for start in tqdm(starts, desc="measure factors", unit="batch"):
            batch = _measure_batch(model, processor, [histories[row] for row in order[start : start + batch_size]])
            for name, values in batch.items():
                parts[name].append(values.double().cpu())
    return _summarize(**{name: torch.cat(values) for name, values in parts.items()})


def _measure_batch(
    model: LatentReasoningMixin, processor: LatentRecProcessor, histories: list[Sequence[str]]
) -> dict[str, torch.Tensor]:
    """Correlation [B, F, F], Disentanglement Score [B] and gates [B, F] of a batch of users."""
    output = model(**processor(histories).to(model.device))
    token_items_BL = torch.from_numpy(processor.token_items(histories)).to(model.device)
    attention_BFI = attention_on_items(output.factor_attentions[-1], token_items_BL)
    return {
        "correlation": cosine_matrix(output.factors[-1]),
        "score": disentanglement_score(attention_BFI, token_items_BL.amax(-1) + 1),
        "gates": output.factor_gates[-1],
    }


def _summarize(correlation: torch.Tensor, score: torch.Tensor, gates: torch.Tensor) -> FactorStatistics:
    """Means over users of correlations [U, F, F], scores [U] and gates [U, F]."""
    num_users, F = gates.shape
    mean_correlation = correlation.mean(0)
    one = F == 1
    return FactorStatistics(
        num_users=num_users,
        num_factors=F,
        mean_abs_correlation=None if one else float(off_diagonal_mean(correlation.abs()).mean()),
        abs_mean_correlation=None if one else float(off_diagonal_mean(mean_correlation.abs())),
        correlation=mean_correlation.tolist(),
        disentanglement_score=float(score.mean()),
        gates=gates.mean(0).tolist(),
        gate_entropy=float(torch.special.entr(gates).sum(-1).mean()),
        dominant=(gates.argmax(-1).bincount(minlength=F) / num_users).tolist(),
    )


def check_thinks(model: LatentReasoningMixin, caller: str) -> None:
    """There is nothing to look into where the model does not think."""
    if model.config.num_thoughts == 0:
        raise ValueError(
            f"{caller}: the model's num_thoughts is 0, so there is no thought to look into; pass a model that thinks"
        )


__all__ = ["FactorStatistics", "disentanglement_score", "measure_factors"]
