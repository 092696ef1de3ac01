"""The decoding benchmark at toy sizes: made data, the checks that stand before a time, and the printed results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_latentrec import ItemTrie


# The benchmarks import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import benchmark_catalogs  # noqa: E402
import benchmark_decoding  # noqa: E402
import benchmark_ways  # noqa: E402


VOCABULARY = benchmark_catalogs.Vocabulary(3_000)
TINY = ["--hidden_size=16", "--num_layers=1", "--vocab_size=3000", "--batch_size=2", "--num_beams=5", "--repeats=1"]


def run(capsys, *arguments):
    benchmark_decoding.main([*TINY, *map(str, arguments)])
    printed = capsys.readouterr().out.splitlines()
    return printed, json.loads(printed[-1])


@pytest.fixture
def task():
    """Two prompts over a made catalog of 60 items of three codes."""
    codes = np.unique(np.random.default_rng(0).integers(0, 8, (70, 3)), axis=0) + [16, 24, 32]
    prompts = benchmark_catalogs.pad_left([[5, 6, 7, 8], [9, 10]], VOCABULARY.pad, 5)
    return benchmark_ways.Task(*prompts, codes.tolist(), num_beams=4, pad=VOCABULARY.pad)


@pytest.fixture
def title_task():
    """Two prompts over 40 made items of 2 to 8 tokens with a terminal; some are a variant of the one before."""
    rng = np.random.default_rng(0)
    titles = {(int(rng.integers(5)), *rng.integers(5, 9, rng.integers(1, 5)).tolist()) for _ in range(60)}
    titles |= {(*title, 9, *rng.integers(5, 9, 2).tolist()) for title in sorted(titles)[::2]}
    sequences = [[*title, VOCABULARY.terminal] for title in sorted(titles)]
    prompts = benchmark_catalogs.pad_left([[5, 6, 7, 8], [9, 10]], VOCABULARY.pad, 5)
    return benchmark_ways.Task(*prompts, sequences, 4, VOCABULARY.pad, VOCABULARY.terminal)


@pytest.fixture(scope="module")
def models():
    args = benchmark_decoding.parse_arguments(TINY)
    return benchmark_ways.build_models(benchmark_decoding.model_sizes(args), VOCABULARY, torch.float32, "cpu")


def test_semantic_ids_and_memory(capsys):
    printed, results = run(capsys, "--only=semantic_ids", "--prompt_length=40")
    assert list(results) == [
        "speedup_vs_generate",
        "speedup_vs_generate_exact",
        "ratio_to_floor",
        "latent_overhead",
        "latent_overhead_of_floor",
    ]
    assert all(value > 0 for value in results.values())
    assert all(any(key in line and goal in line for line in printed) for key, goal in
               [("speedup_vs_generate ", ">= 45"), ("latent_overhead", "<= 1.12")])  # fmt: skip
    _, results = run(capsys, "--only=memory", "--prompt_length=40")
    assert 0 < results["memory_ratio"] < 1


def test_titles(capsys):
    printed, results = run(capsys, "--only=titles", "--prompt_titles=2")
    assert list(results) == ["speedup_titles", "speedup_titles_exact"] and min(results.values()) > 0
    assert any(line.startswith("made titles: 3,686 items") for line in printed)


def test_bfloat16_prints_how_far_the_ways_agree(capsys):
    arguments = ["--only=semantic_ids", "--prompt_length=40", "--dtype=bfloat16", "--preset=qwen3-0.6b"]
    printed, _ = run(capsys, *arguments)
    shares = [line for line in printed if "of the answers are the same" in line]
    assert [line.split(":")[0] for line in shares] == ["speedup_vs_generate", "speedup_vs_generate_exact"]


def test_real_titles(capsys, real_data_dir, qwen3_tokenizer_dir):
    folder = real_data_dir("amazon_industrial_2018")
    arguments = benchmark_decoding.parse_arguments(
        ["--data_dir", str(folder), "--tokenizer", str(qwen3_tokenizer_dir)]
    )
    task = benchmark_decoding.title_task(arguments, benchmark_catalogs.Vocabulary(arguments.vocab_size))
    printed = capsys.readouterr().out
    assert (
        "amazon_industrial_2018: 3,686 items; of 28.5 tokens, 3.3 are a choice, and an item is known after 6.1"
        in printed
    )
    assert len(task.input_ids) == 4 and all(sequence[-1] == task.terminal for sequence in task.sequences)
    with pytest.raises(ValueError, match="pass --vocab_size"):
        benchmark_decoding.title_task(arguments, VOCABULARY)


def test_real_data_from_its_folder_or_the_one_above(capsys, real_data_dir):
    folder = real_data_dir("amazon_beauty_2014")
    for data_dir in (folder, folder.parent):
        printed, _ = run(capsys, "--only=memory", "--prompt_length=40", "--data_dir", data_dir)
        assert any(line.startswith("amazon_beauty_2014: 12,101 items; of 4.0 tokens") for line in printed)


def test_missing_data_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark_decoding.parse_arguments(["--data_dir", str(tmp_path)])
    assert "Beauty.index.json" in capsys.readouterr().err


def test_made_codes_have_the_sizes_of_beauty():
    catalog = benchmark_catalogs.make_beauty(VOCABULARY)
    codes = np.array(catalog.sequences)
    assert codes.shape == (12_101, 4)
    assert tuple(len(np.unique(codes[:, :depth], axis=0)) for depth in (1, 2, 3, 4)) == (197, 7_931, 11_696, 12_088)
    assert ((codes - VOCABULARY.first_code) // 256 == np.arange(4)).all() and codes.max() < VOCABULARY.size


def test_made_titles_have_the_shape_of_industrial():
    catalog = benchmark_catalogs.make_industrial(benchmark_catalogs.Vocabulary(152_960))
    trie = ItemTrie.from_sequences(catalog.sequences)
    assert trie.num_items == 3_686 and trie.max_depth <= 83
    lengths, choices, known_after = [], [], []
    num_children = trie.row_ptr.diff().tolist()
    for sequence in catalog.sequences[::20]:
        path = trie.walk(torch.tensor(sequence)).tolist()
        branching = [depth for depth, node in enumerate(path) if num_children[node] > 1]
        lengths.append(len(sequence))
        choices.append(len(branching))
        known_after.append(branching[-1] + 1)
    assert np.mean(lengths) == pytest.approx(28.7, abs=2)
    assert np.mean(choices) == pytest.approx(3.3, abs=0.5)
    assert np.mean(known_after) == pytest.approx(6.1, abs=1.5)
    description = benchmark_catalogs.describe(trie, catalog.sequences)
    assert description.startswith("3,686 items; of 28.") and " 3.2 are a choice" in description


def test_prompts_hold_the_newest_of_a_history():
    sequences = [[10 * item + level for level in range(4)] for item in range(6)]
    catalog = benchmark_catalogs.Catalog("", sequences, histories=[[0, 1, 2, 3], [4, 5], [1]])
    input_ids, mask = benchmark_catalogs.code_prompts(catalog, VOCABULARY, batch_size=2, prompt_length=10)
    rows = {tuple(row[keep.bool()].tolist()) for row, keep in zip(input_ids, mask, strict=True)}
    assert rows == {(12, 13, 20, 21, 22, 23, 30, 31, 32, 33)[-10:], (40, 41, 42, 43, 50, 51, 52, 53)}
    assert input_ids.shape == (2, 10) and (input_ids[mask == 0] == VOCABULARY.pad).all()

    input_ids, mask = benchmark_catalogs.title_prompts(catalog, VOCABULARY, batch_size=1, num_titles=3)
    separator = VOCABULARY.separator
    assert input_ids.tolist() == [[10, 11, 12, separator, 20, 21, 22, separator, 30, 31, 32, separator]]
    with pytest.raises(ValueError, match="1 users have at least 3 items, but the batch has 2"):
        benchmark_catalogs.title_prompts(catalog, VOCABULARY, batch_size=2, num_titles=3)


@pytest.mark.parametrize("catalog", ["task", "title_task"])
@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_both_ways_agree_and_a_difference_is_found(models, catalog, normalize, request):
    (model, plain), task = models, request.getfixturevalue(catalog)
    ours = benchmark_ways.our_answers(benchmark_ways.our_way(model, task, normalize)())
    output = benchmark_ways.ordinary_way(plain, task, normalize, with_scores=True)()
    ordinary = benchmark_ways.ordinary_answers(output, task)
    assert [len(answers) for answers in ordinary] == [4, 4]
    benchmark_ways.check_same_answers(ours, ordinary, tolerance=1e-5)
    assert benchmark_ways.compare_answers(ours, ordinary)[0] == 1

    other = "vocabulary" if normalize == "catalog" else "catalog"
    wrong = benchmark_ways.our_answers(benchmark_ways.our_way(model, task, other)())
    with pytest.raises(ValueError, match="prompt 0: "):
        benchmark_ways.check_same_answers(wrong, ordinary)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ({(1,): -0.5}, "we gave 1 answers, `generate` 2"),
        ({(1,): -0.5, (2,): -0.8}, "scores differ by 0.1"),
        ({(3,): -0.5, (2,): -0.7}, r"only we gave \[3\]"),
    ],
)
def test_what_counts_as_different(ours, message):
    ordinary = {(1,): -0.5, (2,): -0.7}
    with pytest.raises(ValueError, match=message):
        benchmark_ways.check_same_answers([ours], [ordinary])
    benchmark_ways.check_same_answers([{(1,): -0.5, (4,): -0.7}], [ordinary])  # a tie for the last place


def test_answers_end_at_the_terminal_and_dead_beams_are_none():
    task = benchmark_ways.Task(torch.ones(1, 2).long(), torch.ones(1, 2).long(), [], 3, pad=0, terminal=9)
    output = type("Output", (), {})()
    output.sequences = torch.tensor([[1, 1, 4, 9, 0], [1, 1, 4, 5, 9], [1, 1, 9, 0, 0]])
    output.sequences_scores = torch.tensor([-0.5, -1.0, -1e9])
    assert benchmark_ways.ordinary_answers(output, task) == [{(4, 9): -0.5, (4, 5, 9): -1.0}]


def test_bare_forwards_compute_what_our_search_computes(models, task, monkeypatch):
    """The same passes: prompts, then one token per beam after each step but the last; and the same masks' width."""
    model, _ = models
    passes = []
    forward = model.model.forward

    def record(*args, **kwargs):
        passes.append((tuple(kwargs["inputs_embeds"].shape), kwargs["attention_mask"].shape[-1]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", record)
    benchmark_ways.bare_forwards(model, task)()
    bare = passes.copy()
    passes.clear()
    benchmark_ways.our_way(model, task, "catalog")()
    assert bare == passes == [((2, 5, 16), 5), ((2, 4, 16), 9), ((2, 4, 16), 13)]
    passes.clear()
    benchmark_ways.bare_forwards(model, task, num_thoughts=2)()
    thinking = [((2, 1, 16), 6), ((2, 1, 16), 7)]
    assert passes == [bare[0], *thinking, ((2, 4, 16), 11), ((2, 4, 16), 15)]
