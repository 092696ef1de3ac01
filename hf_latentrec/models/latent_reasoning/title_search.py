"""Catalog-constrained beam search for answers of different lengths: item titles.

Shapes: B prompts, K beams, J candidates of a step, C children of a trie node, Q new tokens of a prompt, S cache slots,
D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .answer_scores import score_children
from .beam_search import Beams, mask_children
from .beam_step import select_children
from .branch_decoder import BranchDecoder
from .finished_beams import FinishedBeams
from .item_trie import ItemTrie
from .thought_state import ThoughtState


if TYPE_CHECKING:
    from .modeling_latent_reasoning import LatentReasoningMixin
    from .sub_catalog import SubCatalog


@dataclass
class RunningBeams:
    """
    Beams that have not ended. All stand at one depth of the trie, but may have been read further or less far.

    Args:
        scores_BK (`torch.Tensor`): sums of log-probabilities; -inf for a beam that does not exist.
        nodes_BK (`torch.LongTensor`): where they stand.
        hidden_BKD (`torch.Tensor`): hidden state after the tokens that were read.
        num_read_BK (`torch.LongTensor`): how many of its tokens went through the model.
        visible_BKS (`torch.BoolTensor`): slots of the prompt and of these tokens.
    """

    scores_BK: torch.Tensor
    nodes_BK: torch.Tensor
    hidden_BKD: torch.Tensor
    num_read_BK: torch.Tensor
    visible_BKS: torch.Tensor

    @property
    def exists_BK(self) -> torch.Tensor:
        """Which beams exist. A NaN is not taken for a missing beam."""
        return self.scores_BK != -torch.inf

    def select(self, scores_BK: torch.Tensor, nodes_BK: torch.Tensor, parent_BK: torch.Tensor) -> RunningBeams:
        """Beams that go on from the beams `parent_BK`."""
        parent_BK1 = parent_BK[..., None]
        return RunningBeams(
            scores_BK,
            nodes_BK,
            self.hidden_BKD.gather(1, parent_BK1.expand(-1, -1, self.hidden_BKD.shape[-1])),
            self.num_read_BK.gather(1, parent_BK),
            self.visible_BKS.gather(1, parent_BK1.expand(-1, -1, self.visible_BKS.shape[-1])),
        )


def title_search(
    model: LatentReasoningMixin,
    state: ThoughtState,
    trie: ItemTrie,
    num_beams: int,
    normalize: str = "catalog",
    sub_catalog: SubCatalog | None = None,
    length_penalty: float = 0.0,
    early_stopping: bool | str = False,
) -> Beams:
    """
    Beam search token by token, with the rules of transformers for beams that end at different lengths.

    Most tokens of a title are no decision. Over the catalog such a forced token has probability 1, so the model is
    asked only where a beam must choose: all tokens up to the next choice of every beam are read in one pass, and what
    follows a beam's last choice is never read. The beams of each step, and their scores, are those of the search that
    reads every token.

    Args:
        model: the recommender.
        state (`ThoughtState`): one branch per prompt, ready to answer.
        trie (`ItemTrie`): the catalog; a sequence may end anywhere.
        num_beams (`int`): beams per prompt, K.
        normalize (`str`): see [`score_children`]. With `"vocabulary"` every token has a price and is read.
        sub_catalog (`SubCatalog`, *optional*): see [`beam_search`].
        length_penalty (`float`): a finished score is the sum over `T ** length_penalty`.
        early_stopping (`bool` or `"never"`): see [`FinishedBeams`].

    Returns:
        `Beams`: best first.
    """
    B, device = len(state.hidden_BKD), state.hidden_BKD.device
    decoder = BranchDecoder(model, state)
    running = RunningBeams(
        scores_BK=torch.zeros(B, 1, device=device),
        nodes_BK=torch.zeros(B, 1, dtype=torch.long, device=device),
        hidden_BKD=state.hidden_BKD,
        num_read_BK=torch.zeros(B, 1, dtype=torch.long, device=device),
        visible_BKS=decoder.prompt_visible_BKS,
    )
    finished = FinishedBeams(B, num_beams, trie.max_depth, length_penalty, early_stopping, device)
    for depth in range(trie.max_depth):
        running = read_up_to_choice(decoder, running, trie, depth, skip_forced=normalize == "catalog")
        log_probs_BKC = score_children(model, running.hidden_BKD, trie, running.nodes_BK, depth, normalize)
        if sub_catalog is not None:
            log_probs_BKC = mask_children(log_probs_BKC, trie, running.nodes_BK, sub_catalog)
        # Twice as many as beams, so that enough are left to go on with if half of them end.
        scores_BJ, parent_BJ, nodes_BJ = select_children(
            running.scores_BK, log_probs_BKC, trie, running.nodes_BK, 2 * num_beams
        )
        ends_BJ = trie.is_leaf(nodes_BJ)
        finished.add(scores_BJ, nodes_BJ, ends_BJ, length=depth + 1)
        open_scores_BJ = scores_BJ.masked_fill(ends_BJ, -torch.inf)
        scores_BK, best_BK = open_scores_BJ.topk(min(num_beams, scores_BJ.shape[1]), dim=1)
        running = running.select(scores_BK, nodes_BJ.gather(1, best_BK), parent_BJ.gather(1, best_BK))
        if not finished.can_improve(scores_BK[:, :1], length=depth + 1):
            break
    return Beams(finished.scores_BK, finished.nodes_BK)


def read_up_to_choice(
    decoder: BranchDecoder, running: RunningBeams, trie: ItemTrie, depth: int, skip_forced: bool
) -> RunningBeams:
    """
    Gives every beam the hidden state that its next choice takes, in one pass over what it has not read yet; nothing is
    read as long as no beam must choose.

    Without `skip_forced`, every node counts as a choice.
    """
    exists_BK = running.exists_BK
    if skip_forced:
        target_BK = trie.forced_end(running.nodes_BK)
        exists_BK = exists_BK & ~trie.is_leaf(target_BK)  # the others have made their last choice
    else:
        target_BK = running.nodes_BK
    target_depth_BK = trie.depth_of(target_BK)
    num_new_BK = torch.where(exists_BK, target_depth_BK - running.num_read_BK, 0)
    must_choose_BK = (num_new_BK > 0) & (target_depth_BK == depth)
    if not must_choose_BK.any():
        return running
    return _read(decoder, running, trie, target_BK, num_new_BK)


def _read(
    decoder: BranchDecoder, running: RunningBeams, trie: ItemTrie, target_BK: torch.Tensor, num_new_BK: torch.Tensor
) -> RunningBeams:
    """One pass over the next `num_new_BK` tokens of the beams on their way to `target_BK`, laid out beam by beam."""
    end_BK = num_new_BK.cumsum(1)
    slots_BQ, visible_BKS = _free_slots(decoder, running, int(end_BK[:, -1].max()))
    B, Q = slots_BQ.shape
    K, S = visible_BKS.shape[1:]
    position_Q = torch.arange(Q, device=slots_BQ.device)
    # Rows with fewer new tokens are filled up with tokens that nobody sees.
    beam_BQ = torch.searchsorted(end_BK, position_Q.expand(B, Q).contiguous(), right=True)
    real_BQ, beam_BQ = beam_BQ < K, beam_BQ.clamp(max=K - 1)
    within_BQ = position_Q - (end_BK - num_new_BK).gather(1, beam_BQ)
    depths_BQ = running.num_read_BK.gather(1, beam_BQ) + within_BQ.masked_fill(~real_BQ, 0)
    tokens_BQ = trie.path_tokens(target_BK.gather(1, beam_BQ), depths_BQ).clamp(min=0)

    earlier_BQQ = (beam_BQ[:, :, None] == beam_BQ[:, None]) & (position_Q[:, None] >= position_Q)
    visible_BQS = visible_BKS.gather(1, beam_BQ[..., None].expand(B, Q, S))
    visible_BQS = visible_BQS.scatter(2, slots_BQ[:, None].expand(B, Q, Q), earlier_BQQ)
    own_BKQ = (beam_BQ[:, None] == torch.arange(K, device=beam_BQ.device)[:, None]) & real_BQ[:, None]
    visible_BKS = visible_BKS.scatter(2, slots_BQ[:, None].expand(B, K, Q), own_BKQ)
    num_read = 1 + int(visible_BQS.any(1).any(0).nonzero()[-1])

    hidden_BQD = decoder.feed(tokens_BQ, depths_BQ, visible_BQS, slots_BQ, num_read)
    newest_BK1 = (end_BK - 1).clamp(min=0)[..., None]
    newest_BKD = hidden_BQD.gather(1, newest_BK1.expand(B, K, hidden_BQD.shape[-1]))
    return RunningBeams(
        running.scores_BK,
        running.nodes_BK,
        torch.where(num_new_BK[..., None] > 0, newest_BKD, running.hidden_BKD),
        running.num_read_BK + num_new_BK,
        visible_BKS,
    )


def _free_slots(decoder: BranchDecoder, running: RunningBeams, num_new: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots that no living beam sees, [B, num_new], and what the beams see, over a cache that has room for them."""
    live_BS = (running.visible_BKS & running.exists_BK[..., None]).any(1)
    num_missing = num_new - int((~live_BS).sum(1).min())
    visible_BKS = running.visible_BKS
    if num_missing > 0:
        num_slots = live_BS.shape[1] + max(num_missing, (live_BS.shape[1] - decoder.num_prompt_slots) // 4)
        decoder.cache.grow(num_slots)
        added = (0, num_slots - live_BS.shape[1])
        live_BS, visible_BKS = nn.functional.pad(live_BS, added), nn.functional.pad(visible_BKS, added)
    return live_BS.int().argsort(dim=1, stable=True)[:, :num_new], visible_BKS


__all__ = ["RunningBeams", "read_up_to_choice", "title_search"]
