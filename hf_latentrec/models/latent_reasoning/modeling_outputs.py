"""What the recommenders return.

Shapes: B prompts, G answers of a prompt, C depths, F factors, L prompt, T answer, N thoughts, D hidden, V vocabulary,
R returned answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .sub_catalog import SubCatalog


@dataclass
class LatentRecOutput(ModelOutput):
    """
    What `forward` returns.

    Args:
        loss (`torch.Tensor`, *optional*): cross entropy of the answers, where `labels` were given.
        logits (`torch.Tensor` [B, T, V], *optional*): of one answer per prompt, normalized over the vocabulary.
        logps (`torch.Tensor` [B, T] or [B, G, T], *optional*): log-probability of each answer token in float32; 0
            where the label is -100.
        entropy (`torch.Tensor` [B, T], *optional*): with `output_entropy`, that of the predictions for the tokens of
            each prompt's first answer, in nats; 0 where the label is -100.
        thoughts (`torch.Tensor` [B, N, D] or [B, G, N, D]): hidden states `h_1 .. h_N` of the thoughts, one row of
            thoughts per branch in a packed history and under `thought_noise`.
        thought_embeds (`torch.Tensor` [B, N, D] or [B, G, N, D]): what the reasoner gave: the input embeddings
            `r_1 .. r_N` of the thoughts, without noise; one row per branch in a packed history.
        num_thoughts (`torch.LongTensor` [B] or [B, G]): N of each prompt, or of each branch of a packed history. Where
            they differ, `thoughts` and `thought_embeds` have room for the most and are 0 beyond a branch's own.
        depth_logits (`torch.Tensor` [B, C] or [B, G, C], *optional*): with adaptive depth, the policy's logits of the
            depths 1 .. C, in float32.
        factors (`tuple[torch.Tensor]` of [B, F, D] or [B, G, F, D], *optional*): of each iteration of
            `"factorized_attention"`, what its factors found.
        factor_attentions (`tuple[torch.Tensor]` of [B, F, L + 1] or [B, G, F, L + 1], *optional*): of each iteration,
            what each factor gave to every token of the prompt, and last to its own slot (and a marker, if there is
            one), in float32; exactly 0 for padding. Of each thought of `"latent_attention"`, with F = 1; last is then
            what earlier thoughts got.
        factor_gates (`tuple[torch.Tensor]` of [B, F] or [B, G, F], *optional*): of each iteration of
            `"factorized_attention"`, the factors' shares of the thought, in float32.
        loss_log_variances (`torch.Tensor` [3], *optional*): the learned `s` of `"factorized_attention"`, for its
            trainers.
        greedy_matches (`torch.BoolTensor` [B, G], *optional*): with `greedy_trie`, whether greedy search would write
            each answer.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    logps: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    thoughts: torch.Tensor | None = None
    thought_embeds: torch.Tensor | None = None
    num_thoughts: torch.Tensor | None = None
    depth_logits: torch.Tensor | None = None
    factors: tuple[torch.Tensor, ...] | None = None
    factor_attentions: tuple[torch.Tensor, ...] | None = None
    factor_gates: tuple[torch.Tensor, ...] | None = None
    loss_log_variances: torch.Tensor | None = None
    greedy_matches: torch.Tensor | None = None


@dataclass
class LatentRecGenerateOutput(ModelOutput):
    """
    What `generate` returns. Rows of a prompt follow each other, best first; only answers of the catalog come back, so
    a prompt that allows fewer than were asked for has fewer rows.

    Args:
        sequences (`torch.LongTensor` [R, T]): answer tokens.
        sequences_scores (`torch.Tensor` [R]): sum of log-probabilities over `T ** length_penalty`.
        item_nodes (`torch.LongTensor` [R]): trie leaf of each answer.
        user_indices (`torch.LongTensor` [R]): which prompt each row answers.
        num_users (`int`): number of prompts, B.
        catalog_fingerprint (`str`): of the catalog that `item_nodes` belong to, `""` where its trie names none.
        sub_catalog (`SubCatalog`, *optional*): what each prompt could be answered with, where that is not everything;
            items that share a leaf are told apart by it.
        thoughts (`torch.Tensor` [B, N, D]): hidden states of the thoughts.
        num_thoughts (`torch.LongTensor` [B]): N of each prompt; `thoughts` are 0 beyond it.
        depth_logits (`torch.Tensor` [B, C], *optional*): with adaptive depth, the policy's logits of depths 1 .. C.
    """

    sequences: torch.LongTensor | None = None
    sequences_scores: torch.Tensor | None = None
    item_nodes: torch.LongTensor | None = None
    user_indices: torch.LongTensor | None = None
    num_users: int | None = None
    catalog_fingerprint: str | None = None
    sub_catalog: SubCatalog | None = None
    thoughts: torch.Tensor | None = None
    num_thoughts: torch.Tensor | None = None
    depth_logits: torch.Tensor | None = None


__all__ = ["LatentRecGenerateOutput", "LatentRecOutput"]
