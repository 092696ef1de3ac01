"""What `forward` and `generate` refuse, each with one error that says what to do."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch

from .answer_scores import NORMALIZATIONS
from .item_trie import ItemTrie
from .sub_catalog import SubCatalog


ON_EMPTY = ("error", "skip")
EARLY_STOPPING = (False, True, "never")


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


def check_noise(
    thought_noise: torch.Tensor,
    input_ids: torch.Tensor,
    labels: torch.Tensor | None,
    branch_starts: torch.Tensor | None,
    num_thoughts: int,
    adaptive_depth: bool,
) -> None:
    """Whether samples of a thought fit the prompts and answers given to `forward`."""
    check_thought_samples(thought_noise, input_ids, num_thoughts, adaptive_depth)
    if branch_starts is not None:
        raise ValueError("thought_noise and branch_starts exclude each other; pass one target per prompt")
    if labels is None:
        raise ValueError("thought_noise is given without labels; samples of a thought differ in what they answer")
    if labels.dim() == 3 and labels.shape[1] != thought_noise.shape[1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and thought_noise {tuple(thought_noise.shape)}; pass one answer "
            "per sample [B, K, T], or one for all [B, T]"
        )


def check_depths(depths: torch.Tensor, branches: torch.Tensor, shallowest: int) -> None:
    """Whether there is a number of thoughts for each branch, and every branch thinks."""
    if depths.shape != branches.shape[:2]:
        raise ValueError(
            f"num_thoughts gives depths of shape {tuple(depths.shape)} to branches {tuple(branches.shape[:2])}; pass "
            "one per prompt [B], or for packed histories one per answer [B, G]"
        )
    if shallowest < 1:
        raise ValueError(
            f"num_thoughts holds {shallowest}; where prompts have depths of their own each is at least 1 (for no "
            "thoughts at all pass the number 0)"
        )


def check_fixed_slot(refines_in_place: bool) -> None:
    """Whether prompts may have depths of their own: not where one thought is refined in its slot."""
    if refines_in_place:
        raise ValueError(
            "num_thoughts gives prompts depths of their own, but reasoner 'factorized_attention' refines one thought; "
            "pass a number"
        )


def check_thought_samples(
    thought_noise: torch.Tensor, input_ids: torch.Tensor, num_thoughts: int, adaptive_depth: bool
) -> None:
    """Whether samples of a thought fit the prompts, and there is a thought that is everybody's last."""
    if adaptive_depth:
        raise ValueError(
            "thought_noise is given where prompts have depths of their own (adaptive_depth, or num_thoughts as a "
            "tensor) and differ in which thought is the last; train with LASARGRPOTrainer, or use a fixed depth"
        )
    if thought_noise.dim() != 3 or len(thought_noise) != len(input_ids):
        raise ValueError(
            f"thought_noise has shape {tuple(thought_noise.shape)}; expected [{len(input_ids)}, K, hidden size]"
        )
    if num_thoughts == 0:
        raise ValueError("thought_noise is given with num_thoughts 0; there is no thought to perturb")


def check_generation(
    trie: ItemTrie,
    vocab_size: int,
    num_beams: int,
    num_return_sequences: int,
    normalize: str,
    length_penalty: float,
    early_stopping: bool | str,
    on_empty: str,
    compile: bool,
) -> None:
    """Whether `generate` can do what it is asked for."""
    if num_beams < 1 or not 1 <= num_return_sequences <= num_beams:
        raise ValueError(
            f"num_beams is {num_beams} and num_return_sequences {num_return_sequences}; pass "
            "1 <= num_return_sequences <= num_beams"
        )
    for name, value, choices in (
        ("normalize", normalize, NORMALIZATIONS),
        ("early_stopping", early_stopping, EARLY_STOPPING),
        ("on_empty", on_empty, ON_EMPTY),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; choose one of {choices}")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty is {length_penalty}; pass a finite number (0.0 for none)")
    if trie.max_token >= vocab_size:
        raise ValueError(
            f"the trie holds token {trie.max_token}, but the model's vocabulary has {vocab_size} "
            "tokens; resize the embeddings to the tokenizer, or load the trie that was saved with the model"
        )
    if compile and not trie.has_uniform_depth:
        raise ValueError(
            "compile is set, but the trie holds answers of different lengths, whose steps have no fixed shapes; leave "
            "it out"
        )


def read_depths(num_thoughts: Any, shape: torch.Size) -> int | torch.Tensor | None:
    """The number of thoughts that is asked for as an `int`, or as integers of this shape; None where none is."""
    if isinstance(num_thoughts, torch.Tensor):
        if num_thoughts.shape != shape or num_thoughts.is_floating_point() or num_thoughts.dtype == torch.bool:
            raise ValueError(
                f"num_thoughts is {num_thoughts.dtype} of shape {tuple(num_thoughts.shape)}; pass one number for all, "
                f"or integers of shape {tuple(shape)}: one per prompt [B], for packed histories one per answer [B, G]"
            )
        return num_thoughts
    if num_thoughts is None:
        return None
    if not isinstance(num_thoughts, Integral) or num_thoughts < 0:
        raise ValueError(f"num_thoughts is {num_thoughts!r}; pass 0 (no reasoning) or a positive whole number")
    return int(num_thoughts)


def check_depth_request(
    num_thoughts: int | torch.Tensor | None,
    depth_noise: torch.Tensor | None,
    num_prompts: int,
    adaptive_depth: bool,
) -> None:
    """Whether `generate` can draw depths as it is asked to."""
    if depth_noise is None:
        return
    if num_thoughts is not None or not adaptive_depth:
        why = "num_thoughts is given, too" if num_thoughts is not None else "the model has no depth policy"
        raise ValueError(f"depth_noise draws depths from the model's policy, but {why}; leave one of them out")
    if depth_noise.shape != (num_prompts,):
        raise ValueError(f"depth_noise has shape {tuple(depth_noise.shape)}; expected one number per prompt")


def check_prompts(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """Whether every prompt has something to read."""
    if input_ids.dim() != 2 or 0 in input_ids.shape:
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)}; pass [B, L] with one prompt and token at least"
        )
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}; pass "
            "both as the processor returned them"
        )
    if empty := _rows_where(~attention_mask.bool().any(1)):
        raise ValueError(f"prompt(s) {empty[:5]} hold no token (attention_mask is 0 throughout); leave them out")


def check_not_empty(sub_catalog: SubCatalog) -> None:
    """Whether every prompt may be answered with something."""
    if empty := _rows_where(sub_catalog.num_allowed() == 0):
        raise ValueError(
            f"allowed_items and seen_items leave no item for prompt(s) {empty[:5]}; leave them out, or pass "
            'on_empty="skip" to answer them with nothing'
        )


def check_grounding(**settings: Any) -> None:
    """Grounding ranks by distance: what steers a search under the trie must stay what it is by default."""
    defaults = {"normalize": "catalog", "length_penalty": 0.0, "early_stopping": False, "compile": False}
    for name, value in settings.items():
        if value != defaults[name]:
            raise ValueError(
                f"{name} is {value!r}, but grounding answers freely and ranks by distance, so it has no meaning "
                "there; leave it out, or decode under the catalog (without item_embeddings)"
            )


def check_item_embeddings(item_embeddings: torch.Tensor, trie: ItemTrie, hidden_size: int) -> None:
    """Whether there is one embedding per leaf."""
    if tuple(item_embeddings.shape) != (trie.num_leaves, hidden_size):
        raise ValueError(
            f"item_embeddings have shape {tuple(item_embeddings.shape)}, but the trie has {trie.num_leaves} distinct "
            f"answers and the model a hidden size of {hidden_size}; pass model.embed_items(item_trie)"
        )


def check_scores(scores: torch.Tensor, prompts: torch.Tensor) -> None:
    """Whether the model gave numbers; `prompts` names the prompt of each score."""
    if broken := prompts[scores.isnan()].unique().tolist():
        raise ValueError(
            f"the scores of prompt(s) {broken[:5]} are NaN; the weights hold NaN or infinite values, or overflow in "
            "the model's dtype (try bfloat16 or float32)"
        )


def _rows_where(mask_B: torch.Tensor) -> list[int]:
    """Indices of the true rows; waits for the device, once."""
    return mask_B.nonzero()[:, 0].tolist()


__all__ = [
    "check_answers",
    "check_depth_request",
    "check_depths",
    "check_fixed_slot",
    "check_generation",
    "check_grounding",
    "check_item_embeddings",
    "check_noise",
    "check_not_empty",
    "check_prompts",
    "check_scores",
    "check_thought_samples",
    "read_depths",
]
