"""LARES on the layers of FMLP-Rec, BSARec and TedRec."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_latentrec import ItemTable, LaresConfig, LaresForSequentialRecommendation
from hf_latentrec.models.lares import recommending
from hf_latentrec.models.lares.frequency_layers import FilterLayer, FrequencyAttentionLayer, to_window, window_mask
from hf_latentrec.models.lares.sequence_encoders import TransformerLayer


LAYER = {"fmlp": FilterLayer, "bsarec": FrequencyAttentionLayer, "tedrec": TransformerLayer}
BATCH = torch.tensor([[4, 8, 2, 0, 0, 0], [3, 0, 0, 0, 0, 0], [6, 5, 10, 1, 12, 9]])

every_backbone = pytest.mark.parametrize("backbone", sorted(LAYER))


def make_model(backbone: str) -> LaresForSequentialRecommendation:
    config = LaresConfig(
        num_items=12, max_history=6, hidden_size=16, intermediate_size=32, backbone=backbone, num_pre_layers=1,
        num_core_layers=1, mean_steps=2, text_size=5, initializer_range=0.2,
    )  # fmt: skip
    items = ItemTable([f"i{row}" for row in range(12)], popularity=[1] * 11 + [0])
    model = LaresForSequentialRecommendation(config, items=items)
    if backbone == "tedrec":
        model.model.fusion.set_texts(torch.randn(12, 5), items.is_cold)
    return model.eval()


@every_backbone
def test_every_step_is_a_pass_over_the_window(backbone):
    model = make_model(backbone)
    encoder, ids = model.model, to_window(BATCH, 6)
    start = torch.randn(3, 6, 16)
    states = encoder(BATCH, num_steps=3, initial_state=start)
    embedded = encoder.embeddings.items(ids)
    if backbone == "tedrec":
        embedded = encoder.fusion(ids, encoder.embeddings.items.weight)
    embedded = encoder.embeddings.norm(embedded + encoder.embeddings.positions.weight)
    (pre,), (core,) = encoder.pre_block.layers, encoder.core_block.layers
    assert type(pre) is type(core) is LAYER[backbone]
    hidden, state = pre(embedded, window_mask(ids)), start
    for step in range(3):
        state = core(encoder.norm((state + hidden) / 2), window_mask(ids))
        torch.testing.assert_close(states[step], state[:, -1:].expand(-1, 6, -1))


@every_backbone
def test_a_row_depends_neither_on_its_batch_nor_on_its_padding(backbone):
    model = make_model(backbone)
    states = model.encode(BATCH)
    for row, length in enumerate((3, 1, 6)):
        alone = model.encode(BATCH[row : row + 1, :length])
        torch.testing.assert_close(states[row, 0], alone[0, -1], atol=1e-5, rtol=1e-4)
    assert states.std(0).max() > 1e-2


@every_backbone
@pytest.mark.parametrize("tokens", [1, 12, 2048])
def test_histories_are_encoded_in_parts(backbone, tokens, monkeypatch):
    model = make_model(backbone)
    monkeypatch.setattr(recommending, "ENCODED_TOKENS", tokens)
    histories = [[f"i{row - 1}" for row in rows if row] for rows in BATCH.tolist()]
    torch.testing.assert_close(model.user_states(histories), model.encode(BATCH)[:, -1])


@every_backbone
def test_saved_and_loaded(backbone, tmp_path):
    model, histories = make_model(backbone), [["i3", "i7"], ["i1"]]
    model.save_pretrained(tmp_path)
    loaded = LaresForSequentialRecommendation.from_pretrained(tmp_path)
    assert loaded.recommend(histories, k=12) == model.recommend(histories, k=12)
    assert not model.causal
    with pytest.raises(ValueError, match="one sequence per row"):
        model.encode(BATCH, torch.zeros_like(BATCH))


def test_tedrec_recommends_cold_items_and_takes_up_new_ones():
    model, history = make_model("tedrec"), [["i3", "i7"]]
    assert model.rank_targets(history, ["i11"])[0] > 0
    assert make_model("fmlp").rank_targets(history, ["i11"])[0] == 0
    grown = ItemTable([f"i{row}" for row in range(13)])
    with pytest.raises(ValueError, match="texts are missing"):
        model.resize_item_embeddings(grown)
    model.resize_item_embeddings(grown, torch.cat([model.model.fusion.texts[1:], torch.randn(1, 5)]))
    assert model.rank_targets(history, ["i12"])[0] > 0
    assert np.array_equal(model.items.is_cold, [False] * 11 + [True] * 2)


def test_tedrec_makes_the_vectors_of_a_block_alone():
    model, sizes = make_model("tedrec"), []
    states = torch.randn(3, 16)
    whole = model.score(states)
    model.model.fusion.item_projection.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    for block in (slice(0, 5), slice(5, 12)):
        torch.testing.assert_close(model.score(states, block), whole[:, block])
    assert sizes == [5, 7]


def test_tedrec_has_cross_entropy_alone():
    with pytest.raises(ValueError, match="backbone 'tedrec'"):
        LaresConfig(backbone="tedrec", objective="bce")
