"""`generate`: sub-catalogs, batches that do not fit, and what is refused."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning import batch_splitting
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie


NUM_BEAMS = 10


def as_masks(num_items: int, seen_items: torch.Tensor, allowed_items: torch.Tensor | None = None) -> torch.Tensor:
    """The sub-catalogs as one mask per prompt."""
    masks = torch.ones(len(seen_items), num_items, dtype=torch.bool)
    masks = masks if allowed_items is None else masks & allowed_items
    for mask, seen in zip(masks, seen_items.tolist(), strict=True):
        mask[[row for row in seen if row >= 0]] = False
    return masks


@pytest.fixture
def seen_items(catalog_trie):
    """Much, little and nothing was seen, with duplicates."""
    seen = torch.randint(0, catalog_trie.num_items, (3, 30))
    seen[1, 3:] = -1
    seen[2] = -1
    return seen


def assert_same_answers(output, expected):
    assert torch.equal(output.sequences, expected.sequences)
    assert torch.equal(output.item_nodes, expected.item_nodes)
    assert torch.equal(output.user_indices, expected.user_indices)
    torch.testing.assert_close(output.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.thoughts, expected.thoughts, atol=1e-5, rtol=1e-5)
    assert torch.equal(output.num_thoughts, expected.num_thoughts)
    assert output.num_users == expected.num_users


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
@pytest.mark.parametrize("in_stock", [False, True])
def test_seen_items_filter_the_full_ranking(make_model, prompts, catalog_trie, seen_items, normalize, in_stock):
    model = make_model(num_thoughts=1)
    num_items = catalog_trie.num_items
    allowed = torch.rand(num_items) < 0.6 if in_stock else None
    settings = {"item_trie": catalog_trie, "num_beams": num_items, "normalize": normalize}
    full = model.generate(*prompts, **settings)
    output = model.generate(*prompts, **settings, allowed_items=allowed, seen_items=seen_items)
    kept = as_masks(num_items, seen_items, allowed)[full.user_indices, catalog_trie.leaf_items(full.item_nodes)[0]]
    assert torch.equal(output.sequences, full.sequences[kept])
    assert torch.equal(output.user_indices, full.user_indices[kept])
    torch.testing.assert_close(output.sequences_scores, full.sequences_scores[kept])


def test_rows_and_masks_say_the_same(make_model, prompts, catalog_trie, seen_items):
    model = make_model()
    settings = {"item_trie": catalog_trie, "num_beams": NUM_BEAMS}
    in_stock = torch.rand(catalog_trie.num_items) < 0.6
    by_rows = model.generate(*prompts, **settings, seen_items=seen_items, allowed_items=in_stock)
    masks = as_masks(catalog_trie.num_items, seen_items, in_stock)
    assert_same_answers(model.generate(*prompts, **settings, allowed_items=masks), by_rows)
    assert by_rows.sub_catalog.num_allowed().tolist() == masks.sum(1).tolist()
    everything = torch.ones_like(in_stock)
    assert_same_answers(
        model.generate(*prompts, **settings, allowed_items=everything), model.generate(*prompts, **settings)
    )


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_nothing_left_is_an_error_or_an_empty_list(make_model, prompts, catalog_trie, normalize):
    """Also where one item is left; the others' answers are those of a batch without the empty prompt."""
    model = make_model(num_thoughts=1)
    num_items = catalog_trie.num_items
    settings = {"item_trie": catalog_trie, "num_beams": NUM_BEAMS, "normalize": normalize}
    seen = torch.full((3, num_items + 2), -1)
    seen[1, 2:] = torch.arange(num_items)
    seen[2, : num_items - 1] = torch.arange(1, num_items)
    with pytest.raises(ValueError, match=r"no item for prompt\(s\) \[1\].*on_empty=\"skip\""):
        model.generate(*prompts, **settings, seen_items=seen)

    output = model.generate(*prompts, **settings, seen_items=seen, on_empty="skip")
    assert output.user_indices.tolist() == [0] * NUM_BEAMS + [2]
    assert output.num_users == 3 and output.sequences_scores.isfinite().all()
    assert catalog_trie.leaf_items(output.item_nodes[-1:])[0].tolist() == [0]
    rest = model.generate(*(tensor[[0, 2]] for tensor in prompts), **settings, seen_items=seen[[0, 2]])
    assert torch.equal(output.sequences, rest.sequences)
    torch.testing.assert_close(output.sequences_scores, rest.sequences_scores, atol=1e-5, rtol=1e-5)

    nothing = torch.zeros(num_items, dtype=torch.bool)
    output = model.generate(*prompts, **settings, allowed_items=nothing, on_empty="skip")
    assert output.sequences.shape[0] == 0 and output.num_users == 3 and output.thoughts.shape == (3, 1, 32)


@pytest.mark.parametrize("limit", [1, 2])
@torch.inference_mode()
def test_a_batch_that_does_not_fit_is_split(make_model, prompts, catalog_trie, seen_items, limit, monkeypatch):
    """Five prompts; one of them skipped, each with its own sub-catalog."""
    model = make_model(num_thoughts=2)
    batch = [torch.cat([tensor, tensor[:2]]) for tensor in prompts]
    settings = {
        "item_trie": catalog_trie,
        "num_beams": NUM_BEAMS,
        "num_return_sequences": 4,
        "seen_items": torch.cat([seen_items, seen_items[[2, 0]]]),
        "allowed_items": torch.rand(5, catalog_trie.num_items) < 0.5,
        "on_empty": "skip",
        "length_penalty": 0.5,
    }
    settings["allowed_items"][3] = False
    whole = model.generate(*batch, **settings)
    encode, sizes = type(model).encode, []

    def encode_few(self, input_ids, *args, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(model), "encode", encode_few)
    monkeypatch.setattr(batch_splitting, "_warned", True)
    parts = model.generate(*batch, **settings)
    assert sizes == {1: [5, 3, 2, 1, 1, 1, 1, 1], 2: [5, 3, 2, 2, 1]}[limit]
    assert 3 not in parts.user_indices and parts.num_users == 5
    assert_same_answers(parts, whole)
    assert torch.equal(parts.sub_catalog.num_allowed(), whole.sub_catalog.num_allowed())


def test_a_model_in_training_answers_without_dropout(make_model, prompts, catalog_trie):
    model = make_model(num_thoughts=1, embedding_dropout=0.5)
    noise = torch.randn(3, 2, 32)

    def answers() -> list[torch.Tensor]:
        return [
            model.generate(*prompts, item_trie=catalog_trie).sequences_scores,
            model.embed_items(catalog_trie),
            model.greedy_answers(*prompts, item_trie=catalog_trie, thought_noise=noise),
        ]

    expected = answers()
    model.train()
    model.model.eval()
    modes = [module.training for module in model.modules()]
    assert all(map(torch.equal, answers(), expected))
    assert [module.training for module in model.modules()] == modes


def test_a_broken_model_is_no_empty_answer(make_model, prompts, catalog_trie):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[9] = torch.nan  # only the second prompt reads it
    for normalize in ("catalog", "vocabulary"):
        with pytest.raises(ValueError, match=r"scores of prompt\(s\) \[1\] are NaN"):
            model.generate(*prompts, item_trie=catalog_trie, num_beams=NUM_BEAMS, normalize=normalize)


def test_bad_arguments_are_named(make_model, prompts, catalog_trie):
    model, num_items = make_model(), catalog_trie.num_items
    input_ids, attention_mask = prompts
    no_token = attention_mask.clone()
    no_token[1] = 0
    for settings, message in [
        ({"num_beams": 0}, "num_beams is 0"),
        ({"normalize": "items"}, "normalize is 'items'; choose one of"),
        ({"on_empty": "ignore"}, r"on_empty is 'ignore'; choose one of \('error', 'skip'\)"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"length_penalty": float("inf")}, "length_penalty is inf"),
        ({"num_thoughts": -1}, "num_thoughts is -1"),
        ({"num_thoughts": 2.0}, "num_thoughts is 2.0; pass 0"),
        ({"num_thoughts": torch.tensor(2)}, r"num_thoughts is torch.int64 of shape \(\); .* integers of shape \(3,\)"),
        ({"num_thoughts": torch.tensor([1, 2, 1, 2])}, r"num_thoughts is torch.int64 of shape \(4,\)"),
        ({"num_thoughts": torch.ones(3)}, "num_thoughts is torch.float32"),
        ({"item_trie": ItemTrie.from_sequences([[1, 2], [3, 1000]])}, "token 1000"),
        ({"attention_mask": no_token}, r"prompt\(s\) \[1\] hold no token"),
        ({"attention_mask": attention_mask[:, 1:]}, r"attention_mask has shape \(3, 6\) and input_ids \(3, 7\)"),
        ({"input_ids": input_ids[0]}, r"input_ids have shape \(7,\)"),
        ({"input_ids": input_ids[:0], "attention_mask": None}, r"input_ids have shape \(0, 7\)"),
        ({"input_ids": input_ids[:, :0], "attention_mask": None}, r"input_ids have shape \(3, 0\)"),
        ({"allowed_items": torch.ones(3, num_items)}, "allowed_items is torch.float32"),
        ({"allowed_items": torch.ones(2, num_items).bool()}, rf"shape \(2, {num_items}\)"),
        ({"allowed_items": torch.ones(num_items + 1).bool()}, rf"shape \({num_items + 1},\)"),
        ({"allowed_items": torch.zeros(num_items).bool()}, r"prompt\(s\) \[0, 1, 2\]"),
        ({"seen_items": torch.full((3, 2), num_items)}, f"prompt 0 holds row {num_items}"),
        ({"seen_items": torch.full((2, 2), 0)}, r"seen_items is torch.int64 of shape \(2, 2\)"),
    ]:
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask, "item_trie": catalog_trie}
        with pytest.raises(ValueError, match=message):
            model.generate(**{**arguments, **settings})
