"""Sub-catalogs against a loop over sets of items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.latent_reasoning.sub_catalog import SubCatalog


B = 4


def random_sequences(rng, num_items=40):
    """Semantic IDs out of 4 x 4 x 4 codes, some of them shared by several items."""
    return rng.integers(0, 4, (num_items, 3)).tolist()


def random_arguments(rng, num_items, allowed_kind, with_seen):
    """Masks and seen rows: duplicates, padding in between, users who saw nothing, and seen items out of stock."""
    allowed = {"none": None, "shared": rng.random(num_items) < 0.6, "each": rng.random((B, num_items)) < 0.6}
    seen = rng.integers(-1, num_items, (B, 9))
    seen[:, 4] = seen[:, 0]
    seen[2] = -1
    mask = allowed[allowed_kind]
    return None if mask is None else torch.from_numpy(mask), torch.from_numpy(seen) if with_seen else None


def slow_allowed(num_items, allowed, seen) -> list[set[int]]:
    """The items of each prompt, as sets."""
    sets = []
    for prompt in range(B):
        items = set(range(num_items))
        if allowed is not None:
            items = {row for row in items if (allowed if allowed.dim() == 1 else allowed[prompt])[row]}
        sets.append(items - set(seen[prompt].tolist()) if seen is not None else items)
    return sets


@pytest.fixture(params=["none", "shared", "each"])
def allowed_kind(request):
    return request.param


@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_sets(seed, allowed_kind, with_seen):
    rng = np.random.default_rng(seed)
    sequences = random_sequences(rng)
    trie = ItemTrie.from_sequences(sequences)
    allowed, seen = random_arguments(rng, len(sequences), allowed_kind, with_seen)
    expected = slow_allowed(len(sequences), allowed, seen)
    sub_catalog = SubCatalog(trie, B, allowed, seen)

    assert sub_catalog.num_allowed().tolist() == [len(items) for items in expected]

    prefixes = sorted({tuple(sequence[:depth]) for sequence in sequences for depth in range(4)})
    nodes = torch.tensor([int(trie.walk(torch.tensor(p, dtype=torch.long))[-1]) for p in prefixes])
    beneath = [{row for row, s in enumerate(sequences) if tuple(s[: len(p)]) == p} for p in prefixes]
    holds = [[bool(rows & items) for rows in beneath] for items in expected]
    assert sub_catalog.holds(nodes.expand(B, -1)).tolist() == holds
    assert sub_catalog.holds(nodes.expand(B, -1)[:, :, None]).squeeze(-1).tolist() == holds

    rows, prompts = torch.cartesian_prod(torch.arange(len(sequences)), torch.arange(B)).unbind(1)
    keeps = [row in expected[prompt] for row, prompt in zip(rows.tolist(), prompts.tolist(), strict=True)]
    assert sub_catalog.keeps(rows, prompts).tolist() == keeps


def test_select_is_the_sub_catalog_of_some_prompts(allowed_kind):
    rng = np.random.default_rng(5)
    sequences = random_sequences(rng)
    trie = ItemTrie.from_sequences(sequences)
    sub_catalog = SubCatalog(trie, B, *random_arguments(rng, len(sequences), allowed_kind, True))
    nodes = torch.arange(trie.num_nodes).expand(B, -1)
    part = sub_catalog.select(slice(1, 3))
    assert part.holds(nodes[1:3]).equal(sub_catalog.holds(nodes)[1:3])
    assert part.num_allowed().equal(sub_catalog.num_allowed()[1:3])
    rows = torch.arange(len(sequences))
    assert part.keeps(rows, torch.ones_like(rows)).equal(sub_catalog.keeps(rows, torch.full_like(rows, 2)))


def test_no_seen_items_and_no_restriction():
    trie = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])
    for sub_catalog in (SubCatalog(trie, 2), SubCatalog(trie, 2, None, torch.empty(2, 0, dtype=torch.long))):
        assert sub_catalog.num_allowed().tolist() == [3, 3]
        assert sub_catalog.holds(torch.tensor([[0, 1], [4, 5]])).all()


def test_shared_masks_and_seen_items_take_no_row_per_prompt():
    """What is kept for a prompt is as long as what it has seen, not as the catalog."""
    trie = ItemTrie.from_sequences([[token] for token in range(1000)])
    allowed, seen = torch.ones(1000, dtype=torch.bool), torch.zeros(64, 3, dtype=torch.long)
    sub_catalog = SubCatalog(trie, 64, allowed, seen)
    sizes = [t.untyped_storage().nbytes() for t in vars(sub_catalog).values() if isinstance(t, torch.Tensor)]
    assert len(sizes) == 2 and max(sizes) <= 8 * 1001


TRIE = ItemTrie.from_sequences([[5, 9], [2, 7], [5, 8]])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"allowed_items": torch.ones(3)}, r"torch.float32 of shape \(3,\); pass torch.bool"),
        ({"allowed_items": torch.ones(4).bool()}, r"shape \(4,\); .* shape \(3,\) for all .* or \(2, 3\)"),
        ({"allowed_items": torch.ones(1, 3).bool()}, r"shape \(1, 3\)"),
        ({"allowed_items": torch.ones(3, 2).bool()}, r"shape \(3, 2\)"),
        ({"seen_items": torch.ones(2, 3).bool()}, r"torch.bool of shape \(2, 3\); pass torch.int64"),
        ({"seen_items": torch.ones(2, 3)}, "torch.float32"),
        ({"seen_items": torch.zeros(3, 3).long()}, r"shape \(3, 3\); .* of shape \(2, H\)"),
        ({"seen_items": torch.zeros(2).long()}, r"shape \(2,\)"),
        ({"seen_items": torch.tensor([[0, 1], [2, 3]])}, "prompt 1 holds row 3, but .* rows 0 to 2; pad with -1"),
        ({"seen_items": torch.tensor([[-100, 1], [2, 0]])}, "prompt 0 holds row -100"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SubCatalog(TRIE, 2, **arguments)
