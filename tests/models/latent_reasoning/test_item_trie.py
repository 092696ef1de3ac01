"""ItemTrie against a dict-of-dicts trie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie


EOS = 0


def random_catalog(seed: int, fixed_length: bool, num_items: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    lengths = [3] * num_items if fixed_length else rng.integers(1, 6, num_items)
    terminal = [] if fixed_length else [EOS]
    return [rng.integers(1, 6, length).tolist() + terminal for length in lengths]


def dict_trie(sequences: list[list[int]], rows: list[int]) -> dict:
    """{token: subtree}; a leaf is the list of its rows."""
    root: dict = {}
    for row in rows:
        node = root
        for token in sequences[row][:-1]:
            node = node.setdefault(token, {})
        node.setdefault(sequences[row][-1], []).append(row)
    return root


def as_dict(trie: ItemTrie, node: int = 0, depth: int = 0, allowed=None, prefix=None):
    """The CSR trie as dict-of-dicts, read through `children` and `leaf_items`."""
    if trie.is_leaf(torch.tensor(node)):
        rows = trie.leaf_items(torch.tensor([node]))[0].tolist()
        return [row for row in rows if allowed is None or allowed[row]]
    children = trie.children(torch.tensor([node]), depth, prefix)
    tokens, nodes, mask = (x[0].tolist() for x in children)
    assert [t for t, m in zip(tokens, mask, strict=True) if not m] == [0] * mask.count(False)
    assert [n for n, m in zip(nodes, mask, strict=True) if not m] == [0] * mask.count(False)
    kept = [(t, n) for t, n, m in zip(tokens, nodes, mask, strict=True) if m]
    assert kept == sorted(kept)
    return {token: as_dict(trie, child, depth + 1, allowed, prefix) for token, child in kept}


def count_nodes(tree) -> int:
    return 1 + (sum(map(count_nodes, tree.values())) if isinstance(tree, dict) else 0)


@pytest.mark.parametrize("fixed_length", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_equals_dict_of_dicts(seed, fixed_length):
    sequences = random_catalog(seed, fixed_length)
    trie = ItemTrie.from_sequences(sequences, catalog_fingerprint="f")
    expected = dict_trie(sequences, range(len(sequences)))
    assert as_dict(trie) == expected
    assert (
        trie.num_nodes
        == count_nodes(expected)
        == len(trie.child_column) + 1
        == len(trie.row_ptr) - 1
        == len(trie.leaf_start)
    )
    assert trie.num_items == len(sequences)
    assert trie.num_leaves == len({tuple(s) for s in sequences})
    assert trie.max_depth == max(map(len, sequences))
    assert all(getattr(trie, n).dtype == torch.int32 for n in ("row_ptr", "leaf_start", "item_order"))


@pytest.mark.parametrize("fixed_length", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_allowed_items_equal_a_trie_of_the_allowed_items(seed, fixed_length):
    sequences = random_catalog(seed, fixed_length)
    trie = ItemTrie.from_sequences(sequences)
    allowed = np.random.default_rng(seed).random(len(sequences)) < 0.3
    prefix = trie.allowed_prefix(torch.tensor(allowed)[None])
    assert as_dict(trie, allowed=allowed, prefix=prefix) == dict_trie(sequences, np.flatnonzero(allowed).tolist())


def test_allowed_prefix_is_per_batch_row():
    trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
    prefix = trie.allowed_prefix(torch.tensor([[True, False, False], [False, True, False], [False, False, False]]))
    mask = trie.children(torch.zeros(3, 2, dtype=torch.long), 0, prefix).mask
    assert mask.tolist() == [[[False, True]] * 2, [[True, False]] * 2, [[False, False]] * 2]


@pytest.mark.parametrize("fixed_length", [True, False])
def test_depths_children_and_tokens(fixed_length):
    sequences = random_catalog(0, fixed_length)
    trie = ItemTrie.from_sequences(sequences)
    for depth in range(trie.max_depth):
        prefixes = sorted({tuple(s[:depth]) for s in sequences if len(s) >= depth})
        assert trie.depth_ptr[depth + 1] - trie.depth_ptr[depth] == len(prefixes)
        follow = [{s[depth] for s in sequences if len(s) > depth and tuple(s[:depth]) == p} for p in prefixes]
        assert trie.max_children[depth] == max(map(len, follow))
        assert trie.tokens_at(depth).tolist() == sorted(set().union(*follow))
        children = trie.children(torch.arange(trie.depth_ptr[depth], trie.depth_ptr[depth + 1]), depth)
        assert children.mask.sum(-1).tolist() == [len(f) for f in follow]
    assert trie.depth_ptr[-1] == trie.num_nodes
    assert trie.max_children[trie.max_depth] == 0


@pytest.mark.parametrize("fixed_length", [True, False])
def test_walk_follows_and_leaves(fixed_length):
    sequences = random_catalog(1, fixed_length)
    trie = ItemTrie.from_sequences(sequences)
    width = trie.max_depth + 1
    padded = torch.tensor([s + [-100] * (width - len(s)) for s in sequences])
    nodes = trie.walk(padded)
    assert nodes.shape == (len(sequences), width + 1)
    for row, sequence in enumerate(sequences):
        path = nodes[row].tolist()
        assert path[0] == 0 and min(path[: len(sequence) + 1]) >= 0
        assert set(path[len(sequence) + 1 :]) == {-1}
        assert row in trie.leaf_items(nodes[row, [len(sequence)]])[0].tolist()
    assert trie.walk(padded.view(5, -1, width)).equal(nodes.view(5, -1, width + 1))


def test_walk_rejects_tokens_that_alias_another_nodes_key():
    trie = ItemTrie.from_sequences([[1, 3], [2, 3]])
    base = 4  # largest token + 1: (node 0, token base + 3) has the key of (node 1, token 3)
    assert trie.walk(torch.tensor([[base + 3], [base * 2 + 3], [-1], [10**9]]))[:, 1].tolist() == [-1] * 4
    assert trie.walk(torch.tensor([[2, 3 - base]]))[0].tolist() == [0, 2, -1]


def test_node_outside_has_no_children_and_is_no_leaf():
    trie = ItemTrie.from_sequences([[1, 3], [2, 3]])
    outside = torch.tensor([-1, 0])
    assert trie.children(outside, 0).mask.tolist() == [[False, False], [True, True]]
    assert trie.is_leaf(outside).tolist() == [False, False]


def test_shared_leaf_is_ordered_by_priority_then_row():
    sequences = [[1, 2], [1, 2], [1, 1], [1, 2], [1, 2]]
    nodes = torch.tensor([2, 3])  # leaves [1, 1] and [1, 2]

    def items(trie: ItemTrie) -> list[int]:
        rows, index = trie.leaf_items(nodes)
        assert index.tolist() == [0, 1, 1, 1, 1]
        return rows.tolist()

    assert items(ItemTrie.from_sequences(sequences)) == [2, 0, 1, 3, 4]
    assert items(ItemTrie.from_sequences(sequences, priority=[1, 5, 0, 7, 5])) == [2, 3, 1, 4, 0]


def test_flat_arrays_equal_lists():
    sequences = random_catalog(2, fixed_length=False)
    flat = np.concatenate(sequences)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    assert as_dict(ItemTrie.from_sequences((flat, offsets))) == as_dict(ItemTrie.from_sequences(sequences))


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one item"),
        ([[1], []], "sequence of row 1 is empty"),
        ([[1, 2, 3], [4], [1, 2]], "row 2 is a proper prefix of that of row 0.*terminal"),
        ([[1], [2, -5]], r"token -5 of row 1 is not in \[0, 50\)"),
        ([[1, 2], [2, 3], [4, 50]], r"token 50 of row 2 is not in \[0, 50\)"),
    ],
)
def test_bad_sequences(sequences, message):
    with pytest.raises(ValueError, match=message):
        ItemTrie.from_sequences(sequences, vocab_size=50)


def test_prefix_is_found_behind_shared_and_longer_sequences():
    with pytest.raises(ValueError, match="proper prefix"):
        ItemTrie.from_sequences([[1, 2], [1, 2], [1, 2, 0], [1, 2, 9, 9], [0, 1]])


def test_bad_allowed_items_and_priority():
    trie = ItemTrie.from_sequences([[1], [2]])
    with pytest.raises(ValueError, match=r"shape \(1, 3\); expected \[batch, 2\]"):
        trie.allowed_prefix(torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="priority has shape"):
        ItemTrie.from_sequences([[1], [2]], priority=[1.0])


def test_save_and_load(tmp_path):
    sequences = random_catalog(3, fixed_length=False)
    trie = ItemTrie.from_sequences(sequences, catalog_fingerprint="abc")
    trie.save(tmp_path / "trie.safetensors")
    loaded = ItemTrie.load(tmp_path / "trie.safetensors")
    assert as_dict(loaded) == as_dict(trie)
    assert loaded.catalog_fingerprint == "abc"
    assert loaded.depth_ptr == trie.depth_ptr and loaded.max_children == trie.max_children


def test_load_refuses_truncated_and_tampered_files(tmp_path):
    path = tmp_path / "trie.safetensors"
    ItemTrie.from_sequences([[1, 2], [3, 4]]).save(path)
    tensors = load_file(path)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(ValueError, match="trie.safetensors is truncated"):
        ItemTrie.load(path)
    path.write_bytes(content[:-4] + b"\x07\x00\x00\x00")
    with pytest.raises(ValueError, match="trie.safetensors does not match its digest"):
        ItemTrie.load(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="digest"):
        ItemTrie.load(path)
    save_file({"row_ptr": tensors["row_ptr"]}, path)
    with pytest.raises(ValueError, match="is no trie"):
        ItemTrie.load(path)


def test_drawing_of_the_docstring():
    trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
    for line in (
        "row_ptr      ",
        "child_column ",
        "codebook     ",
        "codebook_ptr ",
        "leaf_start   ",
        "leaf_end     ",
        "item_order   ",
    ):
        assert f"{line}{getattr(trie, line.strip()).tolist()}" in ItemTrie.__doc__
    assert f"depth_ptr    {trie.depth_ptr}" in ItemTrie.__doc__


def test_to_keeps_itself_on_the_same_device():
    trie = ItemTrie.from_sequences([[1, 2], [3, 4]])
    assert trie.to("cpu") is trie


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_to_moves_everything():
    trie = ItemTrie.from_sequences(random_catalog(0, fixed_length=True))
    expected = trie.tokens_at(0)
    moved = trie.to("cuda")
    assert moved.tokens_at(0).is_cuda and moved.tokens_at(0).cpu().equal(expected)
    sequences = torch.tensor(random_catalog(0, fixed_length=True))
    assert moved.walk(sequences.cuda()).cpu().equal(trie.walk(sequences))
