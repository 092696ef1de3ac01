"""What holds for every item-ID baseline."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from hf_latentrec import ItemKNNConfig, ItemKNNRecommender, ItemTable, PopularityConfig, PopularityRecommender
from hf_latentrec.data import SequenceDataset
from hf_latentrec.models.lares import recommending
from hf_latentrec.trainer import SequentialTrainer, SequentialTrainingConfig

from .toy_baselines import NUM_ITEMS, TRAINED, make_items


HISTORIES = [["i3", "i7", "i1"], ["i2"], ["i5", "i4", "i9", "i0", "i11", "i8"], ["i1", "i6", "i2", "i10"]]
BATCH = torch.tensor([[4, 8, 2, 0, 0, 0], [3, 0, 0, 0, 0, 0], [6, 5, 10, 1, 12, 9], [2, 7, 3, 11, 0, 0]])
LENGTHS = [3, 1, 6, 4]

every_model = pytest.mark.parametrize("name", sorted(TRAINED))


def is_causal(name: str) -> bool:
    return TRAINED[name][1].causal


@every_model
def test_a_row_depends_neither_on_its_batch_nor_on_its_padding(make_model, name, monkeypatch):
    model = make_model(name)
    states = model.encode(BATCH)
    for row, length in enumerate(LENGTHS):
        alone = model.encode(BATCH[row : row + 1, :length])
        torch.testing.assert_close(states[row, length - 1], alone[0, -1], atol=1e-5, rtol=1e-4)
    last_states = torch.stack([states[row, length - 1] for row, length in enumerate(LENGTHS)])
    for tokens in (1, 8, 2048):
        monkeypatch.setattr(recommending, "ENCODED_TOKENS", tokens)
        torch.testing.assert_close(model.user_states(HISTORIES), last_states, atol=1e-5, rtol=1e-4)
    assert last_states.std(0).max() > 1e-2  # and rows differ


@every_model
def test_only_the_newest_items_count(make_model, name):
    model = make_model(name)
    long = [["i9", "i9", *HISTORIES[2]]]
    torch.testing.assert_close(model.user_states(long), model.user_states([HISTORIES[2]]))


@every_model
def test_order_counts(make_model, name):
    model = make_model(name, max_history=4)
    states = model.user_states([["i3", "i7", "i1"], ["i7", "i3", "i1"]])
    assert not torch.allclose(states[0], states[1], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in sorted(TRAINED) if is_causal(name)])
def test_a_causal_model_sees_only_what_is_before_a_position(make_model, name):
    model = make_model(name)
    changed = BATCH.clone()
    changed[2, 3] = 7
    before, after = model.encode(BATCH), model.encode(changed)
    torch.testing.assert_close(before[2, :3], after[2, :3])
    assert not torch.allclose(before[2, 3:], after[2, 3:], atol=1e-4)
    for length in range(1, 7):  # the state of a prefix is that of its last position
        prefix = model.encode(BATCH[2:3, :length])[0, -1]
        torch.testing.assert_close(before[2, length - 1], prefix, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in sorted(TRAINED) if is_causal(name)])
def test_sequences_of_one_row_do_not_see_each_other(make_model, name):
    model = make_model(name)
    rows = torch.tensor([[4, 8, 2, 3, 0, 0], [2, 7, 3, 11, 5, 9]])
    position_ids = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 0, 1]])
    states = model.encode(rows, position_ids)
    for row, start, stop in ((0, 0, 3), (0, 3, 4), (1, 0, 4), (1, 4, 6)):
        alone = model.encode(rows[row : row + 1, start:stop])
        torch.testing.assert_close(states[row, start:stop], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in sorted(TRAINED) if not is_causal(name)])
def test_a_whole_window_model_refuses_rows_of_several_sequences(make_model, name):
    with pytest.raises(ValueError, match="one sequence per row"):
        make_model(name).encode(BATCH, torch.zeros_like(BATCH))


@every_model
def test_saved_and_loaded_by_auto_model(make_model, name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model) and loaded.items.item_ids == model.items.item_ids
    assert loaded.recommend(HISTORIES, k=5) == model.recommend(HISTORIES, k=5)
    saved, restored = model.state_dict(), loaded.state_dict()
    assert saved.keys() == restored.keys()
    assert all(torch.equal(saved[key], restored[key]) for key in saved)


@every_model
def test_the_catalog_may_grow(make_model, name):
    model = make_model(name)
    before, histories = model.rank_targets(HISTORIES, ["i0"] * 4), [*HISTORIES, ["i13", "i1"]]
    texts = {"texts": torch.cat([model.fusion.texts[1:], torch.randn(2, 5)])} if name == "tedrec" else {}
    model.resize_item_embeddings(make_items(NUM_ITEMS + 2), **texts)
    after = model.rank_targets(histories, ["i0"] * 5)
    if name == "tedrec":  # its new items are recommended by their texts
        assert (after[:4] >= before).all()
        assert (model.rank_targets(histories, ["i13"] * 5) > 0).all()
    else:
        assert (after[:4] == before).all()
        assert (model.rank_targets(histories, ["i13"] * 5) == 0).all()


def test_a_model_that_only_counts_has_nothing_to_resize():
    for model in (
        PopularityRecommender(PopularityConfig(num_items=2), items=ItemTable(["a", "b"], popularity=[1, 2])),
        ItemKNNRecommender(ItemKNNConfig(num_items=2), items=ItemTable(["a", "b"])),
    ):
        with pytest.raises(ValueError, match="no item embeddings to resize; make a new one"):
            model.resize_item_embeddings(ItemTable(["a", "b", "c"]))


def rings(num_users: int = 12) -> Dataset:
    """Users who go round a ring of items: even users one step at a time, odd ones back."""
    examples = {"user_id": [], "history": [], "target": []}
    for user in range(num_users):
        step = 1 if user % 2 == 0 else -1
        path = [f"i{(user + step * t) % NUM_ITEMS}" for t in range(6)]
        for end in range(2, 6):
            examples["user_id"].append(f"u{user}")
            examples["history"].append(path[:end])
            examples["target"].append(path[end])
    return Dataset.from_dict(examples)


def train(model, examples: Dataset, folder, **settings) -> SequentialTrainer:
    args = SequentialTrainingConfig(
        output_dir=str(folder), use_cpu=True, save_strategy="no", disable_tqdm=True, per_device_train_batch_size=48,
        **settings,
    )  # fmt: skip
    dataset = SequenceDataset(examples, model.items, max_history=6, packed=model.causal)
    trainer = SequentialTrainer(model, args, train_dataset=dataset)
    trainer.train()
    return trainer


@every_model
def test_learns_a_toy_set_with_the_ordinary_trainer(make_model, name, tmp_path):
    examples, model = rings(), make_model(name, dropout=0.0, attention_dropout=0.0)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    trainer = train(model, examples, tmp_path, max_steps=100, learning_rate=1e-2)
    ranks = model.rank_targets(examples["history"], examples["target"])
    assert (ranks == 1).mean() > 0.9
    unchanged = [key for key, parameter in model.named_parameters() if torch.equal(parameter.detach(), before[key])]
    assert not unchanged
    assert trainer.state.log_history[-1]["train_loss"] < 5


@pytest.mark.parametrize("objective", ["bce", "sampled_softmax"])
@pytest.mark.parametrize("name", ["sasrec", "fmlp", "rearec-prl"])
def test_the_sampled_objectives_train_too(make_model, name, objective, tmp_path):
    model = make_model(name, objective=objective, num_negatives=2)
    trainer = train(model, rings(4), tmp_path, max_steps=2)
    assert trainer.state.log_history[-1]["train_loss"] > 0


@pytest.mark.parametrize("contrastive", ["cl4srec", "duorec"])
@pytest.mark.parametrize("name", ["sasrec", "fmlp", "rearec-prl"])
def test_contrastive_losses_go_with_packed_and_whole_window_models(make_model, name, contrastive, tmp_path):
    trainer = train(
        make_model(name), rings(4), tmp_path, max_steps=2, logging_steps=1, contrastive=contrastive, temperature=0.5
    )
    assert all(step["loss/contrastive"] > 0 for step in trainer.state.log_history[:2])


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (lambda: TRAINED["bert4rec"][0](objective="bce"), "hidden items"),
        (lambda: TRAINED["bert4rec"][0](mask_probability=1.5), "mask_probability is 1.5"),
        (lambda: TRAINED["bsarec"][0](frequency_weight=-0.1), "frequency_weight is -0.1"),
        (lambda: TRAINED["caser"][0](num_vertical_filters=0), "num_vertical_filters is 0"),
        (lambda: TRAINED["gru4rec"][0](gru_size=0), "gru_size is 0"),
        (lambda: TRAINED["rearec-erl"][0](variant="xrl"), "variant is 'xrl'"),
        (lambda: TRAINED["tedrec"][0](objective="bce"), "cosines"),
        (lambda: ItemKNNConfig(num_neighbours=0), "num_neighbours is 0"),
    ],
)
def test_settings_are_checked(config, match):
    with pytest.raises(ValueError, match=match):
        config()


def test_popularity_ranks_by_counts(tmp_path):
    items = make_items()
    model = PopularityRecommender(PopularityConfig(num_items=NUM_ITEMS), items=items)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    for recommender in (model, loaded):
        assert recommender.rank_targets([["i0"], ["i4"]], ["i2", "i11"]).tolist() == [3, 12]
        assert [item["item_id"] for item in recommender.recommend([["i0"]], k=2, exclude_seen=True)[0]] == ["i1", "i2"]
    items.popularity = None
    with pytest.raises(ValueError, match="no popularities"):
        PopularityRecommender(PopularityConfig(num_items=NUM_ITEMS), items=items)


def test_item_knn_sums_the_cosines_of_the_nearest_items(tmp_path, monkeypatch):
    pytest.importorskip("implicit")
    generator = torch.Generator().manual_seed(0)
    paths = [torch.randperm(NUM_ITEMS, generator=generator)[:5].tolist() for _ in range(80)]
    examples = Dataset.from_dict(
        {
            "user_id": [f"u{user}" for user in range(80) for _ in range(2)],
            "history": [[f"i{row}" for row in path[:end]] for path in paths for end in (3, 4)],
            "target": [f"i{path[end]}" for path in paths for end in (3, 4)],
        }
    )
    model = ItemKNNRecommender(ItemKNNConfig(num_items=NUM_ITEMS, num_neighbours=4), items=make_items()).fit(examples)
    users = [{user for user, path in enumerate(paths) if row in path} for row in range(NUM_ITEMS)]
    cosine = [[len(a & b) / (len(a) * len(b)) ** 0.5 if a is not b else 0.0 for b in users] for a in users]
    expected = torch.zeros(2, NUM_ITEMS)
    for row, history in enumerate(([3, 7], [1, 2, 5])):
        for item in history:
            smallest = sorted(cosine[item])[-4]
            assert sorted(cosine[item])[-5] < smallest or smallest == 0  # the four nearest are no matter of chance
            for other in range(NUM_ITEMS):
                expected[row, other] += cosine[item][other] if cosine[item][other] >= smallest else 0.0
    ids = model.encode_histories([["i3", "i7"], ["i1", "i2", "i5"]])
    scores = model(ids).logits
    torch.testing.assert_close(scores, expected)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(ids).logits, scores)
    monkeypatch.setattr(recommending, "ENCODED_TOKENS", 4)  # histories of other lengths in each part
    assert loaded.recommend(HISTORIES, k=3, exclude_seen=True) == model.recommend(HISTORIES, k=3, exclude_seen=True)
    torch.testing.assert_close(model.score(model.user_states([["i3", "i7"], ["i1", "i2", "i5"]])), expected)


def test_item_knn_scores_a_block_alone():
    model = ItemKNNRecommender(ItemKNNConfig(num_items=NUM_ITEMS, num_neighbours=3), items=make_items())
    model.similarities.data.uniform_()
    model.neighbours.copy_(torch.randint(NUM_ITEMS, model.neighbours.shape))
    states = torch.randint(NUM_ITEMS + 1, (4, 5))
    whole = model.score(states)
    for block in (slice(0, 5), slice(5, 11), slice(11, NUM_ITEMS)):
        scores = model.score(states, block)
        torch.testing.assert_close(scores, whole[:, block])
        assert scores.untyped_storage().nbytes() == scores.numel() * scores.element_size()


def test_item_knn_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "implicit.nearest_neighbours", None)
    model = ItemKNNRecommender(ItemKNNConfig(num_items=NUM_ITEMS), items=make_items())
    with pytest.raises(ImportError, match=r"hf_latentrec\[baselines\]"):
        model.fit(rings(2))
