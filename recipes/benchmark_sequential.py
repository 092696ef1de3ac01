"""
An epoch of item-ID recommenders in two ways, for `benchmark_training.py`: all prefixes of a history in one pass, and
the published way, every prefix as a row of its own.

The published way is a plain loop: rows padded to the maximum, attention in plain matrix products, torch's dropout,
scores of all items at once, and three separate forwards for LARES. Both ways share the weights.
Shapes: B rows, L positions, D hidden, I items, G targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from benchmarking import peak_memory, time_alternating
from datasets import Dataset
from torch import nn

from hf_latentrec import (
    ItemTable,
    LaresConfig,
    LaresForSequentialRecommendation,
    SASRecConfig,
    SASRecForSequentialRecommendation,
)
from hf_latentrec.data import SequenceCollator, SequenceDataset, same_target_view
from hf_latentrec.trainer import info_nce


SIZES = {"max_history": 20, "hidden_size": 64, "intermediate_size": 256}
NUM_STEPS, INTERMEDIATE_STEP = 4, 2
TLA_WEIGHT, SLA_WEIGHT = 0.1, 0.5
TOLERANCE = 1e-5
ROWS_PER_BATCH = 1024  # the published way's


def packed_sasrec(model: nn.Module, batch: dict) -> torch.Tensor:
    """Ours: the mean loss of all targets."""
    return model(**batch).loss


def packed_lares(model: nn.Module, batch: dict) -> torch.Tensor:
    """Ours: the loss of Eq. 10; both trajectories are one batch."""
    output = model(**batch, num_steps=NUM_STEPS, intermediate_step=INTERMEDIATE_STEP)
    trajectories = info_nce(*output.view_states.chunk(2)).mean()
    steps = info_nce(output.step_states, output.user_states).mean()
    return output.loss + TLA_WEIGHT * trajectories + SLA_WEIGHT * steps


def published_layer(layer: nn.Module, hidden_BLD: torch.Tensor, mask_LL: torch.Tensor) -> torch.Tensor:
    """A layer with its scores and weights written out."""
    training, attention_p, p = layer.training, layer.attention_dropout.p, layer.dropout.p
    heads = hidden_BLD.shape[:2] + (layer.num_heads, -1)
    query, key, value = (part.view(heads).transpose(1, 2) for part in layer.qkv(hidden_BLD).chunk(3, dim=-1))
    scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1]) + mask_LL
    weights = F.dropout(scores.softmax(-1), attention_p, training)
    attended = layer.out(torch.matmul(weights, value).transpose(1, 2).reshape(hidden_BLD.shape))
    hidden_BLD = layer.attention_norm(hidden_BLD + F.dropout(attended, p, training))
    block = layer.feed_forward
    return block.norm(hidden_BLD + F.dropout(block.down(block.activation(block.up(hidden_BLD))), p, training))


def published_embeddings(embeddings: nn.Module, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [B, L, D] of padded rows, and the causal mask [L, L] that is added to scores."""
    length = input_ids.shape[1]
    hidden = embeddings.items(input_ids) + embeddings.positions(torch.arange(length))
    hidden = F.dropout(embeddings.norm(hidden), embeddings.dropout.p, embeddings.training)
    return hidden, torch.full((length, length), -1e9).triu_(1)


def published_states(model: nn.Module, input_ids: torch.Tensor) -> list[torch.Tensor]:
    """State [B, D] after the last item of each row: of SASRec, or of LARES after every step."""
    last = torch.arange(len(input_ids)), input_ids.ne(0).sum(-1) - 1
    if isinstance(model, SASRecForSequentialRecommendation):
        hidden, mask = published_embeddings(model.embeddings, input_ids)
        for layer in model.layers.layers:
            hidden = published_layer(layer, hidden, mask)
        return [hidden[last]]
    lares = model.model
    hidden, mask = published_embeddings(lares.embeddings, input_ids)
    for layer in lares.pre_block.layers:
        hidden = published_layer(layer, hidden, mask)
    state, states = lares.initial_state(input_ids), []
    for _ in range(NUM_STEPS):
        state = lares.norm(lares.aggregation(state, hidden))
        for layer in lares.core_block.layers:
            state = published_layer(layer, state, mask)
        states.append(state[last])
    return states


def published_cross_entropy(model: nn.Module, states_BD: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    """Over all items, from scores [B, I]."""
    return F.cross_entropy(states_BD @ model.item_embeddings.T, targets_B - 1)


def published_sasrec(model: nn.Module, batch: dict) -> torch.Tensor:
    """One row per target."""
    return published_cross_entropy(model, published_states(model, batch["input_ids"])[-1], batch["targets"])


def published_lares(model: nn.Module, batch: dict) -> torch.Tensor:
    """One row per target, and three forwards: one for the recommendation, one for each trajectory."""
    states = published_states(model, batch["input_ids"])
    first = published_states(model, batch["input_ids"])[-1]
    second = published_states(model, batch["other_ids"])[-1]
    loss = published_cross_entropy(model, states[-1], batch["targets"])
    steps = info_nce(states[INTERMEDIATE_STEP - 1], states[-1]).mean()
    return loss + TLA_WEIGHT * info_nce(first, second).mean() + SLA_WEIGHT * steps


def published_batch(dataset: SequenceDataset, samples: np.ndarray) -> dict[str, torch.Tensor]:
    """Rows padded to the maximum, with another history of the same target beside each."""
    rows = {"input_ids": samples, "other_ids": dataset.same_target(samples)}
    batch = {name: np.zeros((len(samples), dataset.max_history), dtype=np.int64) for name in rows}
    for name, numbers in rows.items():
        for row, sample in zip(batch[name], numbers, strict=True):
            history = dataset.prefix(sample)
            row[: len(history)] = history
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    return {**tensors, "targets": torch.from_numpy(dataset.targets[samples])}


Loss = Callable[[nn.Module, dict], torch.Tensor]


def train(
    model: nn.Module, loss_of: Loss, optimizer: torch.optim.Optimizer, batches: Callable[[], list[dict]]
) -> None:
    """Steps over batches, which are collated here."""
    for batch in batches():
        loss_of(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()


def check_equal(name: str, model: nn.Module, ways: dict[str, tuple[Loss, dict]]) -> None:
    """Raises where the two ways differ in the loss or a gradient of the same targets, without dropout."""
    model.eval()
    losses, gradients = [], []
    for loss_of, batch in ways.values():
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
        model.zero_grad()
    differences = {"the loss": (losses[0] - losses[1]).abs() / losses[1].abs()}
    for key, expected in gradients[1].items():
        # Biases of keys have no gradient but rounding: attention does not change when all scores of a row shift.
        differences[f"the gradient of {key}"] = (gradients[0][key] - expected).norm() / (expected.norm() + 1e-3)
    for what, difference in differences.items():
        if not difference <= (TOLERANCE if what == "the loss" else 1e-3):
            raise SystemExit(
                f"{name}: {what} of packed histories differs by {difference:.2g} from the published way's"
            )
    model.train()


def measure_sequential(
    name: str, examples: Dataset, item_ids: list[str], num_batches: int, repeats: int
) -> tuple[dict[str, float], dict[str, int]]:
    """
    Milliseconds per target and peak bytes of both ways, after a check that they give the same.

    Args:
        name (`str`): `"sasrec"` or `"lares"`.
        examples (`datasets.Dataset`): `user_id, history, target` of the training split.
        item_ids (`list[str]`): of the catalog.
        num_batches (`int`): batches of the epoch that are run, either way.
        repeats (`int`): timed runs.
    """
    torch.manual_seed(0)
    items = ItemTable(item_ids)
    if name == "sasrec":
        model, losses, views = (
            SASRecForSequentialRecommendation(SASRecConfig(num_items=len(items), **SIZES)),
            (packed_sasrec, published_sasrec),
            (),
        )
    else:
        model = LaresForSequentialRecommendation(LaresConfig(num_items=len(items), **SIZES))
        losses, views = (packed_lares, published_lares), (None, same_target_view)
    dataset = SequenceDataset(examples, items, SIZES["max_history"])
    collate = SequenceCollator(dataset, views)
    rng = np.random.default_rng(0)
    rows_per_batch = max(1, round(ROWS_PER_BATCH * len(dataset) / dataset.num_samples))
    rows = rng.permutation(len(dataset))[: num_batches * rows_per_batch].tolist()
    chunks = [rows[start : start + rows_per_batch] for start in range(0, len(rows), rows_per_batch)]
    samples = np.array_split(rng.permutation(dataset.num_samples)[: num_batches * ROWS_PER_BATCH], num_batches)

    def packed_batch(chunk: list[int]) -> dict[str, torch.Tensor]:
        batch = collate([dataset[row] for row in chunk])
        return {name: value for name, value in batch.items() if name not in ("user_ids", "sample_users")}

    in_order = sorted(chunks[0], key=lambda row: len(dataset[row]["input_ids"]), reverse=True)
    same_samples = np.concatenate([dataset[row]["samples"] for row in in_order])
    same = (losses[0], packed_batch(chunks[0])), (losses[1], published_batch(dataset, same_samples))
    check_equal(name, model, dict(zip(("packed", "published"), same, strict=True)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)  # the default of Trainer
    runs = {
        "packed": partial(train, model, losses[0], optimizer, lambda: map(packed_batch, chunks)),
        "published": partial(
            train, model, losses[1], optimizer, lambda: map(partial(published_batch, dataset), samples)
        ),
    }
    peak = {way: peak_memory(partial(loss_of_batch, model, *pair)) for way, pair in zip(runs, same, strict=True)}
    seconds = time_alternating(runs, repeats=repeats, warmup=1)
    targets = {
        "packed": sum(len(dataset[row]["samples"]) for row in rows),
        "published": sum(map(len, samples)),
    }
    return {way: 1000 * seconds[way] / targets[way] for way in runs}, peak


def loss_of_batch(model: nn.Module, loss_of: Loss, batch: dict) -> None:
    """Forward and backward of one batch."""
    loss_of(model, batch).backward()
    model.zero_grad()


__all__ = ["measure_sequential"]
