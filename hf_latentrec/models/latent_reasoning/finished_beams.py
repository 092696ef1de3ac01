"""Beams that have ended, and when a search may stop: the rules of transformers' beam search.

Shapes: B prompts, K beams, J candidates of a step.
"""

from __future__ import annotations

import torch


class FinishedBeams:
    """
    The best K ended beams of each prompt so far.

    A prompt is done as soon as its running beams cannot improve the worst of K finished ones. A running beam will get
    worse in its sum but perhaps better in its mean, so with a length penalty that is an estimate:

    - `early_stopping=False` takes the best running score at its current length, as transformers does by default;
    - `"never"` takes the length that is best for it, so nothing better is ever missed;
    - `True` stops as soon as there are K finished beams.

    Args:
        batch_size (`int`): B.
        num_beams (`int`): K.
        max_length (`int`): length of the longest answer.
        length_penalty (`float`): a finished score is the sum of log-probabilities over `length ** length_penalty`.
        early_stopping (`bool` or `"never"`): see above.
        device (`torch.device`): where the scores are.
    """

    def __init__(
        self,
        batch_size: int,
        num_beams: int,
        max_length: int,
        length_penalty: float,
        early_stopping: bool | str,
        device: torch.device,
    ):
        self.max_length, self.length_penalty, self.early_stopping = max_length, length_penalty, early_stopping
        self.scores_BK = torch.full((batch_size, num_beams), -torch.inf, device=device)
        self.nodes_BK = torch.zeros(batch_size, num_beams, dtype=torch.long, device=device)
        self.open_B1 = torch.ones(batch_size, 1, dtype=torch.bool, device=device)

    def add(self, scores_BJ: torch.Tensor, nodes_BJ: torch.Tensor, ends_BJ: torch.Tensor, length: int) -> None:
        """
        Takes the candidates of a step that have ended and are among its K best.

        Args:
            scores_BJ (`torch.Tensor`): sums of log-probabilities, best first.
            nodes_BJ (`torch.LongTensor`): their nodes.
            ends_BJ (`torch.BoolTensor`): which have ended.
            length (`int`): tokens of the candidates.
        """
        K = self.scores_BK.shape[1]
        taken_BK = (ends_BJ & self.open_B1)[:, :K]
        new_scores_BK = (scores_BJ[:, :K] / length**self.length_penalty).masked_fill(~taken_BK, -torch.inf)
        self.scores_BK, index_BK = torch.cat([self.scores_BK, new_scores_BK], 1).topk(K, dim=1)
        self.nodes_BK = torch.cat([self.nodes_BK, nodes_BJ[:, :K]], 1).gather(1, index_BK)
        # A model that gives NaN ends nothing; without this it would look like a prompt without answers.
        self.scores_BK = self.scores_BK.masked_fill(scores_BJ.isnan().any(1, keepdim=True), torch.nan)

    def can_improve(self, best_running_B1: torch.Tensor, length: int) -> bool:
        """
        Whether any prompt may still get better answers; a prompt that may not is closed for good.

        Args:
            best_running_B1 (`torch.Tensor`): sum of log-probabilities of the best beam that runs on; -inf for none.
            length (`int`): its tokens so far.
        """
        best_length = length
        if self.early_stopping == "never" and self.length_penalty > 0:
            best_length = self.max_length
        worst_B1 = self.scores_BK.amin(1, keepdim=True)  # -inf until there are K
        self.open_B1 = self.open_B1 & (best_running_B1 / best_length**self.length_penalty > worst_B1)
        if self.early_stopping is True:
            self.open_B1 = self.open_B1 & worst_B1.isinf()
        return bool(self.open_B1.any())


__all__ = ["FinishedBeams"]
