"""ItemTrie against a dict-of-dicts trie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_latentrec.models.latent_reasoning import item_trie_builder
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie


EOS = 0
PADDING = -100


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


def as_dict(trie: ItemTrie, node: int = 0, depth: int = 0):
    """The CSR trie as dict-of-dicts, read through `children` and `leaf_items`."""
    if trie.is_leaf(torch.tensor(node)):
        return trie.leaf_items(torch.tensor([node]))[0].tolist()
    children = trie.children(torch.tensor([node]), depth)
    tokens, nodes, mask = (x[0].tolist() for x in children)
    assert [t for t, m in zip(tokens, mask, strict=True) if not m] == [0] * mask.count(False)
    assert [n for n, m in zip(nodes, mask, strict=True) if not m] == [0] * mask.count(False)
    kept = [(t, n) for t, n, m in zip(tokens, nodes, mask, strict=True) if m]
    assert kept == sorted(kept)
    return {token: as_dict(trie, child, depth + 1) for token, child in kept}


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


def test_item_rank_is_the_inverse_of_the_order():
    trie = ItemTrie.from_sequences(random_catalog(0, True))
    assert trie.item_rank[trie.item_order.long()].tolist() == list(range(trie.num_items))


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
def test_leaf_range_holds_the_sequences_that_begin_so(fixed_length):
    sequences = random_catalog(0, fixed_length)
    trie = ItemTrie.from_sequences(sequences)
    nodes = torch.arange(trie.num_nodes)
    start, end = trie.leaf_range(nodes)
    assert trie.leaf_start.equal(start.int()) and trie.leaf_end.equal(end.int())
    for node, prefix in enumerate(unpadded(trie.sequences(nodes))):
        rows = {row for row, sequence in enumerate(sequences) if sequence[: len(prefix)] == prefix}
        assert set(trie.item_order[start[node] : end[node]].tolist()) == rows
    start, end = trie.leaf_range(torch.tensor([-1]))
    assert start.equal(end)


@pytest.mark.parametrize("fixed_length", [True, False])
def test_columns_are_those_of_the_codebook(fixed_length):
    trie = ItemTrie.from_sequences(random_catalog(0, fixed_length))
    for depth in range(trie.max_depth):
        nodes = torch.arange(trie.depth_ptr[depth], trie.depth_ptr[depth + 1])
        children = trie.children(nodes, depth)
        first, count = trie.edges(nodes)
        assert count.equal(children.mask.sum(-1)) and trie.codebook_size(depth) == len(trie.tokens_at(depth))
        assert (first[count > 0] + 1).equal(children.nodes[count > 0, 0])
        columns = trie.columns_from(first, depth)[children.mask]
        assert trie.tokens_at(depth)[columns].equal(children.tokens[children.mask])
        assert trie.is_full(depth) == (count == trie.codebook_size(depth)).all()
    first, count = trie.edges(torch.tensor([-1]))
    assert count.item() == 0 and trie.columns_from(first, 0).shape == (1, trie.max_children[0])


@pytest.mark.parametrize(("size", "dtype"), [(256, torch.uint8), (257, torch.int16), (40_000, torch.int32)])
def test_columns_take_the_smallest_dtype(size, dtype):
    trie = ItemTrie.from_sequences([[token, 1] for token in range(size)])
    assert trie.child_column.dtype == dtype
    assert trie.children(torch.tensor([0]), 0).tokens[0].tolist() == list(range(size))
    assert trie.walk(torch.tensor([[size - 1, 1]])).tolist() == [[0, size, 2 * size]]


def unpadded(sequences: torch.Tensor) -> list[list[int]]:
    return [[token for token in row if token != PADDING] for row in sequences.tolist()]


def shared_starts(seed: int) -> list[list[int]]:
    """Titles with long forced stretches: few branchings, some sequences twice."""
    rng = np.random.default_rng(seed)
    stems = [rng.integers(1, 9, rng.integers(2, 5)).tolist() for _ in range(4)]
    middles = [rng.integers(1, 9, rng.integers(1, 4)).tolist() for _ in range(3)]
    return [[*stems[rng.integers(4)], *middles[rng.integers(3)], rng.integers(1, 4), EOS] for _ in range(30)]


@pytest.mark.parametrize("sequences", [random_catalog(0, True), random_catalog(1, False), shared_starts(0)])
def test_paths_equal_a_walk_through_the_dict(sequences):
    trie = ItemTrie.from_sequences(sequences)
    nodes = torch.arange(trie.num_nodes)
    prefix_of = {0: []}  # node: its tokens, and the node at the end of its forced stretch
    forced = {}

    def visit(node: int, depth: int) -> int:
        children = trie.children(torch.tensor(node), depth)
        ends = []
        for token, child in torch.stack([children.tokens, children.nodes], 1)[children.mask].tolist():
            prefix_of[child] = [*prefix_of[node], token]
            ends.append(visit(child, depth + 1))
        forced[node] = ends[0] if len(ends) == 1 else node
        return forced[node]

    visit(0, 0)
    assert trie.depth_of(nodes).tolist() == [len(prefix_of[n]) for n in nodes.tolist()]
    assert unpadded(trie.sequences(nodes)) == [prefix_of[n] for n in nodes.tolist()]
    assert trie.forced_end(nodes).tolist() == [forced[n] for n in nodes.tolist()]
    assert any(forced[n] != n for n in forced)
    outside = torch.tensor([[-1, 0]])
    assert trie.forced_end(outside).tolist() == [[-1, forced[0]]] and trie.depth_of(outside).tolist() == [[-1, 0]]

    below = {n: min(s for s in sequences if s[: len(p)] == p) for n, p in prefix_of.items()}  # leftmost sequence
    depths = torch.arange(-2, trie.max_depth + 2)
    found = trie.path_tokens(nodes[:, None], depths).tolist()
    for n in nodes.tolist():
        token_at = dict(enumerate(below[n]))
        assert found[n] == [token_at.get(d, PADDING) for d in depths.tolist()]
    assert trie.path_tokens(torch.full_like(depths, -1), depths).eq(PADDING).all()


def test_width_of_sequences():
    uniform = ItemTrie.from_sequences([[1, 2, 3], [4, 5, 6]])
    assert uniform.sequences(torch.tensor([0, 1])).tolist() == [[PADDING] * 3, [1, PADDING, PADDING]]
    ragged = ItemTrie.from_sequences([[1, 2, 3, 0], [4, 0]])
    assert ragged.sequences(torch.tensor([1, 4])).tolist() == [[1, PADDING], [4, 0]]


def test_a_trie_made_and_asked_under_inference_mode_can_be_trained_with(tmp_path):
    sequences = torch.tensor([[1, 2], [3, 4]])
    with torch.inference_mode():
        trie = ItemTrie.from_sequences(sequences.tolist())
        trie.sequences(torch.tensor([1])), trie.forced_end(torch.tensor([1]))
        trie.save(tmp_path / "trie.safetensors")
        loaded = ItemTrie.load(tmp_path / "trie.safetensors")
    for each in (trie, loaded):
        held = [value for value in vars(each).values() if isinstance(value, torch.Tensor)]
        assert held and not any(tensor.is_inference() for tensor in held)


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


@pytest.mark.parametrize("fixed_length", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_walk_equals_steps_through_the_dict(seed, fixed_length):
    sequences = random_catalog(seed, fixed_length)
    trie = ItemTrie.from_sequences(sequences)
    known = {tuple(prefix): node for node, prefix in enumerate(unpadded(trie.sequences(torch.arange(trie.num_nodes))))}
    tokens = torch.randint(-1, 7, (400, trie.max_depth + 1))
    expected = [[known.get(tuple(row[:end]), -1) for end in range(len(row) + 1)] for row in tokens.tolist()]
    assert trie.walk(tokens).tolist() == expected


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


def test_order_of_rows_with_many_tokens_and_large_ids():
    """Several words of sort keys, keys that leave no room for the index, and tokens too sparse for a table."""
    rng = np.random.default_rng(0)
    sequences = [[*rng.integers(0, 2, 90).tolist(), 5] for _ in range(20)] * 2  # ties within a word are rare, so
    sequences += [[0] * n + [1, *rng.integers(2**20, 2**30, 3).tolist(), 9] for n in range(80)]  # long shared starts
    trie = ItemTrie.from_sequences(sequences)
    assert trie.item_order.tolist() == sorted(range(len(sequences)), key=lambda row: (sequences[row], row))
    assert as_dict(trie) == dict_trie(sequences, range(len(sequences)))


def test_keys_without_room_for_the_index(monkeypatch):
    sequences = random_catalog(4, fixed_length=False)
    expected = as_dict(ItemTrie.from_sequences(sequences))
    for bits in (1, 8, 10, 16):
        monkeypatch.setattr(item_trie_builder, "_KEY_BITS", bits)
        assert as_dict(ItemTrie.from_sequences(sequences)) == expected


def test_duplicates_can_be_refused():
    sequences = [[1, 2], [3, 4], [1, 2], [5, 6], [5, 6], [1, 2]]
    with pytest.raises(ValueError, match=r"5 items share .* rows \[0, 2, 5\] all have \[1, 2\].*on_duplicate"):
        ItemTrie.from_sequences(sequences, on_duplicate="error")
    assert ItemTrie.from_sequences(sequences[1:4], on_duplicate="error").num_leaves == 3
    with pytest.raises(ValueError, match="on_duplicate='first'; choose one of 'share', 'error'"):
        ItemTrie.from_sequences(sequences, on_duplicate="first")


def test_flat_arrays_equal_lists():
    sequences = random_catalog(2, fixed_length=False)
    flat = np.concatenate(sequences)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    assert as_dict(ItemTrie.from_sequences((flat, offsets))) == as_dict(ItemTrie.from_sequences(sequences))
    assert as_dict(ItemTrie.from_sequences((flat.astype(np.uint16), offsets))) == as_dict(
        ItemTrie.from_sequences(sequences)
    )
    with pytest.raises(ValueError, match=f"offsets go from 0 to {len(flat)}, but there are {len(flat) - 1} tokens"):
        ItemTrie.from_sequences((flat[:-1], offsets))


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


def test_bad_priority():
    with pytest.raises(ValueError, match="priority has shape"):
        ItemTrie.from_sequences([[1], [2]], priority=[1.0])


@pytest.mark.parametrize("fixed_length", [True, False])
def test_save_and_load(tmp_path, fixed_length):
    trie = ItemTrie.from_sequences(random_catalog(3, fixed_length), catalog_fingerprint="abc")
    trie.save(tmp_path / "trie.safetensors")
    loaded = ItemTrie.load(tmp_path / "trie.safetensors")
    assert as_dict(loaded) == as_dict(trie)
    assert loaded.catalog_fingerprint == "abc"
    assert loaded.depth_ptr == trie.depth_ptr and loaded.max_children == trie.max_children
    assert loaded.leaf_end.equal(trie.leaf_end)


def test_load_names_a_file_of_an_earlier_version(tmp_path):
    path = tmp_path / "trie.safetensors"
    save_file({"row_ptr": torch.zeros(3), "child_token": torch.zeros(2)}, path, {"digest": "0", "format": "pt"})
    with pytest.raises(
        ValueError, match="trie.safetensors has version 1, but version 2 is read; build the trie again"
    ):
        ItemTrie.load(path)


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
