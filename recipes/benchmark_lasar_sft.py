"""LASAR's second stage in two ways, for `benchmark_training.py`: packed branches, and Coconut's way.

Both compute the whole loss of section 2.3: cross entropy of the answers, alignment of all thoughts with anchors, cross
entropy of the depth policy. Shapes: B rows, G targets of a row, L prompt, T answer, N thoughts, D hidden, C depths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from benchmark_epochs import collate, packed_epoch, sample, separate_epoch, unpack
from benchmarking import time_alternating
from datasets import Dataset, concatenate_datasets
from torch import nn
from transformers import DynamicCache

from hf_latentrec import ItemTrie, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.cot.collator import AnchoredCollator
from hf_latentrec.data import NextItemCollator, PackedHistoryCollator
from hf_latentrec.trainer.thought_losses import thought_alignment


NUM_THOUGHTS, MAX_THOUGHTS = 4, 8
ALIGN_WEIGHT = POLICY_WEIGHT = 0.1  # LASAR, Table 7
TOLERANCE = 1e-4


class RandomAnchors:
    """Stands for an `AnchorStore`: four random anchors per target, the same whichever way batches are made."""

    def __init__(self, item_ids: Sequence[str], hidden_size: int):
        self.row = {item_id: row for row, item_id in enumerate(item_ids)}
        rng = torch.Generator().manual_seed(0)
        self.anchors = torch.randn(len(item_ids), NUM_THOUGHTS, hidden_size, generator=rng)

    def lookup(self, user_ids: Sequence[str], targets: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Anchors [n, N, D] of examples, and how many each has."""
        rows = torch.tensor([self.row[target] for target in targets])
        return self.anchors[rows], torch.full((len(rows),), NUM_THOUGHTS)


def build(settings: dict) -> Qwen3ForLatentReasoningRec:
    """A model with a depth policy, which is asked for four thoughts."""
    torch.manual_seed(0)
    reasoner = {"num_thoughts": MAX_THOUGHTS, "adaptive_depth": True}
    return Qwen3ForLatentReasoningRec(Qwen3LatentRecConfig(**settings, reasoner_config=reasoner)).eval()


def lasar_loss(
    logps: torch.Tensor, thoughts: torch.Tensor, depth_logits: torch.Tensor, anchors: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """The loss of section 2.3, summed over targets [...]; `real` [...] are those that do not fill up a batch."""
    alignment = thought_alignment(thoughts, anchors).mean(-1)
    policy = -depth_logits.log_softmax(-1)[..., NUM_THOUGHTS - 1]
    return (-logps.sum(-1) + (ALIGN_WEIGHT * alignment + POLICY_WEIGHT * policy) * real).sum()


def packed_loss(model: Qwen3ForLatentReasoningRec, batch: dict, trie: ItemTrie) -> torch.Tensor:
    """Ours: the history is encoded once, the targets are its branches, markers and answers ride along."""
    inputs = {name: value for name, value in batch.items() if name not in ("anchors", "num_segments")}
    output = model(**inputs, item_trie=trie, num_thoughts=NUM_THOUGHTS)
    real = (batch["labels"] != -100).any(-1)
    return lasar_loss(output.logps, output.thoughts, output.depth_logits, batch["anchors"], real)


def coconut_loss(model: Qwen3ForLatentReasoningRec, batch: dict, trie: ItemTrie) -> torch.Tensor:
    """
    Coconut's: one example per target; a pass over `[prompt] <s>`, one per thought with the cache of what was before,
    one over `<e> [answer]`. It uses the plain backbone, and ours for the projections alone.
    """
    embed, labels = model.get_input_embeddings(), batch["labels"]
    start_B1, end_B1 = (
        torch.full((len(labels), 1), token)
        for token in (model.config.start_thought_token_id, model.config.end_thought_token_id)
    )
    cache, mask_BS = DynamicCache(config=model.config), batch["attention_mask"]

    def advance(embeds_BMD: torch.Tensor) -> torch.Tensor:
        """Hidden states of M more tokens."""
        nonlocal mask_BS
        num_new = embeds_BMD.shape[1]
        mask_BS = nn.functional.pad(mask_BS, (0, num_new - (mask_BS.shape[1] - cache.get_seq_length())), value=1)
        return model.model(
            inputs_embeds=embeds_BMD,
            attention_mask=mask_BS,
            position_ids=(mask_BS.cumsum(-1) - 1).clamp(min=0)[:, -num_new:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    hidden_BD = advance(embed(torch.cat([batch["input_ids"], start_B1], dim=1)))[:, -1]
    depth_logits_BC = model.depth_policy(hidden_BD)
    thoughts = []
    for _ in range(NUM_THOUGHTS):
        hidden_BD = advance(hidden_BD[:, None])[:, 0]
        thoughts.append(hidden_BD)
    hidden_BTD = advance(embed(torch.cat([end_B1, labels[:, :-1]], dim=1)))
    logps_BT = model.token_log_probs(hidden_BTD, labels, trie)
    everything_B = torch.ones(len(labels))
    return lasar_loss(logps_BT, torch.stack(thoughts, dim=1), depth_logits_BC, batch["anchors"], everything_B)


Loss = Callable[[Qwen3ForLatentReasoningRec, dict, ItemTrie], torch.Tensor]


def train(
    model: nn.Module, loss_of: Loss, batches: list[dict], trie: ItemTrie, keep_gradients: bool = False
) -> torch.Tensor:
    """Forward and backward over batches; their loss."""
    losses = []
    for batch in batches:
        if not keep_gradients:
            model.zero_grad()
        loss = loss_of(model, batch, trie)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def check_equal(model: nn.Module, ways: dict[str, tuple[Loss, list[dict]]], trie: ItemTrie) -> None:
    """Raises where the two ways differ in the loss or a gradient over the same targets."""
    losses, gradients = [], []
    for loss_of, batches in ways.values():
        model.zero_grad()
        losses.append(train(model, loss_of, batches, trie, keep_gradients=True))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    if gradients[0].keys() != gradients[1].keys():
        raise SystemExit(f"LASAR: only one way has gradients of {sorted(gradients[0].keys() ^ gradients[1].keys())}")
    differences = {"the loss": (losses[0] - losses[1]).abs() / losses[1].abs()}
    for name, expected in gradients[1].items():
        differences[f"the gradient of {name}"] = (gradients[0][name] - expected).norm() / expected.norm()
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise SystemExit(
                f"LASAR: {what} of packed branches differs by {difference:.2g} from that of Coconut's way"
            )


def measure_lasar_sft(
    examples: Dataset, processor: LatentRecProcessor, settings: dict, size: int, num_batches: int, repeats: int
) -> tuple[dict[str, float], float]:
    """
    Milliseconds per target of both ways, after a check that they give the same, and their ratio.

    Args:
        examples (`datasets.Dataset`): `user_id, history, target`, cut as they are trained on.
        processor (`LatentRecProcessor`): of the catalog.
        settings (`dict`): of the model.
        size (`int`): targets of a batch, either way.
        num_batches (`int`): batches of the epoch that are run, either way.
        repeats (`int`): timed runs.
    """
    model, trie = build(settings), processor.item_trie
    anchors = RandomAnchors(processor.catalog.item_ids, model.config.hidden_size)
    collate_one = AnchoredCollator(NextItemCollator(processor), anchors)
    collate_packed = AnchoredCollator(PackedHistoryCollator(processor, keep_answers=False), anchors)
    rows = sample(packed_epoch(examples, size), num_batches)
    packed = collate(collate_packed, rows)
    same_targets = separate_epoch(unpack(concatenate_datasets(rows)), size).batches
    check_equal(
        model, {"packed": (packed_loss, packed), "coconut": (coconut_loss, collate(collate_one, same_targets))}, trie
    )
    batches = {"packed": packed, "coconut": collate(collate_one, sample(separate_epoch(examples, size), num_batches))}
    runs = {
        "packed": partial(train, model, packed_loss, batches["packed"], trie),
        "coconut": partial(train, model, coconut_loss, batches["coconut"], trie),
    }
    seconds = time_alternating(runs, repeats=repeats, warmup=0)
    milliseconds = {
        way: 1000 * seconds[way] / sum((batch["labels"] != -100).any(-1).sum().item() for batch in batches[way])
        for way in runs
    }
    return milliseconds, milliseconds["coconut"] / milliseconds["packed"]


__all__ = ["measure_lasar_sft"]
