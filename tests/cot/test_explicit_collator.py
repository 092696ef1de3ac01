"""Text before the answer as labels, against labels put together by hand."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.cot import ExplicitCoTCollator
from tests.tiny import make_tiny_recommender


@pytest.fixture(scope="module")
def tiny():
    return make_tiny_recommender()


def test_labels_are_text_marker_and_answer(tiny):
    processor, examples = tiny.processor, tiny.splits["test"]
    first, second = examples[0], examples[1]
    code = processor.tokenizer.convert_ids_to_tokens(int(processor.catalog.answer_tokens(0)[0]))
    batch = ExplicitCoTCollator(processor, max_cot_tokens=4)(
        [{**first, "cot": "abc"}, {**second, "cot": f"{code} <|end_thought|>"}]
    )
    answers = [
        row.tolist() for row in processor.answer_ids(processor.catalog.rows([first["target"], second["target"]]))
    ]
    end = processor.tokenizer.convert_tokens_to_ids("<|end_thought|>")
    spell = processor.tokenizer.convert_tokens_to_ids
    assert batch["labels"].tolist() == [
        [*spell(list("abc")), end, *answers[0], -100],
        [spell(code), *spell(["Ġ", "<", "|"]), end, *answers[1]],  # codes are tokens, markers text; cut
    ]
    assert torch.equal(batch["input_ids"], processor([first["history"], second["history"]])["input_ids"])
    assert batch["user_ids"] == [first["user_id"], second["user_id"]]


def test_an_example_without_text_is_named(tiny):
    example = tiny.splits["test"][0]
    with pytest.raises(ValueError, match=f"{example['user_id']}.*no text in the column 'cot'"):
        ExplicitCoTCollator(tiny.processor)([{**example, "cot": ""}])
