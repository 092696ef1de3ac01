"""
Decoding here against the ordinary way, `generate` of transformers, side by side in one process.

    python recipes/benchmark_decoding.py --quick                              # made data, CPU, within 5 minutes
    python recipes/benchmark_decoding.py --data_dir DATA --tokenizer Qwen/Qwen3-0.6B
    python recipes/benchmark_decoding.py --preset qwen3-0.6b --device cuda --dtype bfloat16 --num_beams 256

Qwen3 with random weights; by default 8 layers, hidden size 256, vocabulary 152,960, float32. Semantic IDs of Beauty:
8 prompts of 140 tokens, 50 beams. Titles of Industrial: 4 prompts of 8 titles, 20 beams.

speedup_vs_generate          semantic IDs, softmax over the catalog: ours against `generate` with a prefix function
                             over a dictionary tree and renormalize_logits=True
speedup_vs_generate_exact    the same with a softmax over the vocabulary: without renormalize_logits
ratio_to_floor               our time over the bare forwards: the prompts once, then one token per beam, three times
latent_overhead              our time with 4 thoughts over our time without
latent_overhead_of_floor     the same for the bare forwards, where a thought is one more pass of one token per prompt
speedup_titles, speedup_titles_exact
                             titles, softmax over the catalog and over the vocabulary, against `generate`
memory_ratio                 our peak memory over that of `generate`, weights left out, as in speedup_vs_generate

Before a time is taken, both ways must give the same answers and scores (to 0.001). In bfloat16, where near ties swap,
it is printed how far they agree. Times are medians, with the ways taking turns. All of it runs under
torch.inference_mode.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import torch
from benchmark_catalogs import (
    BEAUTY,
    INDUSTRIAL,
    Catalog,
    Vocabulary,
    code_prompts,
    data_folder,
    describe,
    find_folder,
    load_beauty,
    load_industrial,
    make_beauty,
    make_industrial,
    title_prompts,
)
from benchmark_ways import (
    Task,
    bare_forwards,
    build_models,
    check_same_answers,
    compare_answers,
    ordinary_answers,
    ordinary_way,
    our_answers,
    our_way,
)
from benchmarking import machine, peak_memory, print_json, print_table, time_alternating
from transformers import Qwen3ForCausalLM

from hf_latentrec import ItemTrie, Qwen3ForLatentReasoningRec


# hidden size, layers, heads, key-value heads, size of a head, whether input and output embeddings are one
PRESETS = {
    "small": (256, 8, 4, 2, 64, False),
    "qwen3-0.6b": (1024, 28, 16, 8, 128, True),
    "qwen3-1.7b": (2048, 28, 16, 8, 128, True),
}
GOALS = {
    "speedup_vs_generate": ">= 45",
    "speedup_vs_generate_exact": ">= 9",
    "ratio_to_floor": "<= 1.15",
    "latent_overhead": "<= 1.12",
    "latent_overhead_of_floor": "",
    "speedup_titles": ">= 30",
    "speedup_titles_exact": ">= 2.5",
    "memory_ratio": "<= 0.2",
}
NUM_THOUGHTS = 4
SHORT_REPEATS = 15  # timed runs where no way is slow


class Result(NamedTuple):
    """One row of the table: a ratio and the two figures that it is made of."""

    key: str
    ratio: float
    ours: str
    against: str


class Benchmark:
    """
    What is compared with what, on one pair of models with the same weights.

    Args:
        model (`Qwen3ForLatentReasoningRec`): ours.
        plain (`Qwen3ForCausalLM`): the ordinary one.
        repeats (`int`): timed runs of each way.
    """

    def __init__(self, model: Qwen3ForLatentReasoningRec, plain: Qwen3ForCausalLM, repeats: int):
        self.model, self.plain, self.repeats = model, plain, repeats

    def semantic_ids(self, task: Task) -> Iterator[Result]:
        yield self._speedup("speedup_vs_generate", task, "catalog")
        yield self._speedup("speedup_vs_generate_exact", task, "vocabulary")
        ways = {
            "ours": our_way(self.model, task, "catalog"),
            "bare forwards": bare_forwards(self.model, task),
            "ours, thinking": our_way(self.model, task, "catalog", NUM_THOUGHTS),
            "bare forwards, thinking": bare_forwards(self.model, task, NUM_THOUGHTS),
        }
        seconds = time_alternating(ways, SHORT_REPEATS)
        ours, bare, thinking, bare_thinking = seconds.values()
        yield Result("ratio_to_floor", ours / bare, f"{ours:.3f} s", f"{bare:.3f} s")
        yield Result("latent_overhead", thinking / ours, f"{thinking:.3f} s", f"{ours:.3f} s")
        yield Result("latent_overhead_of_floor", bare_thinking / bare, f"{bare_thinking:.3f} s", f"{bare:.3f} s")

    def titles(self, task: Task) -> Iterator[Result]:
        yield self._speedup("speedup_titles", task, "catalog")
        yield self._speedup("speedup_titles_exact", task, "vocabulary")

    def memory(self, task: Task) -> Iterator[Result]:
        ours = peak_memory(our_way(self.model, task, "catalog"))
        ordinary = peak_memory(ordinary_way(self.plain, task, "catalog"))
        yield Result("memory_ratio", ours / ordinary, f"{ours / 1e6:,.1f} MB", f"{ordinary / 1e6:,.1f} MB")

    def _speedup(self, key: str, task: Task, normalize: str) -> Result:
        ours, ordinary = our_way(self.model, task, normalize), ordinary_way(self.plain, task, normalize)
        scored = ordinary_way(self.plain, task, normalize, with_scores=True)
        answers = our_answers(ours()), ordinary_answers(scored(), task)  # these runs are the warm-up
        if self.model.dtype == torch.float32:
            check_same_answers(*answers)
        share, difference = compare_answers(*answers)
        print(f"{key}: {share:.1%} of the answers are the same; scores differ by {difference:.1g} at most")
        seconds = time_alternating({"ours": ours, "generate": ordinary}, self.repeats, warmup=0)
        shown = {way: f"{time:.3f} s" for way, time in seconds.items()}
        return Result(key, seconds["generate"] / seconds["ours"], shown["ours"], shown["generate"])


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    vocabulary = Vocabulary(args.vocab_size)
    model, plain = build_models(model_sizes(args), vocabulary, getattr(torch, args.dtype), args.device)
    print(f"{machine()}\n{model.num_parameters():,} weights, {args.dtype}, on {args.device}")
    benchmark = Benchmark(model, plain, args.repeats or (1 if args.quick else 5))

    results: list[Result] = []
    if args.only != "titles":
        task = semantic_id_task(args, vocabulary)
        if args.only != "memory":
            results += benchmark.semantic_ids(task)
        if args.only != "semantic_ids":
            results += benchmark.memory(task)
    if args.only in (None, "titles"):
        results += benchmark.titles(title_task(args, vocabulary))

    print_table(
        [
            {"key": r.key, "value": f"{r.ratio:.3g}", "goal": GOALS[r.key], "ours": r.ours, "against": r.against}
            for r in results
        ]
    )
    print_json({r.key: round(r.ratio, 4) for r in results})


def semantic_id_task(args: argparse.Namespace, vocabulary: Vocabulary) -> Task:
    """Semantic IDs of Beauty, or made ones."""
    folder = find_folder(args.data_dir, BEAUTY)
    catalog = load_beauty(folder, vocabulary) if folder else make_beauty(vocabulary)
    prompts = code_prompts(catalog, vocabulary, args.batch_size or 8, args.prompt_length)
    return build_task(args, catalog, prompts, args.num_beams or 50, vocabulary.pad)


def title_task(args: argparse.Namespace, vocabulary: Vocabulary) -> Task:
    """Titles of Industrial, or made ones."""
    folder = find_folder(args.data_dir, INDUSTRIAL) if args.tokenizer else None
    catalog = load_industrial(folder, args.tokenizer, vocabulary) if folder else make_industrial(vocabulary)
    prompts = title_prompts(catalog, vocabulary, args.batch_size or 4, args.prompt_titles)
    return build_task(args, catalog, prompts, args.num_beams or 20, vocabulary.pad, vocabulary.terminal)


def build_task(args, catalog: Catalog, prompts: tuple, num_beams: int, pad: int, terminal: int | None = None) -> Task:
    """Says what is answered from what, and puts it together."""
    (B, L), tokens = prompts[0].shape, int(prompts[1].sum())
    print(f"{catalog.source}: {describe(ItemTrie.from_sequences(catalog.sequences), catalog.sequences)}")
    print(f"  {B} prompts, padded to {L} tokens ({tokens:,} of {B * L:,} are real), {num_beams} beams")
    input_ids, attention_mask = (tensor.to(args.device) for tensor in prompts)
    return Task(input_ids, attention_mask, catalog.sequences, num_beams, pad, terminal, args.length_penalty)


def model_sizes(args: argparse.Namespace) -> dict:
    hidden_size, num_layers, num_heads, num_key_value_heads, head_dim, tied = PRESETS[args.preset]
    hidden_size = args.hidden_size or hidden_size
    return {
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": args.num_layers or num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
    }


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="1 timed run of `generate` after the warm-up instead of 5")
    add("--repeats", type=int, help="timed runs of `generate` and of ours beside it")
    add("--only", choices=["semantic_ids", "titles", "memory"], help="one part; all by default")
    add(
        "--data_dir",
        type=data_folder,
        help=f"{BEAUTY} or {INDUSTRIAL}, or the folder that holds them; made data by default",
    )
    add("--tokenizer", help="of the real titles: a name or a folder; without it titles are made")
    add("--preset", choices=PRESETS, default="small", help="sizes of the model; intermediate size is 3 x hidden size")
    add("--hidden_size", type=int, help="instead of the preset's")
    add("--num_layers", type=int, help="instead of the preset's")
    add("--vocab_size", type=int, default=152_960, help="the last 1,024 tokens are the codes")
    add("--device", default="cpu")
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--batch_size", type=int, help="prompts at a time; by default 8 for semantic IDs, 4 for titles")
    add("--num_beams", type=int, help="beams per prompt; by default 50 for semantic IDs, 20 for titles")
    add("--prompt_length", type=int, default=140, help="tokens of a prompt of semantic IDs (4 an item)")
    add("--prompt_titles", type=int, default=8, help="titles of a prompt")
    add("--length_penalty", type=float, default=0.0, help="of beam search, for both ways")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
