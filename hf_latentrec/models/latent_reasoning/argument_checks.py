"""What `forward` and `generate` refuse, each with one error that says what to do."""

from __future__ import annotations

import torch

from .beam_search import NORMALIZATIONS
from .item_trie import ItemTrie


def check_answers(
    input_ids: torch.Tensor,
    labels: torch.Tensor | None,
    branch_starts: torch.Tensor | None,
    labels_follow_prompt: bool,
) -> None:
    """Whether the answers given to `forward` fit its prompts."""
    if labels is not None and (labels.dim() not in (2, 3) or len(labels) != len(input_ids)):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}; expected [{len(input_ids)}, T], or [{len(input_ids)}, G, T]"
        )
    if branch_starts is not None and labels is not None and branch_starts.shape != labels.shape[:-1]:
        raise ValueError(
            f"branch_starts have shape {tuple(branch_starts.shape)} and labels {tuple(labels.shape)}; packed "
            "histories take branch_starts [B, G] and labels [B, G, T]"
        )
    if labels_follow_prompt and branch_starts is None:
        raise ValueError("labels_follow_prompt is set without branch_starts; say where in the prompt answers start")


def check_generation(
    trie: ItemTrie,
    vocab_size: int,
    num_beams: int,
    num_return_sequences: int,
    normalize: str,
    num_thoughts: int,
    allowed_items: torch.Tensor | None,
) -> None:
    """Whether `generate` can do what it is asked for."""
    if num_beams < 1 or not 1 <= num_return_sequences <= num_beams:
        raise ValueError(
            f"num_beams is {num_beams} and num_return_sequences {num_return_sequences}; pass "
            "1 <= num_return_sequences <= num_beams"
        )
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize is {normalize!r}; choose one of {NORMALIZATIONS}")
    if num_thoughts < 0:
        raise ValueError(f"num_thoughts is {num_thoughts}; pass 0 (no reasoning) or a positive number")
    if trie.max_token >= vocab_size:
        raise ValueError(
            f"the trie holds token {trie.max_token}, but the model's vocabulary has {vocab_size} "
            "tokens; resize the embeddings to the tokenizer, or load the trie that was saved with the model"
        )
    if not trie.has_uniform_depth:
        raise ValueError("the trie holds sequences of different lengths; beam search takes one length so far")
    if allowed_items is not None:
        empty = (~allowed_items.any(1)).nonzero()[:, 0].tolist()
        if empty:
            raise ValueError(f"allowed_items allows no item for prompt(s) {empty[:5]}; allow at least one item each")


__all__ = ["check_answers", "check_generation"]
