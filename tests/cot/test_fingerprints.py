"""What changes a fingerprint, and what does not."""

from __future__ import annotations

import copy

import torch
from datasets import Dataset
from transformers import AutoModel, AutoTokenizer

from hf_latentrec.cot import model_fingerprint, text_fingerprint, tokenizer_fingerprint


def test_of_a_model(tiny, tmp_path):
    found = model_fingerprint(tiny.model)
    tiny.model.save_pretrained(tmp_path)
    assert model_fingerprint(AutoModel.from_pretrained(tmp_path)) == found
    changed = copy.deepcopy(tiny.model)
    with torch.no_grad():
        changed.model.norm.weight[3] += 1e-4
    assert model_fingerprint(changed) != found
    assert model_fingerprint(copy.deepcopy(tiny.model).to(torch.bfloat16)) != found


def test_of_a_model_only_the_backbone_counts(tiny):
    found = model_fingerprint(tiny.model)
    changed = copy.deepcopy(tiny.model)
    changed.lm_head.weight = torch.nn.Parameter(changed.lm_head.weight + 1)
    assert model_fingerprint(changed) == found


def test_of_a_tokenizer(tiny, tmp_path):
    tokenizer = tiny.processor.tokenizer
    found = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == found
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_fingerprint(again) == found
    again.add_tokens(["<a_999>"])
    assert tokenizer_fingerprint(again) != found


def test_of_a_text():
    base = [("u", "a", ["One.", "Two."]), ("v", None, ["One."])]

    def of(rows):
        names = ("user_id", "target", "segments")
        return text_fingerprint(Dataset.from_list([dict(zip(names, row, strict=True)) for row in rows]))

    found = of(base)
    assert of(base[::-1]) == found
    for other in (
        [("u", "a", ["One.Two."]), base[1]],
        [("u", "a", ["Two.", "One."]), base[1]],
        [("w", "a", ["One.", "Two."]), base[1]],
        [("u", None, ["One.", "Two."]), base[1]],
        [("u", "a", ["One.", "Two."]), ("v", "-", ["One."])],
        [*base, base[1]],
    ):
        assert of(other) != found
