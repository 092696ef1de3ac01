"""
What the factors of FLR cost beside the one head of LatentR³: decoding, and a step of fine-tuning.

    python recipes/benchmark_factors.py                        # synthetic titles
    python recipes/benchmark_factors.py --data_dir DATA/amazon_scientific_2018
    python recipes/benchmark_factors.py --quick

Two recommenders with the same backbone (Qwen3, 8 layers, hidden size 256, a BPE of 8,192 tokens learned from the
titles, float32) take turns: LatentR³ with one thought, FLR with K = 4 factors and T = 2 iterations.

`decoding_overhead`: beam search under the trie, 8 prompts of 10 titles, 20 beams, scores over the catalog;
`_vocabulary`: scores over the vocabulary. `sft_overhead`: forward, loss, backward and AdamW of the trainers themselves
on packed histories, all three factor losses with learned weights included; `_separate`: one example per row. Ratios
are of medians; the models are random, which decoding time hardly depends on.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmark_lr_grpo import SIZES
from benchmarking import machine, print_json, print_table, time_alternating

from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.data import load_data, make_synthetic, split_leave_one_out
from hf_latentrec.models.latent_reasoning.tokenization import build_bpe_tokenizer
from hf_latentrec.trainer import FLRSFTConfig, FLRSFTTrainer, LatentSFTConfig, LatentSFTTrainer


REASONERS = {
    "LatentR³": {"reasoner": "latent_attention", "num_thoughts": 1},
    "FLR": {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 4, "num_iterations": 2},
}
TRAINERS = {"LatentR³": (LatentSFTTrainer, LatentSFTConfig), "FLR": (FLRSFTTrainer, FLRSFTConfig)}
GOALS = {"decoding_overhead": "<= 1.05", "sft_overhead": "<= 1.15"}
Ways = dict[str, Callable[[], object]]


def build_processor(data_dir: str | None) -> tuple[LatentRecProcessor, dict]:
    """Titles as items, and the splits of their histories."""
    data = make_synthetic() if data_dir is None else load_data(data_dir)
    titles = [title or "" for title in data.items["title"]]
    tokenizer = build_bpe_tokenizer(titles, SIZES["vocab_size"])
    catalog = ItemCatalog.from_items(data.items, tokenizer, item_tokenization="title", on_collision="share")
    processor = LatentRecProcessor(tokenizer, catalog, prompt_template="{history}\n", max_history=10)
    return processor, split_leave_one_out(data, max_history=10)


def build_model(name: str) -> Qwen3ForLatentReasoningRec:
    """The backbone is the same for all names."""
    torch.manual_seed(0)
    return Qwen3ForLatentReasoningRec(Qwen3LatentRecConfig(**SIZES, reasoner_config=REASONERS[name])).eval()


def decoding(processor: LatentRecProcessor, histories: list[list[str]], normalize: str) -> Ways:
    """Beam search of each recommender for the same users."""
    inputs = processor(histories)

    @torch.inference_mode()
    def decode(model: Qwen3ForLatentReasoningRec) -> None:
        model.generate(**inputs, item_trie=processor.item_trie, num_beams=20, normalize=normalize)

    return {name: partial(decode, build_model(name)) for name in REASONERS}


def fine_tuning(processor: LatentRecProcessor, examples, batch_size: int, packed: bool, folder: Path) -> Ways:
    """A step of each recommender's trainer on the same batch."""
    ways = {}
    for name, (trainer_class, config_class) in TRAINERS.items():
        config = config_class(
            folder, per_device_train_batch_size=batch_size, pack_histories=packed, use_cpu=True,
            train_sampling_strategy="group_by_length", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = trainer_class(build_model(name), config, train_dataset=examples, processing_class=processor)
        batches = list(zip(trainer.get_train_dataloader(), range(3), strict=False))
        batch = batches[-1][0]  # the first ones hold the longest histories

        ways[name] = partial(step, trainer, batch, trainer.create_optimizer())
    return ways


def step(trainer: LatentSFTTrainer, batch: dict, optimizer: torch.optim.Optimizer) -> None:
    """As in the Trainer's loop."""
    num_items = trainer._get_num_items_in_batch([batch], trainer.args.device)
    trainer.training_step(trainer.model, dict(batch), num_items)
    optimizer.step()
    optimizer.zero_grad()


def main(argv: list[str] | None = None) -> None:
    """Measures what it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="data with titles; the synthetic data set by default")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each way")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="packed histories of a step; 4 times as many examples"
    )
    parser.add_argument("--quick", action="store_true", help="3 timed runs, packed steps and scores over the catalog")
    args = parser.parse_args(argv)
    repeats = 3 if args.quick else args.repeats
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(machine())
    processor, splits = build_processor(args.data_dir)
    histories = [history for history in splits["test"]["history"] if len(history) == 10][:8]
    if not histories:
        raise SystemExit(f"{args.data_dir}: no user has a history of 10 items to decode from")
    with tempfile.TemporaryDirectory() as folder:
        tune = partial(fine_tuning, processor, splits["train"], folder=Path(folder))
        measured = {
            "decoding_overhead": lambda: decoding(processor, histories, "catalog"),
            "sft_overhead": lambda: tune(batch_size=args.batch_size, packed=True),
            "decoding_overhead_vocabulary": lambda: decoding(processor, histories, "vocabulary"),
            "sft_overhead_separate": lambda: tune(batch_size=4 * args.batch_size, packed=False),
        }
        table, results = [], {}
        for key in list(measured)[: 2 if args.quick else None]:
            seconds = time_alternating(measured[key](), repeats)
            results[key] = round(seconds["FLR"] / seconds["LatentR³"], 3)
            figures = {name: f"{time:.3f} s" for name, time in seconds.items()}
            table.append({"key": key, "value": str(results[key]), "goal": GOALS.get(key, ""), **figures})
    print_table(table)
    print_json(results)


if __name__ == "__main__":
    main()
