"""Explanations against loops over tokens, for all reasoners; the backbone's attention against its own formula."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from hf_latentrec import ItemCatalog, LatentRecProcessor
from hf_latentrec.evaluation import Explanation, explain
from hf_latentrec.models.latent_reasoning.tokenization import build_byte_tokenizer


sys.path.append(str(Path(__file__).parents[1]))

from tiny import make_tiny_recommender  # noqa: E402


HISTORY = ["i0007", "i0003", "i0021", "i0003"]
MODELS = {
    "flr": {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 3, "num_iterations": 2},
    "flr, one factor": {"reasoner": "factorized_attention", "num_thoughts": 1, "num_factors": 1},
    "flr, markers": {"reasoner": "factorized_attention", "num_thoughts": 1, "thought_markers": True},
    "latentr3": {"reasoner": "latent_attention", "num_thoughts": 1},
    "latentr3, three thoughts": {"reasoner": "latent_attention", "num_thoughts": 3},
    "lasar": {"reasoner": "feedback", "num_thoughts": 3},
    "coconut": {"reasoner": "feedback", "num_thoughts": 2, "thought_markers": False},
}


def make_model(name, text="User: {history}!", separator=", "):
    """A tiny model whose prompt has text around and between the items."""
    tiny = make_tiny_recommender(num_thoughts=MODELS[name]["num_thoughts"], reasoner_config=MODELS[name])
    old = tiny.processor
    processor = LatentRecProcessor(
        old.tokenizer, old.catalog, old.item_trie, prompt_template=text, item_separator=separator, max_history=3
    )
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.mul_(3)  # attention that is not flat
    return tiny.model.eval(), processor


def token_places(processor, history):
    """For every token of the prompt, the place of its item, or None: piece by piece."""

    def size(text):
        return len(processor.tokenizer(text, add_special_tokens=False).input_ids)

    before, after = processor.prompt_template.split("{history}")
    places = [None] * size(before)
    for place, item_id in enumerate(history):
        row = processor.catalog.item_ids.index(item_id)
        places += [place] * (
            (size(processor.item_separator) if place else 0) + len(processor.catalog.answer_tokens(row))
        )
    return places + [None] * size(after)


def slow_backbone_attention(model, input_ids):
    """Last layer, from each thought's slot, from what the layer read while the model was thinking: softmax of q k."""
    layer, read = model.model.layers[-1].self_attn, []
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["hidden_states"][0]), with_kwargs=True
    )
    model(input_ids)
    handle.remove()
    markers = model.config.reasoner_config.thought_markers
    hidden_SD = torch.cat(read)[: len(input_ids[0]) + markers + model.config.num_thoughts]  # what follows are markers
    S, size = len(hidden_SD), layer.head_dim
    query = layer.q_norm(layer.q_proj(hidden_SD).view(1, S, -1, size)).transpose(1, 2)
    key = layer.k_norm(layer.k_proj(hidden_SD).view(1, S, -1, size)).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *model.model.rotary_emb(hidden_SD, torch.arange(S)[None]))
    rows = []
    for slot in range(S - model.config.num_thoughts, S):
        heads = [
            torch.stack([query[0, h, slot] @ key[0, h, s] / size**0.5 for s in range(slot + 1)]).softmax(0)
            for h in range(query.shape[1])
        ]
        rows.append(sum(heads) / len(heads))
    return rows


def slow_rows(model, processor, history):
    """Attention of every iteration and row, token by token."""
    inputs = processor([history])
    output = model(**inputs)
    if output.factor_attentions is None:
        return [slow_backbone_attention(model, inputs["input_ids"])]
    if output.factors is None:
        return [[attention[0, 0] for attention in output.factor_attentions]]
    return [list(attention[0]) for attention in output.factor_attentions]


@pytest.mark.parametrize("history", [HISTORY[:1], HISTORY[:2], HISTORY])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_attention_is_summed_over_the_tokens_of_items(name, history):
    model, processor = make_model(name)
    explanation = explain(model, processor, history)
    kept = history[-3:]
    assert explanation.item_ids == kept
    assert explanation.titles == [processor.catalog[row]["title"] for row in processor.catalog.rows(kept)]
    places = token_places(processor, kept)
    for iteration, rows in enumerate(slow_rows(model, processor, kept)):
        for row, attention in enumerate(rows):
            expected = [0.0] * len(kept)
            elsewhere = 0.0
            for slot, weight in enumerate(attention.tolist()):
                if slot < len(places) and places[slot] is not None:
                    expected[places[slot]] += weight
                else:
                    elsewhere += weight
            assert explanation.attentions[iteration, row] == pytest.approx(expected, abs=1e-5)
            assert explanation.elsewhere[iteration, row] == pytest.approx(elsewhere, abs=1e-5)
    assert explanation.attentions.sum(-1) + explanation.elsewhere == pytest.approx(1.0, abs=1e-5)
    assert (explanation.elsewhere > 1e-4).all()  # there is text around the items
    assert len(explanation.attentions) == (2 if name.startswith("flr") else 1)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_factors_and_thoughts_are_compared(name):
    model, processor = make_model(name)
    explanation, output = explain(model, processor, HISTORY), model(**processor([HISTORY]))
    settings = model.config.reasoner_config
    if settings.reasoner == "factorized_attention":
        vectors = output.factors[-1][0]
        assert explanation.rows == [f"factor {i + 1}" for i in range(settings.num_factors)]
        assert explanation.gates == pytest.approx(torch.cat(output.factor_gates).numpy(), abs=1e-6)
        assert explanation.gates.sum(-1) == pytest.approx(1.0, abs=1e-5)
    else:
        vectors = output.thought_embeds[0]
        assert explanation.rows == [f"thought {i + 1}" for i in range(settings.num_thoughts)]
        assert explanation.gates is None
    cosines = [[torch.cosine_similarity(x, y, dim=0).item() for y in vectors] for x in vectors]
    assert explanation.correlation == pytest.approx(np.array(cosines), abs=1e-5)
    if len(vectors) == 1:
        assert explanation.mean_abs_correlation is None and explanation.disentanglement_score == 0.0
    else:
        others = [abs(cosines[i][j]) for i in range(len(vectors)) for j in range(i)]
        assert explanation.mean_abs_correlation == pytest.approx(np.mean(others), abs=1e-5)
        assert 0.0 < explanation.disentanglement_score < 1.0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(implementation):
    model, processor = make_model("lasar")
    model.set_attn_implementation(implementation)
    model.train()
    first = explain(model, processor, HISTORY)
    assert model.training and model.config._attn_implementation == implementation
    assert all(layer.self_attn.config._attn_implementation == implementation for layer in model.model.layers)
    assert first.attentions == pytest.approx(explain(model.eval(), processor, HISTORY).attentions)


def test_one_item_has_no_diversity():
    explanation = explain(*make_model("flr"), HISTORY[:1])
    assert explanation.disentanglement_score == 0.0 and explanation.mean_abs_correlation > 0.0


def test_half_precision_is_explained_in_full():
    for name in ("flr", "lasar"):
        model, processor = make_model(name)
        explanation = explain(model.to(torch.bfloat16), processor, HISTORY)
        assert explanation.attentions.dtype == explanation.correlation.dtype == np.float32
        assert explanation.attentions.sum(-1) + explanation.elsewhere == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["flr", "latentr3"])
def test_saved_as_json(name, tmp_path):
    explanation = explain(*make_model(name), HISTORY)
    path = explanation.save(tmp_path / "new")
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert path.name == "explanation.json" and data == explanation.to_dict()
    assert data["item_ids"] == HISTORY[-3:] and data["rows"] == explanation.rows
    assert np.array(data["attentions"]).shape == (len(explanation.attentions), len(data["rows"]), 3)


def test_items_without_titles_go_by_their_ids():
    tokenizer = build_byte_tokenizer()
    catalog = ItemCatalog.from_items(
        [{"item_id": "B1", "title": "Sóap"}, {"item_id": "B2", "title": "Towel"}], tokenizer, item_tokenization="title"
    )
    assert LatentRecProcessor(tokenizer, catalog).token_items(["B2", "B1"]).max() == 1
    nothing = np.zeros((1, 1, 2))
    explanation = Explanation(
        "feedback", ["thought 1"], ["B1", "B2"], [None, "Towel"], nothing, nothing[0], None, np.ones((1, 1)), None, 0.0
    )
    assert explanation.labels == ["B1", "Towel"]


def test_what_cannot_be_explained_is_named():
    model, processor = make_model("flr")
    for history in ([], "i0007"):
        with pytest.raises(ValueError, match="explain: history is .*pass a list of item ids"):
            explain(model, processor, history)
    with pytest.raises(ValueError, match="item 1: item_id 'i9' is not in the catalog .*closest:"):
        explain(model, processor, ["i0007", "i9"])
    tiny = make_tiny_recommender()
    with pytest.raises(ValueError, match="num_thoughts is 0, so there is no thought"):
        explain(tiny.model, tiny.processor, HISTORY)
