"""Batches against the examples that they are made of."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec import LatentRecProcessor
from hf_latentrec.data import NextItemCollator, PackedHistoryCollator, pack_examples
from hf_latentrec.models.latent_reasoning.processing_latentrec import INSTRUCTION_TEMPLATE
from tests.tiny import make_tiny_recommender


def test_next_item_batch_holds_prompts_and_targets():
    _, processor, splits = make_tiny_recommender()
    examples = splits["test"].select(range(3)).to_list()
    batch = NextItemCollator(processor)(examples)
    assert batch["user_ids"] == [example["user_id"] for example in examples]
    expected = processor([example["history"] for example in examples])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    for row, example in zip(batch["labels"].tolist(), examples, strict=True):
        codes = processor.tokenizer.convert_ids_to_tokens(row)
        assert codes == processor.tokenizer.convert_ids_to_tokens(
            processor.catalog.answer_tokens(processor.catalog.rows([example["target"]])[0]).tolist()
        )


@pytest.mark.parametrize("separator", ["", "\n"])
@pytest.mark.parametrize("num_thoughts", [0, 2])
@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
def test_packed_batch_has_the_loss_and_gradients_of_separate_examples(separator, num_thoughts, normalize):
    """Through the real chain: split, packing, processor, collators, model; histories of different length, some of them
    longer than a prompt, so that a user has several packs."""
    model, processor, splits = make_tiny_recommender(num_thoughts)
    model = model.double().eval()
    processor = LatentRecProcessor(processor.tokenizer, processor.catalog, item_separator=separator, max_history=4)
    users = set(splits["train"]["user_id"][:40])
    train = splits["train"].filter(lambda row: row["user_id"] in users)
    packed_rows = pack_examples(train, processor.max_history)
    assert len(users) < len(packed_rows) < len(train)
    separate = NextItemCollator(processor)(train.to_list())
    trie = processor.item_trie if normalize == "catalog" else None

    def loss_and_gradients(batch):
        model.zero_grad()
        loss = model(**{name: value for name, value in batch.items() if name != "user_ids"}, item_trie=trie).loss
        loss.backward()
        return loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = loss_and_gradients(separate)
    for keep_answers in (True, False):
        packed = PackedHistoryCollator(processor, keep_answers)(packed_rows.to_list())
        assert packed["labels_follow_prompt"] == (keep_answers and separator == "")
        assert (packed["labels"] != -100).sum() == (separate["labels"] != -100).sum()
        torch.testing.assert_close(loss_and_gradients(packed), expected, atol=1e-5, rtol=1e-5)


def test_the_last_target_stays_in_the_prompt_only_where_its_states_are_used():
    _, processor, splits = make_tiny_recommender()
    rows = pack_examples(splits["train"]).select(range(2)).to_list()
    for keep_answers in (True, False):
        batch = PackedHistoryCollator(processor, keep_answers)(rows)
        items = [row["items"] if keep_answers else row["items"][:-1] for row in rows]
        expected = processor(items, return_tensors=None)["attention_mask"].sum(-1)
        assert batch["attention_mask"].sum(-1).tolist() == expected.tolist()


def test_a_template_that_ends_with_text_cannot_be_packed():
    _, processor, _ = make_tiny_recommender()
    instructed = LatentRecProcessor(processor.tokenizer, processor.catalog, prompt_template=INSTRUCTION_TEMPLATE)
    with pytest.raises(ValueError, match="text after '{history}'"):
        PackedHistoryCollator(instructed)


def test_unknown_target_is_named():
    _, processor, splits = make_tiny_recommender()
    example = {**splits["test"][0], "target": "i9999"}
    with pytest.raises(ValueError, match="i9999"):
        NextItemCollator(processor)([example])
