"""What must hold for every search, whether answers have one length or many; and titles to search."""

from __future__ import annotations

import numpy as np
import torch


TERMINAL = 59


def make_titles(seed, num_titles=60, max_length=12):
    """Series that share a beginning, late variants, titles that are the beginning of others, titles of one word."""
    rng = np.random.default_rng(seed)
    titles = set()
    while len(titles) < num_titles:
        start = ()
        if titles and rng.random() < 0.6:
            known = sorted(titles)[rng.integers(len(titles))]
            start = known[: rng.integers(1, len(known) + 1)]
        title = (start + tuple(rng.integers(16, 40, rng.integers(not start, max_length)).tolist()))[:max_length]
        titles.add(title)
    return [[*title, TERMINAL] for title in sorted(titles)]


def assert_batched_equals_unbatched(model, prompts, **settings):
    """A prompt's answers, scores and thoughts do not depend on its batch."""
    together = model.generate(*prompts, **settings)
    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        alone = model.generate(row[mask.bool()][None], **settings)
        mine = together.user_indices == user
        width = alone.sequences.shape[1]
        assert torch.equal(alone.item_nodes, together.item_nodes[mine])
        assert torch.equal(alone.sequences, together.sequences[mine, :width])
        assert together.sequences[mine, width:].eq(-100).all()
        torch.testing.assert_close(alone.sequences_scores, together.sequences_scores[mine], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.thoughts[0], together.thoughts[user], atol=1e-5, rtol=1e-5)


def assert_filters_the_full_ranking(model, prompts, trie, normalize, allowed):
    """With a beam per item, a sub-catalog `allowed` [B, I] leaves the full ranking without the other items."""
    settings = {"item_trie": trie, "num_beams": trie.num_items, "normalize": normalize}
    full = model.generate(*prompts, **settings)
    output = model.generate(*prompts, **settings, allowed_items=allowed)
    items, _ = trie.leaf_items(full.item_nodes)
    kept = allowed[full.user_indices, items]
    width = output.sequences.shape[1]
    assert torch.equal(output.item_nodes, full.item_nodes[kept])
    assert torch.equal(output.sequences, full.sequences[kept, :width])
    assert torch.equal(output.user_indices, full.user_indices[kept])
    torch.testing.assert_close(output.sequences_scores, full.sequences_scores[kept], atol=1e-5, rtol=1e-5)
