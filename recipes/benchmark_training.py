"""
What one pass for many targets saves in training: packed histories against one example per target, LASAR's second
stage, an LR-GRPO step, and the item-ID recommenders SASRec and LARES.

    python recipes/benchmark_training.py                        # histories of Beauty's lengths, random items
    python recipes/benchmark_training.py --data_dir DATA
    python recipes/benchmark_training.py --quick                # the first setting of packing, and all others
    python recipes/benchmark_training.py --settings lr_grpo

**Packing**: forward and backward over an epoch of Beauty histories.

Both ways train one model: Qwen3 with 8 layers, hidden size 256, vocabulary 152,960, float32. Both cut the whole epoch
into padded batches of about the same number of targets, sorted by length: one example per target, or all targets of a
history (window) in one row. A batch has 512 targets in `stride10`, where 128 histories, a batch of
configs/lasar_beauty.yaml, hold about 700; one example per target then takes 11 GB of memory. It has 256 in the others,
whose prompts are longer. The ratio is lower for smaller batches.

Of these batches some are run that stand for the epoch (see `sample`), and the time per target is compared. Before that
the loss and every gradient of the packed batches are compared with those of the same targets one by one: a difference
above 1e-4 ends the benchmark.

Settings: `stride10` trains as configs/lasar_beauty.yaml does (20 newest items, windows start at every 10th), `stride1`
has exact sliding windows (a long user's windows then share no start), `whole` keeps whole histories. The softmax runs
over the catalog; in `vocabulary` over all tokens, where the output projection, the same work either way, dilutes the
ratio. The column `tokens` holds the ratio of the tokens that pass through the layers.

**LR-GRPO** (`lr_grpo`): rewards, advantages, loss and the reasoner's gradients of one step, 8 samples of a thought,
prompts of 200 tokens, answers of 12, vocabulary 8,192. Ours encodes a prompt once for all samples and takes the
rewards from the loss' own forward. The usual way repeats the prompt for each sample, with one full pass for the
thoughts and one for the probabilities, in the rollout and again for the loss; `_one_phase` leaves the rollout out, as
ours does. See benchmark_lr_grpo.py.

**LASAR's second stage** (`lasar_sft`): the histories of `stride10`, 4 thoughts, all losses on: answers, alignment of
every thought with its anchor, depth policy. Ours packs; Coconut's way has one example per target, and a pass for the
prompt, for every thought and for the answer, each with the cache of those before. See benchmark_lasar_sft.py.

**Item-ID recommenders** (`sasrec`, `lares`): steps of AdamW over random batches of about 1,024 targets, collation
included. Ours gives all prefixes of a history in one pass; the published way has a row for each prefix, padded to 20
items, scores of all items at once, and for LARES (4 steps, both alignments) three forwards. The losses are the same to
1e-5 without dropout. See benchmark_sequential.py.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from benchmark_catalogs import beauty_folder
from benchmark_epochs import collate, packed_epoch, sample, separate_epoch, unpack
from benchmark_lasar_sft import measure_lasar_sft
from benchmark_lr_grpo import SIZES as LR_GRPO_SIZES
from benchmark_lr_grpo import TOLERANCE, measure_lr_grpo
from benchmark_sequential import measure_sequential
from benchmarking import machine, print_json, print_table, time_alternating
from datasets import Dataset, concatenate_datasets

from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.data import (
    NextItemCollator,
    PackedHistoryCollator,
    RecData,
    load_data,
    split_leave_one_out,
)
from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer, thought_token_ids


NUM_THOUGHTS = 4
SIZES = {**LR_GRPO_SIZES, "vocab_size": 152_960}
# Interactions per user of Beauty (2014, 5-core), by quantile.
BEAUTY_QUANTILES = [0.0, 0.25, 0.33, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0]
BEAUTY_LENGTHS = [5, 5, 6, 6, 9, 14, 21, 43, 98, 204]
BEAUTY_ITEMS, CODES, LEVELS = 12_101, 256, 4


@dataclass
class Setting:
    """How histories are cut, and over what the softmax runs; `suffix` is that of the JSON's keys."""

    suffix: str
    max_history: int = 20
    window_stride: int = 10
    normalize: str = "catalog"
    targets_per_batch: int = 256


SETTINGS = {
    "stride10": Setting("", targets_per_batch=512),
    "stride1": Setting("_stride1", window_stride=1),
    "whole": Setting("_whole", max_history=1000, window_stride=1),
    "vocabulary": Setting("_vocabulary", normalize="vocabulary"),
}
LR_GRPO, LASAR_SFT = "lr_grpo", "lasar_sft"
SEQUENTIAL = ("sasrec", "lares")


def make_beauty_like(num_users: int = 22_363, seed: int = 0) -> RecData:
    """Users with Beauty's lengths and random items; as many items as Beauty has, with random codes."""
    rng = np.random.default_rng(seed)
    lengths = np.interp(rng.random(num_users), BEAUTY_QUANTILES, BEAUTY_LENGTHS).astype(int)
    codes = rng.choice(CODES**LEVELS, BEAUTY_ITEMS, replace=False)[:, None] // CODES ** np.arange(LEVELS) % CODES
    items = {
        "item_id": [f"i{item}" for item in range(BEAUTY_ITEMS)],
        "semantic_id": [[f"<{'abcd'[level]}_{code}>" for level, code in enumerate(row)] for row in codes],
    }
    starts = lengths.cumsum() - lengths
    interactions = {
        "user_id": np.repeat(np.arange(num_users), lengths).astype(str),
        "item_id": [f"i{item}" for item in rng.integers(0, BEAUTY_ITEMS, lengths.sum())],
        "position": np.arange(lengths.sum()) - np.repeat(starts, lengths),
    }
    return RecData(Dataset.from_dict(interactions), Dataset.from_dict(items))


def build(data: RecData) -> tuple[dict, LatentRecProcessor]:
    """The settings of the benchmark's models and a processor for the data."""
    tokenizer = build_byte_tokenizer()
    add_item_tokens(tokenizer, data.items["semantic_id"])
    catalog = ItemCatalog.from_items(data.items, tokenizer, item_tokenization="semantic_id", on_collision="share")
    markers = thought_token_ids(tokenizer)
    settings = {
        **SIZES,
        "pad_token_id": tokenizer.pad_token_id,
        "start_thought_token_id": markers["start_thought_token_id"],
        "end_thought_token_id": markers["end_thought_token_id"],
    }
    return settings, LatentRecProcessor(tokenizer, catalog, max_history=1000)


def run(model, epoch: list[dict], item_trie, num_answer_tokens: int, keep_gradients: bool = False) -> float:
    """Forward and backward over batches; their loss."""
    losses = []
    for batch in epoch:
        if not keep_gradients:
            model.zero_grad()
        loss = model(**batch, item_trie=item_trie, num_items_in_batch=num_answer_tokens).loss
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum().item()


def check_equal(model, packed: list[dict], separate: list[dict], item_trie) -> None:
    """Raises where batches of packed histories and of the same targets one by one differ in loss or gradients."""
    losses, gradients = [], []
    for epoch in (packed, separate):
        model.zero_grad()
        losses.append(run(model, epoch, item_trie, count(packed)[0] * LEVELS, keep_gradients=True))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    differences = {"the loss": abs(losses[0] - losses[1])}
    for name, expected in gradients[1].items():
        differences[f"the gradient of {name}"] = ((gradients[0][name] - expected).norm() / expected.norm()).item()
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise SystemExit(f"packed, {what} differs by {difference:.2g} from that of one example per target")


def count(epoch: list[dict], num_thoughts: int = 0) -> tuple[int, int]:
    """Targets, and tokens that pass through the layers; thoughts stand between two markers."""
    targets = tokens = 0
    for batch in epoch:
        num_targets = (batch["labels"] != -100).any(-1).sum().item()
        targets += num_targets
        tokens += batch["attention_mask"].sum().item()
        if num_thoughts or not batch.get("labels_follow_prompt", False):
            tokens += num_targets * (LEVELS - 1)
        if num_thoughts:
            tokens += num_targets * (num_thoughts + 2)
    return targets, tokens


def measure(setting: Setting, num_thoughts: int, data: RecData, model, processor, args) -> dict:
    """One row of the table, as numbers."""
    model.config.num_thoughts = num_thoughts
    trie = processor.item_trie if setting.normalize == "catalog" else None
    examples = split_leave_one_out(data, setting.max_history, window_stride=setting.window_stride)["train"]
    collate_one = NextItemCollator(processor)
    collate_packed = PackedHistoryCollator(processor, keep_answers=num_thoughts == 0)
    size = args.targets_per_batch or setting.targets_per_batch
    rows = sample(packed_epoch(examples, size), args.batches)
    same_targets = separate_epoch(unpack(concatenate_datasets(rows)), size).batches
    epochs = {
        "separate": collate(collate_one, sample(separate_epoch(examples, size), args.batches)),
        "packed": collate(collate_packed, rows),
    }
    check_equal(model, epochs["packed"], collate(collate_one, same_targets), trie)  # also the warm-up
    runs = {way: partial(run, model, epoch, trie, 1) for way, epoch in epochs.items()}
    seconds = time_alternating(runs, repeats=args.repeats, warmup=0)
    targets, tokens = zip(*(count(epoch, num_thoughts) for epoch in epochs.values()), strict=True)
    milliseconds = [1000 * seconds[way] / count for way, count in zip(epochs, targets, strict=True)]
    return {
        "separate": milliseconds[0],
        "packed": milliseconds[1],
        "tokens": (tokens[0] / targets[0]) / (tokens[1] / targets[1]),
        "speedup": milliseconds[0] / milliseconds[1],
    }


def run_packing(args: argparse.Namespace, settings: list[str], data: RecData) -> dict[str, float]:
    """Measures packing in every setting, with and without thoughts, and prints a table."""
    model_settings, processor = build(data)
    torch.manual_seed(0)
    model = Qwen3ForLatentReasoningRec(Qwen3LatentRecConfig(**model_settings))
    print(f"{data.num_users:,} users; of an epoch, {args.batches} batches are run either way")
    table, results = [], {}
    for name in settings:
        for num_thoughts in (0, NUM_THOUGHTS):
            figures = measure(SETTINGS[name], num_thoughts, data, model, processor, args)
            key = "pack_speedup_thinking" if num_thoughts else "pack_speedup"
            results[key + SETTINGS[name].suffix] = round(figures["speedup"], 3)
            print(f"{name}, N={num_thoughts}: {figures['speedup']:.2f} times as fast, with equal losses and gradients")
            table.append(
                {
                    "setting": name,
                    "N": str(num_thoughts),
                    "targets": str(args.targets_per_batch or SETTINGS[name].targets_per_batch),
                    "one per target, ms": f"{figures['separate']:.2f}",
                    "packed, ms": f"{figures['packed']:.2f}",
                    "tokens": f"{figures['tokens']:.2f}",
                    "speedup": f"{figures['speedup']:.2f}",
                }
            )
    print_table(table)
    return results


def run_lasar_sft(args: argparse.Namespace, data: RecData) -> dict[str, float]:
    """Measures LASAR's second stage and prints a table."""
    settings, processor = build(data)
    stride10 = SETTINGS["stride10"]
    examples = split_leave_one_out(data, stride10.max_history, window_stride=stride10.window_stride)["train"]
    size = args.targets_per_batch or stride10.targets_per_batch
    milliseconds, speedup = measure_lasar_sft(examples, processor, settings, size, args.batches, args.repeats)
    print(f"\nLASAR's second stage, {NUM_THOUGHTS} thoughts, all losses, with equal losses and gradients")
    print_table([{"way": way, "ms per target": f"{value:.2f}"} for way, value in milliseconds.items()])
    return {"lasar_sft_speedup": round(speedup, 3)}


def run_lr_grpo(args: argparse.Namespace) -> dict[str, float]:
    """Measures an LR-GRPO step and prints a table."""
    seconds, peak = measure_lr_grpo(args.prompts, args.lr_grpo_repeats)
    print(f"\nLR-GRPO, {args.prompts} prompts x 8 samples, with equal losses and gradients")
    print_table(
        [
            {
                "way": way.replace("_", " "),
                "seconds": f"{seconds[way]:.3f}",
                "peak, MB": f"{peak[way] / 1e6:.1f}",
                "speedup of the shared prompt": f"{seconds[way] / seconds['shared']:.2f}",
            }
            for way in seconds
        ]
    )
    results = {}
    for way in list(seconds)[1:]:
        suffix = way.removeprefix("repeated")
        results[f"lr_grpo_speedup{suffix}"] = round(seconds[way] / seconds["shared"], 3)
        results[f"lr_grpo_memory_ratio{suffix}"] = round(peak["shared"] / peak[way], 4)
    return results


def run_sequential(args: argparse.Namespace, name: str, data: RecData) -> dict[str, float]:
    """Measures an epoch of an item-ID recommender and prints a table."""
    examples = split_leave_one_out(data)["train"]
    item_ids = list(data.items["item_id"])
    milliseconds, peak = measure_sequential(name, examples, item_ids, args.sequential_batches, args.repeats)
    print(f"\n{name}, {len(examples):,} targets an epoch, with equal losses and gradients")
    print_table(
        [
            {
                "way": way,
                "ms per target": f"{milliseconds[way]:.3f}",
                "epoch, s": f"{milliseconds[way] * len(examples) / 1000:.1f}",
                "peak, MB": f"{peak[way] / 1e6:,.0f}",
            }
            for way in milliseconds
        ]
    )
    return {
        f"{name}_epoch_speedup": round(milliseconds["published"] / milliseconds["packed"], 3),
        f"{name}_peak_memory_gb": round(peak["packed"] / 1e9, 3),
    }


def main(argv: list[str] | None = None) -> None:
    """Measures what it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "--data_dir",
        type=beauty_folder,
        help="Beauty's folder, or the one above it; without, random items in histories of its lengths",
    )
    parser.add_argument("--batches", type=int, default=4, help="batches of the epoch that are run, either way")
    parser.add_argument(
        "--targets_per_batch", type=int, help="targets of a batch, either way; by default 512 in stride10, else 256"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way")
    parser.add_argument("--prompts", type=int, default=4, help="prompts of an LR-GRPO step")
    parser.add_argument("--lr_grpo_repeats", type=int, default=5, help="timed LR-GRPO steps of each way")
    parser.add_argument("--sequential_batches", type=int, default=4, help="batches of an item-ID recommender's epoch")
    choices = [*SETTINGS, LASAR_SFT, LR_GRPO, *SEQUENTIAL]
    parser.add_argument("--settings", nargs="+", choices=choices, default=choices, help="rows")
    parser.add_argument("--quick", action="store_true", help="the first setting of packing, and all others")
    args = parser.parse_args(argv)
    if args.quick:
        args.settings, args.batches, args.repeats = [choices[0], LASAR_SFT, LR_GRPO, *SEQUENTIAL], 3, 3
    print(machine())
    packing = [name for name in args.settings if name in SETTINGS]
    data = make_beauty_like() if args.data_dir is None else load_data(args.data_dir)
    results = run_packing(args, packing, data) if packing else {}
    if LASAR_SFT in args.settings:
        results |= run_lasar_sft(args, data)
    if LR_GRPO in args.settings:
        results |= run_lr_grpo(args)
    for name in SEQUENTIAL:
        if name in args.settings:
            results |= run_sequential(args, name, data)
    print_json(results)


if __name__ == "__main__":
    main()
