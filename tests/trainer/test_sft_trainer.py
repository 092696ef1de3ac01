"""Supervised fine-tuning on a tiny model: every parameter moves, packed answers all count, it learns."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from hf_latentrec import ItemCatalog, LatentRecProcessor
from hf_latentrec.data import NextItemCollator, PackedHistoryCollator, pack_examples
from hf_latentrec.trainer import LatentSFTConfig, LatentSFTTrainer
from tests.tiny import make_tiny_recommender


@pytest.fixture
def train(tmp_path, toy, make_model):
    def train(num_thoughts=2, dataset=None, collate=None, **args):
        settings = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 0.1, "logging_steps": 1, **args}
        trainer = LatentSFTTrainer(
            make_model(num_thoughts),
            LatentSFTConfig(tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", **settings),
            data_collator=toy.collate if collate is None else collate,
            train_dataset=toy.dataset if dataset is None else dataset,
            item_trie=toy.trie,
        )
        before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
        trainer.train()
        return trainer, before

    return train


@pytest.mark.parametrize("num_thoughts", [0, 2])
@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
def test_every_parameter_moves(train, num_thoughts, normalize):
    trainer, before = train(num_thoughts, normalize=normalize)
    assert trainer.state.log_history[-1]["train_loss"] > 0
    unmoved = [name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])]
    assert unmoved == []


@pytest.mark.parametrize("normalize", ["vocabulary", "catalog"])
def test_it_learns_the_targets(train, toy, normalize):
    trainer, _ = train(max_steps=60, learning_rate=1e-2, per_device_train_batch_size=8, normalize=normalize)
    batch = toy.collate(toy.rows)
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    trainer.model.eval()
    output = trainer.model.generate(**prompt, item_trie=toy.trie, num_beams=3, num_return_sequences=1)
    assert torch.equal(output.sequences, batch["labels"])


def test_the_loss_is_normalized_as_asked(train, toy, make_model):
    batch = {name: tensor for name, tensor in toy.collate(toy.rows).items() if name != "user_ids"}
    for normalize, trie in [("vocabulary", None), ("catalog", toy.trie)]:
        trainer, _ = train(max_steps=1, per_device_train_batch_size=8, normalize=normalize)
        expected = make_model()(**batch, item_trie=trie).loss.item()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_every_answer_of_a_packed_history_counts(train, toy, make_model):
    """Two branches of a history give the same loss as two examples with its prefixes as prompts."""
    tokens = [1, 4, 8, 5, 9, 7, 11]
    starts, answers = [3, 5], [[5, 9], [7, 11]]

    def collate_packed(examples):
        return {
            "input_ids": torch.tensor([tokens]),
            "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
            "labels": torch.tensor([answers]),
            "branch_starts": torch.tensor([starts]),
            "labels_follow_prompt": True,
            "user_ids": ["u0"],
        }

    rows = [
        {"user_id": "u0", "input_ids": tokens[:start], "labels": answer}
        for start, answer in zip(starts, answers, strict=True)
    ]
    packed, _ = train(dataset=[0], collate=collate_packed, max_steps=1)
    unpacked, _ = train(dataset=rows, max_steps=1)
    losses = [trainer.state.log_history[0]["loss"] for trainer in (packed, unpacked)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    for ours, theirs in zip(packed.model.parameters(), unpacked.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


@pytest.fixture
def make_tiny_trainer(tmp_path):
    """Users' histories, as a user of the library passes them: no collator; `change` alters the arguments."""

    def make(pack_histories=None, num_thoughts=0, template="{history}", max_history=4, change=dict, **args):
        model, processor, splits = make_tiny_recommender(num_thoughts)
        settings = {"per_device_train_batch_size": 500, "max_steps": 1, "logging_steps": 1, **args}
        config = LatentSFTConfig(
            tmp_path, use_cpu=True, disable_tqdm=True, save_strategy="no", pack_histories=pack_histories, **settings
        )
        kwargs = {
            "train_dataset": splits["train"],
            "eval_dataset": splits["validation"],
            "processing_class": LatentRecProcessor(
                processor.tokenizer, processor.catalog, prompt_template=template, max_history=max_history
            ),
        }
        return LatentSFTTrainer(model, config, **change(kwargs))

    return make


@pytest.mark.parametrize("num_thoughts", [0, 2])
def test_packed_histories_train_like_one_example_per_row(make_tiny_trainer, num_thoughts):
    """The whole training set in one step, histories longer than a prompt among it; then the validation set."""
    packed, separate = (make_tiny_trainer(pack, num_thoughts, learning_rate=1e-2) for pack in (None, False))
    assert isinstance(packed.data_collator, PackedHistoryCollator)
    assert isinstance(separate.data_collator, NextItemCollator)
    assert len(packed.train_dataset) < len(separate.train_dataset)
    for trainer in (packed, separate):
        trainer.train()
    losses = [(t.state.log_history[0]["loss"], t.evaluate()["eval_loss"]) for t in (packed, separate)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    for ours, theirs in zip(packed.model.parameters(), separate.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_a_template_with_text_after_the_history_is_not_packed(make_tiny_trainer):
    trainer = make_tiny_trainer(template="{history}\nNext:")
    assert isinstance(trainer.data_collator, NextItemCollator) and "target" in trainer.train_dataset.column_names
    with pytest.raises(ValueError, match="text after '{history}'.*pack_histories=False"):
        make_tiny_trainer(True, template="{history}\nNext:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kwargs: {**kwargs, "data_collator": dict}, "pack_histories is True, but a data_collator is given"),
        (lambda kwargs: {**kwargs, "processing_class": None}, "processing_class is NoneType; pass the LatentRecPro"),
        (
            lambda kwargs: {**kwargs, "eval_dataset": {"a": kwargs["eval_dataset"].remove_columns("target")}},
            "eval_dataset has not the columns user_id, history, target.* but user_id, history",
        ),
    ],
)
def test_packing_that_cannot_be_done_is_an_error_where_it_was_asked_for(make_tiny_trainer, change, message):
    with pytest.raises(ValueError, match=message):
        make_tiny_trainer(True, change=change)


def test_a_collator_takes_the_data_as_they_are(make_tiny_trainer):
    trainer = make_tiny_trainer(None, change=lambda kwargs: {**kwargs, "data_collator": dict})
    assert trainer.data_collator is dict and "target" in trainer.train_dataset.column_names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kwargs: {**kwargs, "processing_class": None}, "processing_class is NoneType"),
        (lambda kwargs: {**kwargs, "train_dataset": kwargs["train_dataset"].remove_columns("user_id")}, "train_datas"),
        (lambda kwargs: {**kwargs, "train_dataset": kwargs["train_dataset"].to_list()}, "train_dataset .*is a list"),
    ],
)
def test_histories_that_nothing_reads_are_refused(make_tiny_trainer, change, message):
    for pack_histories in (None, False):
        with pytest.raises(ValueError, match=f"histories are given without a data_collator, but {message}"):
            make_tiny_trainer(pack_histories, change=change)


def test_examples_are_packed_for_an_evaluation_too(make_tiny_trainer):
    trainer = make_tiny_trainer()
    examples = make_tiny_recommender().splits["validation"]
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(examples)["eval_loss"] == expected
    assert trainer.evaluate({"a": examples})["eval_a_loss"] == expected
    assert trainer.predict(examples).metrics["test_loss"] == expected
    assert trainer.evaluate(trainer.eval_dataset)["eval_loss"] == expected  # packed already


@pytest.mark.parametrize("pack_histories", [True, False])
def test_rows_are_grouped_by_length_without_a_column(make_tiny_trainer, pack_histories):
    """Equal prompts first, then equal numbers of branches: a pack of 5 items and 1 target is longer than one of 4 and
    3."""

    def short_and_single(kwargs):
        users = {user: row for row, user in enumerate(dict.fromkeys(kwargs["train_dataset"]["user_id"]))}
        keep = kwargs["train_dataset"].filter(
            lambda row: (len(row["history"]) == 4) if users[row["user_id"]] % 2 else (len(row["history"]) < 4)
        )
        return {**kwargs, "train_dataset": keep}

    settings = {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4}
    trainer = make_tiny_trainer(pack_histories, change=short_and_single, **settings)
    lengths = trainer.get_train_dataloader().batch_sampler.sampler.lengths.tolist()
    rows = trainer.train_dataset.to_list()
    if pack_histories:
        sizes = [(len(row["items"]), len(row["targets"])) for row in rows]
        assert set(sizes) == {(4, 3), (5, 1)}
    else:
        sizes = [len(row["history"]) for row in rows]
    assert sorted(range(len(rows)), key=lengths.__getitem__) == sorted(range(len(rows)), key=sizes.__getitem__)
    named = make_tiny_trainer(pack_histories, length_column_name="n", **settings)
    named.train_dataset = named.train_dataset.add_column("n", list(range(len(named.train_dataset))))
    assert named._lengths(named.train_dataset) == list(range(len(named.train_dataset)))


def test_packs_of_one_size_are_grouped_by_their_longest_answer(make_tiny_trainer):
    titles = ["Soap", "A comb", "Shampoo and conditioner", "Oil"]
    items = [{"item_id": f"i{row}", "title": title} for row, title in enumerate(titles)]
    tokenizer = make_tiny_recommender().processor.tokenizer
    processor = LatentRecProcessor(tokenizer, ItemCatalog.from_items(items, tokenizer, item_tokenization="title"))
    histories = [("a", ["i2", "i1"], "i0"), ("b", ["i0", "i1"], "i2"), ("c", ["i2", "i3"], "i1"), ("d", ["i0"], "i3")]
    train = Dataset.from_dict(dict(zip(("user_id", "history", "target"), zip(*histories, strict=True), strict=True)))
    trainer = make_tiny_trainer(
        True,
        template="{history}",
        train_sampling_strategy="group_by_length",
        change=lambda kwargs: {**kwargs, "train_dataset": train, "eval_dataset": None, "processing_class": processor},
    )
    lengths = trainer._lengths(trainer.train_dataset)
    assert sorted(range(4), key=lengths.__getitem__) == [3, 0, 2, 1]  # 1 item; then answers of 5, 7 and 24 tokens

    unknown = train.select([0]).to_dict() | {"target": ["nowhere"]}
    trainer.train_dataset = pack_examples(Dataset.from_dict(unknown))
    with pytest.raises(ValueError, match="item_id 'nowhere' is not in the catalog"):
        trainer.train()
