"""What every item-ID recommender does: losses, scores, recommendations, a catalog that grows, and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel

from hf_latentrec import SASRecForSequentialRecommendation
from hf_latentrec.models.lares import item_scores, recommending
from tests.models.lares.toy_models import KINDS, MAX_HISTORY, make_items, make_model
from tests.models.lares.written_out import item_loss, sasrec_state


INPUT_IDS = torch.tensor([[3, 7, 1, 9], [5, 2, 0, 0], [4, 0, 0, 0]])
LABELS = torch.tensor([[7, -100, 9, 4], [-100, 8, -100, -100], [12, -100, -100, -100]])
SAMPLES = [(0, 0, 7), (0, 2, 9), (0, 3, 4), (1, 1, 8), (2, 0, 12)]  # row, position, next item
HISTORIES = [["i2", "i6", "i0", "i8"], ["i4", "i1"], ["i3"], ["i9", "i8", "i7", "i6", "i5", "i4", "i3"]]


def ids(recommended: list[list[dict]]) -> list[list[str]]:
    return [[item["item_id"] for item in user] for user in recommended]


@pytest.fixture(params=KINDS)
def model(request):
    return make_model(request.param)


# Losses


def sample_states(model) -> list[torch.Tensor]:
    return [sasrec_state(model, INPUT_IDS[row, : place + 1].tolist()) for row, place, _ in SAMPLES]


@pytest.mark.parametrize("num_items_in_batch", [None, 20, torch.tensor(7)])
def test_cross_entropy_of_every_label(num_items_in_batch):
    model = make_model()
    weight = model.get_input_embeddings().weight
    total = sum(
        item_loss(state, weight, target) for state, (_, _, target) in zip(sample_states(model), SAMPLES, strict=True)
    )
    output = model(INPUT_IDS, labels=LABELS, num_items_in_batch=num_items_in_batch)
    expected = total / (5 if num_items_in_batch is None else num_items_in_batch)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.user_states, torch.stack(sample_states(model)), atol=1e-5, rtol=1e-4)
    assert output.logits is None and output.view_states is None


@pytest.mark.parametrize("objective", ["sampled_softmax", "bce"])
def test_sampled_objectives(objective):
    model = make_model(objective=objective, num_negatives=3)
    weight = model.get_input_embeddings().weight
    negative_ids = torch.tensor([[1, 12, 5], [3, 3, 4], [1, 2, 3], [9, 10, 11], [6, 7, 8]])
    total = 0
    for state, (_, _, target), negatives in zip(sample_states(model), SAMPLES, negative_ids.tolist(), strict=True):
        own, others = state @ weight[target], [state @ weight[negative] for negative in negatives]
        if objective == "bce":
            total = total - (1 / (1 + (-own).exp())).log() - sum((1 / (1 + other.exp())).log() for other in others)
        else:
            total = total - (own.exp() / (own.exp() + sum(other.exp() for other in others))).log()
    loss = model(INPUT_IDS, labels=LABELS, negative_ids=negative_ids).loss
    torch.testing.assert_close(loss, total / 5)
    for found, wanted in zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(total / 5, list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


class Doubled(SASRecForSequentialRecommendation):
    """Scores items by other vectors than it reads them by, as models with texts do."""

    @property
    def item_embeddings(self):
        return 2 * super().item_embeddings


@pytest.mark.parametrize("objective", ["cross_entropy", "sampled_softmax", "bce"])
def test_objectives_are_of_the_vectors_that_items_are_scored_by(objective):
    plain = make_model(objective=objective)
    doubled = Doubled(plain.config, plain.items)
    doubled.load_state_dict(plain.state_dict())
    states, targets, negatives = torch.randn(3, 8), torch.tensor([1, 12, 5]), torch.tensor([[2], [3], [4]])
    torch.testing.assert_close(
        doubled.item_loss(states, targets, negatives), plain.item_loss(2 * states, targets, negatives)
    )


def test_negatives_are_all_other_items_alike():
    model = make_model(items=make_items(4), num_negatives=5)
    negatives = model.draw_negatives(torch.tensor([1, 3, 4] * 1000))
    assert negatives.shape == (3000, 5)
    for first, target in enumerate([1, 3, 4]):
        shares = np.bincount(negatives[first::3].flatten(), minlength=5) / 5000
        expected = [0 if item in (0, target) else 1 / 3 for item in range(5)]
        assert np.abs(shares - expected).max() < 4 * (2 / 9 / 5000) ** 0.5
    with pytest.raises(ValueError, match="there is 1 item, so no other can be a negative"):
        make_model(items=make_items(1)).draw_negatives(torch.tensor([1]))


def test_sampled_objectives_draw_anew():
    model = make_model(objective="bce", num_negatives=2)
    assert model(INPUT_IDS, labels=LABELS).loss != model(INPUT_IDS, labels=LABELS).loss


def test_scores_after_the_last_item(model):
    model.eval()
    logits = model(INPUT_IDS).logits
    expected = model.encode(INPUT_IDS)[[0, 1, 2], [3, 1, 0]] @ model.get_input_embeddings().weight[1:].T
    torch.testing.assert_close(logits, expected)


# Recommendations


def test_recommendations_are_the_sorted_scores(model):
    expected = model.eval()(model.encode_histories(HISTORIES)).logits.sort(descending=True)
    for user, scores, rows in zip(model.recommend(HISTORIES, k=5), *expected, strict=True):
        assert [item["item_id"] for item in user] == [f"i{row}" for row in rows[:5]]
        assert [item["title"] for item in user] == [f"Item {row}" for row in rows[:5]]
        assert [item["score"] for item in user] == pytest.approx(scores[:5].tolist(), abs=1e-5)


def test_ranks_are_places_in_the_recommendations(model):
    for exclude_seen in (False, True):
        order = ids(model.recommend(HISTORIES, k=12, exclude_seen=exclude_seen))
        for target in model.items.item_ids:
            expected = [1 + user.index(target) if target in user else 0 for user in order]
            ranks = model.rank_targets(HISTORIES, [target] * 4, exclude_seen=exclude_seen)
            assert ranks.dtype == np.int64 and ranks.tolist() == expected
            blocks = model.rank_targets(HISTORIES, [target] * 4, exclude_seen=exclude_seen, block_size=5)
            assert blocks.tolist() == expected


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("settings", [{"block_size": 1}, {"block_size": 5}, {"batch_size": 1}, {"batch_size": 3}])
def test_blocks_and_batches_change_nothing(model, settings, exclude_seen):
    whole = model.recommend(HISTORIES, k=7, exclude_seen=exclude_seen)
    parts = model.recommend(HISTORIES, k=7, exclude_seen=exclude_seen, **settings)
    assert ids(parts) == ids(whole)
    scores, expected = ([item["score"] for user in users for item in user] for users in (parts, whole))
    assert scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_chunks_of_histories_change_nothing(model, monkeypatch, rows, exclude_seen):
    pairs, groups = (HISTORIES, ["i5", "i7", "i11", "i0"]), np.arange(12) // 2

    def outcome() -> list:
        users = model.recommend(HISTORIES, k=7, exclude_seen=exclude_seen)
        ranks, best = model.rank_and_recommend(*pairs, 12, exclude_seen=exclude_seen)
        of_groups = model.rank_targets(*pairs, exclude_seen=exclude_seen, item_groups=groups)
        return [ids(users), ranks.tolist(), best.tolist(), of_groups.tolist()]

    whole = outcome()
    monkeypatch.setattr(item_scores, "LEAST_ROWS", 1)
    monkeypatch.setattr(item_scores, "CACHED_SCORES", rows * 12)
    assert outcome() == whole


def test_a_history_alone_and_among_others(model):
    together = model.user_states(HISTORIES)
    ranks = model.rank_targets(HISTORIES, ["i5", "i7", "i11", "i0"])
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(model.user_states([history])[0], together[row], atol=1e-6, rtol=1e-5)
        assert model.rank_targets([history], [["i5", "i7", "i11", "i0"][row]]) == ranks[row : row + 1]


@pytest.mark.parametrize("tokens", [1, 4, 8, 2048])
def test_histories_are_encoded_in_parts_of_similar_length(model, tokens, monkeypatch):
    input_ids = model.encode_histories(HISTORIES)
    encoded = model.eval().encode(input_ids)
    expected = torch.stack([encoded[row, last] for row, last in enumerate([3, 1, 0, 3])])
    shapes, states_at = [], model.states_at

    def recorded(input_ids, *args):
        shapes.append(tuple(input_ids.shape))
        return states_at(input_ids, *args)

    monkeypatch.setattr(model, "states_at", recorded)
    monkeypatch.setattr(recommending, "ENCODED_TOKENS", tokens)
    torch.testing.assert_close(model.user_states(HISTORIES), expected, atol=1e-6, rtol=1e-5)
    widths = {1: [4, 4, 2, 1], 4: [4, 4, 2], 8: [4, 2], 2048: [4]}[tokens]
    assert [width for _, width in shapes] == widths and sum(number for number, _ in shapes) == 4


def test_a_tensor_has_no_place_where_rows_are_reordered(model):
    with pytest.raises(ValueError, match="initial_state is a tensor, but histories are encoded in an order of their"):
        model.recommend(HISTORIES, initial_state=torch.zeros(4, 4, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_inference_is_in_evaluation_mode_and_leaves_the_mode_as_it_was(kind):
    model = make_model(kind, dropout=0.5, attention_dropout=0.5)
    results = []
    for training in (True, True, False):
        model.train(training)
        states, ranks = model.user_states(HISTORIES), model.rank_targets(HISTORIES, ["i5"] * 4)
        results.append((states.tolist(), ranks.tolist(), model.recommend(HISTORIES)))
        assert all(module.training == training for module in model.modules())
    assert results[0] == results[1] == results[2]


def test_the_newest_items_count(model):
    newest = [HISTORIES[3][-MAX_HISTORY:]]
    assert torch.equal(model.user_states(newest), model.user_states(HISTORIES[3:]))
    assert not torch.equal(model.user_states(newest), model.user_states([HISTORIES[3][:MAX_HISTORY]]))


def test_seen_items_are_left_out_also_those_that_are_not_read_any_more(model):
    for user, history in zip(ids(model.recommend(HISTORIES, k=12, exclude_seen=True)), HISTORIES, strict=True):
        assert set(user) == set(model.items.item_ids) - set(history)
    assert model.rank_targets(HISTORIES[3:], ["i9"], exclude_seen=True).tolist() == [0]


def test_only_allowed_items(model):
    allowed = ["i9", "i2", "i6"]
    order = ids(model.recommend(HISTORIES, k=12))
    for found, user in zip(ids(model.recommend(HISTORIES, allowed_items=allowed)), order, strict=True):
        assert found == [item for item in user if item in allowed]
    [found] = ids(model.recommend(HISTORIES[:1], allowed_items=allowed, exclude_seen=True))
    assert found == ["i9"]


def test_all_items_where_k_is_larger(model):
    assert [len(user) for user in model.recommend(HISTORIES, k=100)] == [12] * 4
    assert model.recommend([["i0"] + model.items.item_ids], exclude_seen=True) == [[]]
    assert model.recommend([]) == []


def test_equal_scores_rank_by_row(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[[6, 8]] = model.get_input_embeddings().weight[3].clone()
    for history in HISTORIES:
        [user] = ids(model.recommend([history], k=12))
        place = user.index("i2")
        assert user[place : place + 3] == ["i2", "i5", "i7"]
        assert model.rank_targets([history] * 3, ["i7", "i2", "i5"]).tolist() == [place + 3, place + 1, place + 2]


@pytest.mark.parametrize("kind", KINDS)
def test_cold_items_are_read_but_not_recommended(kind):
    model = make_model(kind, items=make_items(cold=(2, 7)))
    warm = set(model.items.item_ids) - {"i2", "i7"}
    assert all(set(user) == warm for user in ids(model.recommend(HISTORIES, k=12)))
    assert model.rank_targets(HISTORIES, ["i2", "i7", "i0", "i2"]).tolist()[::3] == [0, 0]
    everything = make_model(kind)
    for user, reference in zip(
        ids(model.recommend(HISTORIES, k=12)), ids(everything.recommend(HISTORIES, k=12)), strict=True
    ):
        assert user == [item for item in reference if item in warm]
    with pytest.raises(ValueError, match=r"none of the items may be recommended: 2 of 12 never .* names 2"):
        model.recommend(HISTORIES, allowed_items=["i2", "i7"])


@pytest.mark.parametrize(
    ("histories", "settings", "message"),
    [
        ([["i1"], []], {}, "history 1 is empty; pass at least one item of each user"),
        ([["i1", "i99"]], {}, "item_id 'i99' is not among the 12 items; closest"),
        ([["i1"]], {"allowed_items": ["x"]}, "item_id 'x'"),
        ([["i1"]], {"allowed_items": []}, "names 0"),
        ([["i1"]], {"k": 0}, "k is 0 and batch_size 1024; pass a positive number"),
        ([["i1"]], {"batch_size": 0}, "k is 10 and batch_size 0"),
        ([["i1"]], {"block_size": 0}, "block_size is 0"),
    ],
)
def test_what_cannot_be_recommended(model, histories, settings, message):
    with pytest.raises(ValueError, match=message):
        model.recommend(histories, **settings)


def test_what_cannot_be_ranked(model):
    for targets in (["i1"], ["i1", "i2", "i3"]):
        with pytest.raises(ValueError, match=f"2 histories but {len(targets)} targets; pass one per history"):
            model.rank_targets([["i1"], ["i2"]], targets)
    with pytest.raises(ValueError, match="item_id 'i99'"):
        model.rank_targets([["i1"]], ["i99"])


def test_broken_weights_are_noticed(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[4] = torch.nan
    with pytest.raises(ValueError, match="the state after history 2 is not finite"):
        model.recommend([["i1"], ["i2"], ["i3"]], k=2)


# A catalog that grows


def test_new_items_leave_old_scores_as_they_were(model):
    model.eval()
    before, order = model(INPUT_IDS).logits, ids(model.recommend(HISTORIES, k=12))
    model.resize_item_embeddings(make_items(15))
    assert model.config.num_items == 15 and len(model.items) == 15
    assert torch.equal(model(INPUT_IDS).logits[:, :12], before)
    assert not model.get_input_embeddings().weight[0].any() and model.get_input_embeddings().padding_idx == 0
    assert model.items.is_cold.tolist() == [False] * 12 + [True] * 3
    assert ids(model.recommend(HISTORIES, k=20)) == order
    assert model.rank_targets([["i13"]], ["i14"]).tolist() == [0]  # new items may be read


@pytest.mark.parametrize("kind", KINDS)
def test_new_items_are_learned_and_then_recommended(kind):
    settings = {"initial_std": 0.0} if kind == "lares" else {}
    model = make_model(kind, hidden_size=16, initializer_range=0.2, **settings)
    model.resize_item_embeddings(make_items(15))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model(torch.tensor([[3, 14, 0, 0]]), labels=torch.tensor([[14, 15, -100, -100]])).loss.backward()
        optimizer.step()
    model.items = make_items(15)  # with the popularity of the new training data
    assert ids(model.recommend([["i2"], ["i2", "i13"]], k=1)) == [["i13"], ["i14"]]
    assert not model.get_input_embeddings().weight[0].any()


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ([f"i{row}" for row in range(11)], "it ends after 11"),
        (["i1", "i0", *(f"i{row}" for row in range(2, 14))], "row 0 holds 'i1'"),
        ([*(f"i{row}" for row in range(11)), "new", "i11"], "row 11 holds 'new'"),
    ],
)
def test_a_catalog_that_does_not_continue_the_old_one(model, new, message):
    weight = model.get_input_embeddings().weight.clone()
    with pytest.raises(ValueError, match=f"must start with the 12 items of the model, but {message}"):
        model.resize_item_embeddings(type(model.items)(new))
    assert torch.equal(model.get_input_embeddings().weight, weight) and len(model.items) == 12


# Files


def test_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}  # the code of LARES travels
    assert names == {"config.json", "items.json", "model.safetensors"}
    for loaded in (AutoModel.from_pretrained(tmp_path), type(model).from_pretrained(str(tmp_path))):
        assert type(loaded) is type(model) and not loaded.training
        assert loaded.recommend(HISTORIES) == model.recommend(HISTORIES)
        assert loaded.items.titles == model.items.titles


def test_saved_and_loaded_after_it_has_grown(model, tmp_path):
    model.resize_item_embeddings(make_items(15))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.recommend(HISTORIES) == model.recommend(HISTORIES) and len(loaded.items) == 15


def test_a_model_without_items(model, tmp_path):
    model.items = None
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.items is None and not info["missing_keys"]
    torch.testing.assert_close(loaded(INPUT_IDS).logits, model.eval()(INPUT_IDS).logits)


def test_a_folder_of_two_models(model, tmp_path):
    model.save_pretrained(tmp_path)
    make_items(9).save(tmp_path / "items.json")
    with pytest.raises(ValueError, match="holds 9 items, but the model 12; the folder is mixed"):
        AutoModel.from_pretrained(tmp_path)


def test_items_of_another_model_of_the_same_size(model, tmp_path):
    model.save_pretrained(tmp_path)
    type(model.items)(model.items.item_ids[::-1]).save(tmp_path / "items.json")
    with pytest.raises(ValueError, match="items of fingerprint .* but the model was saved with those of .* is mixed"):
        AutoModel.from_pretrained(tmp_path)


def test_items_that_are_missing(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "items.json").unlink()
    with pytest.raises(ValueError, match="has no items.json, but the model was saved with items"):
        AutoModel.from_pretrained(tmp_path)
    model.items = None
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).items is None
    (tmp_path / "items.parquet").write_text("")
    with pytest.raises(ValueError, match="has no items.json.*older models have items.parquet"):
        AutoModel.from_pretrained(tmp_path)


def test_only_the_main_process_writes_items(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "items.json").exists()
