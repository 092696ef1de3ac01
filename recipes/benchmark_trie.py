"""
The catalog's trie at scale: how long it takes to build, what it holds in memory, and what a constrained step costs.

    python recipes/benchmark_trie.py                     # 1 M and 10 M items; about 3 minutes and 3 GB
    python recipes/benchmark_trie.py --quick             # 1 M items only; within a minute
    python recipes/benchmark_trie.py --items 2000000     # another size
    python recipes/benchmark_trie.py --data_dir DATA     # the published codes of Beauty as well

Items are random sequences of 4 codes out of 256 per level, as flat int32 tokens. One thread, float32, 8 prompts x 50
beams. All times are medians of several runs after a warm-up; what is compared takes turns.

build_seconds_1m, build_seconds_10m
               ItemTrie.from_sequences: tokens to ready trie, checks and sorting included
bytes_per_item all tensors that the trie of the first size keeps after it was searched, over its items.
               bytes_per_item_paths: the same after a search for titles has asked it for paths and forced ends as well
search_ms      all that a decode of 4 steps over the first size costs beside the model: from the logits of each step's
               codebook, which are given, over the mask, the softmax over the children, the best 50 (beam, child) pairs
               of a prompt, and the bookkeeping, to the leaves, their scores and the tokens to feed
step_growth    one constrained step for 400 beams over the last size, divided by the same over 10 k items. A step goes
               from the hidden states of 400 beams (size 256) over their projection on the codebook (256 rows of an
               output projection of 152,960) to the next beams. The mean of steps 2 to 4 of a decode; the first has 8
               beams. step_growth_beside_model: the same without the projection, as in search_ms

The ordinary way, over 100 k items (dict_*): a tree of Python dictionaries, and a decode beside the model by the
PrefixConstrainedLogitsProcessor of transformers and a softmax over the logits of the vocabulary, which are given too.
Before a time is taken, the two must agree on the children of nodes and on a whole search, and our search with as many
beams as items on the scores of all items, computed one by one.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch
from benchmark_catalogs import Vocabulary, beauty_folder, load_beauty
from benchmarking import machine, print_json, print_table, time_alternating
from transformers import PrefixConstrainedLogitsProcessor

from hf_latentrec import ItemTrie
from hf_latentrec.models.latent_reasoning.beam_step import child_log_probs, select_children


LEVELS, CODES = 4, 256
PROMPTS, HIDDEN = 8, 256
SMALL = 10_000
GOALS = {
    "build_seconds_1m": "<= 0.45",
    "build_seconds_10m": "<= 6",
    "bytes_per_item": "<= 25",
    "search_ms": "<= 2.3",
    "step_growth": "<= 1.5",
}
RUNS = 20  # decodes in one timed run: a single one is too short for the clock of a busy machine

Catalog = tuple[np.ndarray, np.ndarray]  # flat tokens and offsets
Beams = tuple[torch.Tensor, torch.Tensor]  # scores and nodes, [8, K]
# (step, last tokens of the beams or None) -> logits of the step's codebook, [8, K, 256]
Logits = Callable[[int, torch.Tensor | None], torch.Tensor]


def random_catalog(num_items: int, vocab_size: int) -> Catalog:
    """Random codes, whose tokens are the last ones of the vocabulary."""
    first = vocab_size - CODES * np.arange(LEVELS, 0, -1, dtype=np.int32)
    codes = np.random.default_rng(0).integers(0, CODES, (num_items, LEVELS), dtype=np.int32)
    return (codes + first).ravel(), np.arange(0, num_items * LEVELS + 1, LEVELS)


def build_dict(catalog: Catalog) -> dict:
    """The ordinary trie: `{token: subtree}`."""
    root: dict = {}
    for sequence in catalog[0].reshape(-1, LEVELS).tolist():
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
    return root


def follow(root: dict, tokens: list[int]) -> dict:
    for token in tokens:
        root = root[token]
    return root


def search(trie: ItemTrie, logits: Logits, num_beams: int, first_step: int = 0, start: Beams | None = None) -> Beams:
    """A decode beside the model, from the root or from beams of an earlier step on."""
    scores, nodes = start or (torch.zeros(PROMPTS, 1), torch.zeros(PROMPTS, 1, dtype=torch.long))
    tokens = None
    for step in range(first_step, LEVELS):
        log_probs = child_log_probs(logits(step, tokens), trie, nodes, step)
        scores, _, nodes = select_children(scores, log_probs, trie, nodes, num_beams)
        tokens = trie.tokens_into(nodes, step + 1)
    return scores, nodes


def ordinary_search(root: dict, logits: list[torch.Tensor], num_beams: int) -> Beams:
    """The same as transformers does it, from the logits of the vocabulary `[8, K, V]`; sequences instead of nodes."""
    tokens = torch.empty(PROMPTS, 1, 0, dtype=torch.long)
    scores = torch.zeros(PROMPTS, 1)
    for step in range(LEVELS):
        K, V = scores.shape[1], logits[step].shape[-1]
        processor = PrefixConstrainedLogitsProcessor(lambda _, answer: list(follow(root, answer.tolist())), K)
        log_probs = processor(tokens.flatten(0, 1), logits[step].flatten(0, 1)).log_softmax(-1)
        candidates = (scores[..., None] + log_probs.view(PROMPTS, K, V)).flatten(1)
        scores, index = candidates.topk(num_beams, dim=1)
        history = tokens.gather(1, (index // V)[..., None].expand(-1, -1, step))
        tokens = torch.cat([history, (index % V)[..., None]], dim=-1)
    return scores, tokens


def vocabulary_logits(num_beams: int, vocab_size: int) -> list[torch.Tensor]:
    """Random logits; the steps with all beams share theirs."""
    generator = torch.Generator().manual_seed(0)
    beams = torch.randn(PROMPTS, num_beams, vocab_size, generator=generator)
    return [beams[:, :1].contiguous()] + [beams] * (LEVELS - 1)


def on_codebooks(trie: ItemTrie, logits: list[torch.Tensor]) -> Logits:
    """What a model gives that projects on the codebook of a step alone."""
    parts = [logits[step][..., trie.tokens_at(step)].contiguous() for step in range(LEVELS)]
    return lambda step, tokens: parts[step]


def check_children(trie: ItemTrie, root: dict, catalog: Catalog, num_nodes: int = 2_000) -> None:
    sequences = catalog[0].reshape(-1, LEVELS)[:num_nodes]
    nodes = trie.walk(torch.from_numpy(sequences.astype(np.int64)))
    for depth in range(LEVELS):
        children = trie.children(nodes[:, depth], depth)
        for row, sequence in enumerate(sequences.tolist()):
            ours, theirs = children.tokens[row][children.mask[row]].tolist(), follow(root, sequence[:depth])
            if ours != sorted(theirs):
                raise SystemExit(f"children of {sequence[:depth]}: {ours}, but {sorted(theirs)} in the dictionary")


def check_search(trie: ItemTrie, root: dict, logits: list[torch.Tensor], num_beams: int) -> None:
    scores, nodes = search(trie, on_codebooks(trie, logits), num_beams)
    expected_scores, expected = ordinary_search(root, logits, num_beams)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-5, atol=1e-4)
    if not trie.sequences(nodes.flatten()).equal(expected.flatten(0, 1)):
        raise SystemExit("the search finds other items than with PrefixConstrainedLogitsProcessor")


def check_against_all_items(vocab_size: int, num_items: int = 300) -> None:
    """Every item's score from its own tokens and those of its siblings, against a search with a beam per item."""
    catalog = random_catalog(num_items, vocab_size)
    trie = ItemTrie.from_sequences(catalog)
    sequences = catalog[0].reshape(-1, LEVELS).tolist()
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(vocab_size, 16, generator=generator)
    prompts = torch.randn(PROMPTS, 1, 16, generator=generator)

    def logits(step: int, tokens: torch.Tensor | None) -> torch.Tensor:
        hidden = prompts if tokens is None else prompts + weight[tokens]  # depends on the last token of the beam
        return hidden @ weight[trie.tokens_at(step)].T

    scores, nodes = search(trie, logits, num_items)
    siblings: dict[tuple, set[int]] = {}
    for sequence in sequences:
        for step in range(LEVELS):
            siblings.setdefault(tuple(sequence[:step]), set()).add(sequence[step])
    expected = torch.zeros(PROMPTS, num_items)
    for row, sequence in enumerate(sequences):
        for step, token in enumerate(sequence):
            tokens = sorted(siblings[tuple(sequence[:step])])
            hidden = prompts[:, 0] + (weight[sequence[step - 1]] if step else 0)
            expected[:, row] += (hidden @ weight[tokens].T).log_softmax(-1)[:, tokens.index(token)]
    rows = trie.leaf_items(nodes.flatten())[0].view(PROMPTS, -1)
    torch.testing.assert_close(scores, expected.gather(1, rows), rtol=1e-5, atol=1e-4)
    if not rows.sort(dim=1).values.equal(torch.arange(num_items).expand(PROMPTS, -1)):
        raise SystemExit("the search with a beam per item does not find all items")


def bytes_held(trie: ItemTrie) -> int:
    """Of all tensors that the trie keeps, views by what they keep alive."""
    storages = [value.untyped_storage() for value in vars(trie).values() if isinstance(value, torch.Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def dict_bytes(catalog: Catalog) -> int:
    tracemalloc.start()
    root = build_dict(catalog)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del root
    return held


def steps_of_all_beams(trie: ItemTrie, num_beams: int, weight: torch.Tensor | None) -> Callable[[], object]:
    """Steps 2 to 4 of a decode; with the output projection if its `weight` is given. The first step is taken here."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(PROMPTS, num_beams, HIDDEN, generator=generator)
    given = torch.randn(PROMPTS, num_beams, CODES, generator=generator)

    def logits(step: int, tokens: torch.Tensor | None) -> torch.Tensor:
        if weight is None:
            return given[..., : trie.codebook_size(step)]
        return torch.nn.functional.linear(hidden, weight[trie.tokens_at(step)])

    root = torch.zeros(PROMPTS, 1, dtype=torch.long)
    log_probs = child_log_probs(given[:, :1, : trie.codebook_size(0)], trie, root, 0)
    scores, _, nodes = select_children(torch.zeros(PROMPTS, 1), log_probs, trie, root, num_beams)
    return repeated(lambda: search(trie, logits, num_beams, 1, (scores, nodes)))


def repeated(run: Callable[[], object]) -> Callable[[], object]:
    return lambda: [run() for _ in range(RUNS)]


def size_name(num_items: int) -> str:
    """`10_000_000` -> `10m`."""
    for unit, letter in ((1_000_000, "m"), (1_000, "k")):
        if num_items % unit == 0:
            return f"{num_items // unit}{letter}"
    return str(num_items)


def compare_with_dict(args: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, str]]]:
    """Checks the results of both, then builds and searches in turns."""
    catalog = random_catalog(args.dict_items, args.vocab_size)
    trie, root = ItemTrie.from_sequences(catalog), build_dict(catalog)
    logits = vocabulary_logits(args.num_beams, args.vocab_size)
    check_children(trie, root, catalog)
    check_search(trie, root, logits, args.num_beams)
    check_against_all_items(args.vocab_size)

    builds = {"ours": lambda: ItemTrie.from_sequences(catalog), "dict": lambda: build_dict(catalog)}
    build = time_alternating(builds, args.repeats)
    given = on_codebooks(trie, logits)
    searches = {
        "ours": lambda: search(trie, given, args.num_beams),
        "dict": lambda: ordinary_search(root, logits, args.num_beams),
    }
    step = time_alternating(searches, args.repeats)
    held = {"ours": bytes_held(builds["ours"]()) / args.dict_items, "dict": dict_bytes(catalog) / args.dict_items}
    results = {"dict_build_seconds": build["dict"], "dict_bytes_per_item": held["dict"]}
    results["dict_search_ms"] = 1e3 * step["dict"]
    items = f"{args.dict_items:,} items"
    rows = [
        row(f"build, {items}", f"{build['ours']:.3f} s", other=f"{build['dict']:.3f} s"),
        row(f"bytes per item, {items}", f"{held['ours']:.1f}", other=f"{held['dict']:.1f}"),
        row(f"search, {items}", f"{1e3 * step['ours']:.2f} ms", other=f"{1e3 * step['dict']:.0f} ms"),
    ]
    return results, rows


def measure_sizes(args: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, str]]]:
    """Builds tries of growing size; memory and search with the first, the growth of a step with the last."""
    results, rows = {}, []
    for num_items in args.items:
        catalog = random_catalog(num_items, args.vocab_size)
        seconds = time_alternating({"build": lambda catalog=catalog: ItemTrie.from_sequences(catalog)}, args.repeats)
        key = f"build_seconds_{size_name(num_items)}"
        results[key] = seconds["build"]
        rows.append(row(key, f"{seconds['build']:.3f} s"))
        trie = ItemTrie.from_sequences(catalog)
        del catalog
        gc.collect()
        if num_items == args.items[0]:
            measure_first(args, trie, results, rows)
    small = ItemTrie.from_sequences(random_catalog(SMALL, args.vocab_size))
    weight = torch.randn(args.vocab_size, HIDDEN, generator=torch.Generator().manual_seed(3))
    for key, projection in (("step_growth", weight), ("step_growth_beside_model", None)):
        ways = {
            name: steps_of_all_beams(each, args.num_beams, projection)
            for name, each in (("small", small), ("large", trie))
        }
        seconds = time_alternating(ways, 2 * args.repeats)
        small_ms, large_ms = (1e3 * s / RUNS / (LEVELS - 1) for s in seconds.values())
        suffix = "" if args.items[-1] == 10_000_000 else f"_{size_name(args.items[-1])}"
        results[key + suffix] = large_ms / small_ms
        rows.append(row(key + suffix, f"{large_ms / small_ms:.2f} = {large_ms:.3f} / {small_ms:.3f} ms"))
    return results, rows


def measure_first(
    args: argparse.Namespace, trie: ItemTrie, results: dict[str, float], rows: list[dict[str, str]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(PROMPTS, args.num_beams if step else 1, trie.codebook_size(step), generator=generator)
        for step in range(LEVELS)
    ]
    run = repeated(lambda: search(trie, lambda step, tokens: given[step], args.num_beams))
    trie.sequences(search(trie, lambda step, tokens: given[step], args.num_beams)[1].flatten())
    results["search_ms"] = 1e3 * time_alternating({"search": run}, 2 * args.repeats)["search"] / RUNS
    results["bytes_per_item"] = bytes_held(trie) / trie.num_items
    trie.path_tokens(trie.forced_end(torch.tensor([0])), torch.tensor([0]))
    results["bytes_per_item_paths"] = bytes_held(trie) / trie.num_items
    rows.append(row("search_ms", f"{results['search_ms']:.2f} ms"))
    rows += [row(key, f"{results[key]:.1f}") for key in ("bytes_per_item", "bytes_per_item_paths")]


def measure_real(args: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, str]]]:
    sequences = np.array(load_beauty(args.data_dir, Vocabulary(args.vocab_size)).sequences, dtype=np.int32)
    catalog = sequences.ravel(), np.arange(0, sequences.size + 1, LEVELS)
    check_children(ItemTrie.from_sequences(catalog), build_dict(catalog), catalog)
    ways = {"ours": lambda: ItemTrie.from_sequences(catalog), "dict": lambda: build_dict(catalog)}
    seconds = time_alternating(ways, args.repeats)
    held = bytes_held(ItemTrie.from_sequences(catalog)) / len(sequences), dict_bytes(catalog) / len(sequences)
    name = f"Beauty, {len(sequences):,} items"
    rows = [
        row(f"build, {name}", f"{seconds['ours']:.4f} s", other=f"{seconds['dict']:.4f} s"),
        row(f"bytes per item, {name}", f"{held[0]:.1f}", other=f"{held[1]:.1f}"),
    ]
    return {"beauty_build_seconds": seconds["ours"], "beauty_bytes_per_item": held[0]}, rows


def row(key: str, ours: str, other: str = "") -> dict[str, str]:
    return {"measure": key, "ours": ours, "goal": GOALS.get(key, ""), "Python dictionaries": other}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="1 M items only, fewer runs; within a minute")
    add("--items", type=int, nargs="+", help="sizes of the random catalogs; by default 1 M and 10 M")
    add("--data_dir", type=beauty_folder, help="Beauty's folder, or the one above it: builds its trie as well")
    add("--repeats", type=int, help="timed runs of each way; by default 5, 3 with --quick")
    add("--num_beams", type=int, default=50, help="beams of each of the 8 prompts")
    add("--dict_items", type=int, default=100_000, help="size of the catalog for the ordinary way")
    add("--vocab_size", type=int, default=152_960, help="tokens of the model")
    args = parser.parse_args(arguments)
    args.items = sorted(args.items or ([1_000_000] if args.quick else [1_000_000, 10_000_000]))
    args.repeats = args.repeats or (3 if args.quick else 5)
    return args


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    print(machine())
    parts = [compare_with_dict(args), measure_sizes(args)]
    if args.data_dir:
        parts.append(measure_real(args))
    print_table([line for _, rows in parts for line in rows])
    print_json({key: value for results, _ in parts for key, value in results.items()})


if __name__ == "__main__":
    main()
