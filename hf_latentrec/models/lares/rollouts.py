"""Several trajectories of reasoning for every sample, from initial states of their own: what LARES' reinforcement
learning compares and trains.

Shapes: B rows, L positions, D hidden, N samples (labels of the batch, row by row), G rollouts of a sample, K steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.utils import ModelOutput

from .item_scores import Scorer, exclusion, item_log_probs, ranks_of, row_chunks, top_items


if TYPE_CHECKING:
    from .modeling_lares import LaresForSequentialRecommendation, LaresModel

IGNORE_INDEX = -100


@dataclass
class RolloutOutput(ModelOutput):
    """
    What rollouts lead to: `logps`, or what they are worth and which items could be judged, or both.

    Args:
        logps (`torch.Tensor` [N, G, K]): log-probability of the judged item over the catalog at every step; float32.
        ranks (`torch.LongTensor` [N, G]): of the target after the last step, from 1; 0 for an item that is not
            recommended.
        top_items (`torch.LongTensor` [N, G, K]): item rows: of the policy `"top"` what every step ranks highest, of
            `"hybrid"` what the last step ranks highest but for the target.
    """

    logps: torch.Tensor | None = None
    ranks: torch.Tensor | None = None
    top_items: torch.Tensor | None = None


def roll_out(
    recommender: LaresForSequentialRecommendation,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor | None,
    labels: torch.Tensor,
    initial_states: torch.Tensor,
    num_steps: int | None = None,
    judged_items: torch.Tensor | None = None,
    policy: str = "target",
    with_ranks: bool = False,
) -> RolloutOutput:
    """
    Rollouts of all samples of a batch.

    Args:
        recommender ([`LaresForSequentialRecommendation`]): the model.
        input_ids, position_ids, labels (`torch.LongTensor` [B, L]): as in its `forward`.
        initial_states (`torch.Tensor` [B, G, L, D]): T_0 of every rollout.
        num_steps (`int`, *optional*): K; `config.mean_steps` by default.
        judged_items (`torch.LongTensor` [N, G, K], *optional*): item rows whose log-probabilities are wanted. Without
            them the rollouts are ranked.
        policy (`str`, *optional*, defaults to `"target"`): which `top_items` are found: none for `"target"`.
        with_ranks (`bool`, *optional*, defaults to `False`): rank them beside `judged_items`, too.

    Returns:
        [`RolloutOutput`].
    """
    selected_BL = labels != IGNORE_INDEX
    states_NGKD = rollout_states(recommender.model, input_ids, position_ids, initial_states, selected_BL, num_steps)
    output = RolloutOutput()
    if judged_items is None or with_ranks:
        with torch.no_grad():
            output = rank_rollouts(recommender, states_NGKD, labels[selected_BL] - 1, policy)
    if judged_items is not None:
        logps = item_log_probs(states_NGKD.flatten(0, 2), recommender.item_embeddings, judged_items.flatten())
        output.logps = logps.view(judged_items.shape)
    return output


def rollout_states(
    encoder: LaresModel,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor | None,
    initial_states: torch.Tensor,
    selected: torch.Tensor,
    num_steps: int | None = None,
) -> torch.Tensor:
    """
    The states [N, G, K, D] of the selected positions [B, L] after every step. The pre-block, which knows nothing of
    T_0, runs once for all rollouts of a row; the core-block takes each rollout as a row of its own.
    """
    num_rows, num_rollouts = initial_states.shape[:2]
    hidden_BLD, mask = encoder.prepare(input_ids, position_ids)
    hidden = hidden_BLD.repeat_interleave(num_rollouts, dim=0)
    mask = None if mask is None else mask.repeat_interleave(num_rollouts, dim=0)
    steps = encoder.reason(hidden, initial_states.flatten(0, 1), mask, num_steps)
    steps = [encoder.read_out(state, input_ids.shape[1]) for state in steps]
    # [B * G, L, D] of every step: the states at the labels of a row, rollout by rollout.
    return torch.stack(
        [state.unflatten(0, (num_rows, num_rollouts)).transpose(1, 2)[selected] for state in steps], dim=2
    )


def rank_rollouts(
    recommender: LaresForSequentialRecommendation, states: torch.Tensor, targets: torch.Tensor, policy: str
) -> RolloutOutput:
    """Ranks of the targets [N] after the last step of states [N, G, K, D], as a user would be recommended to; and the
    items that a policy judges beside the targets."""
    num_samples, num_rollouts, num_steps, _ = states.shape
    num_items = recommender.config.num_items
    last_states = states[:, :, -1].flatten(0, 1)
    targets_of_rollouts = targets.repeat_interleave(num_rollouts)
    ranks = torch.cat(
        [
            ranks_of(_scorer(recommender, last_states[chunk]), targets_of_rollouts[chunk], num_items)
            for chunk in row_chunks(len(last_states), num_items, last_states.device)
        ]
    ).view(num_samples, num_rollouts)
    rows = None
    if policy == "top":
        scorer = _scorer(recommender, states.flatten(0, 2))
        rows = top_items(scorer, num_samples * num_rollouts * num_steps, num_items, 1)[1].view(states.shape[:3])
    elif policy == "hybrid":
        scorer = _scorer(recommender, last_states)
        best_R2 = top_items(scorer, len(last_states), num_items, 2)[1]
        negatives = torch.where(best_R2[:, 0] == targets_of_rollouts, best_R2[:, -1], best_R2[:, 0])
        rows = negatives.view(num_samples, num_rollouts, 1).expand(states.shape[:3])
    return RolloutOutput(ranks=ranks, top_items=rows)


def _scorer(recommender: LaresForSequentialRecommendation, states: torch.Tensor) -> Scorer:
    """Scores of a block of items for states [R, D], -inf for items that are not recommended."""
    exclusion_I = None
    if recommender.items is not None and not recommender.scores_cold_items:
        exclusion_I = exclusion(~recommender.items.is_cold, states.device)

    def score_block(block: slice) -> torch.Tensor:
        scores = recommender.score(states, block).float()
        return scores if exclusion_I is None else scores.add_(exclusion_I[block])

    return score_block


__all__ = ["RolloutOutput", "rank_rollouts", "roll_out", "rollout_states"]
