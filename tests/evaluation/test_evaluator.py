"""Ranks of the evaluator against scoring every item of the catalog, one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Qwen2Config, Qwen2ForCausalLM

from hf_latentrec import ItemCatalog, LatentReasonerConfig, LatentRecProcessor, Qwen2ForLatentReasoningRec
from hf_latentrec.evaluation import RecEvaluator
from hf_latentrec.models.latent_reasoning.tokenization import build_byte_tokenizer
from tests.tiny import make_tiny_recommender


@torch.no_grad()
def slow_rank(model, processor, history, target, exclude_seen=False, normalize="catalog", length_penalty=0.0):
    """1-based rank of the target among all items, scored one by one with a plain forward."""
    inputs = processor([history])
    trie = processor.item_trie if normalize == "catalog" else None
    scores = {}
    for row, item_id in enumerate(processor.catalog.item_ids):
        if exclude_seen and item_id in history:
            continue
        answer = torch.from_numpy(processor.catalog.answer_tokens(row)).long()[None]
        total = model(**inputs, labels=answer, item_trie=trie).logps.sum().item()
        scores[item_id] = total / answer.shape[1] ** length_penalty
    return sorted(scores, key=scores.get, reverse=True).index(target) + 1


TITLES = ["Soap", "Soap bar", "Sun cream", "Shampoo for long hair", "Comb", "Brush & comb", "Oil", "Nail file", "Tea"]
TITLE_EXAMPLES = Dataset.from_list(
    [
        {"user_id": f"u{user}", "history": [f"B{i}" for i in history], "target": f"B{target}"}
        for user, (history, target) in enumerate([([0, 3], 2), ([4], 7), ([8, 1, 0], 5), ([6, 2], 3), ([5, 7], 1)])
    ]
)


ONE_THOUGHT = LatentReasonerConfig(reasoner="latent_attention", num_thoughts=1)


@pytest.fixture
def title_processor():
    tokenizer = build_byte_tokenizer()
    items = [{"item_id": f"B{row}", "title": title} for row, title in enumerate(TITLES)]
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
    return LatentRecProcessor(tokenizer, catalog, prompt_template="Liked: {history}\nNext: ")


@pytest.fixture
def plain_folder(tmp_path):
    """A checkpoint as transformers saves it: a causal LM that knows nothing of recommendation."""

    def save(**settings):
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=258,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            **settings,
        )
        Qwen2ForCausalLM(config).save_pretrained(tmp_path)
        return tmp_path

    return save


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_equal_scoring_the_whole_catalog(exclude_seen):
    model, processor, splits = make_tiny_recommender(num_thoughts=1, initializer_range=0.2)
    model.eval()
    examples = splits["test"].select(range(6))
    evaluator = RecEvaluator(processor, examples, num_beams=len(processor.catalog), batch_size=4)
    result = evaluator.evaluate(model, exclude_seen)
    expected = [slow_rank(model, processor, row["history"], row["target"], exclude_seen) for row in examples]
    assert result.ranks.tolist() == expected
    assert result.user_ids == examples["user_id"][:]
    assert result.metrics["HR@10"] == pytest.approx(sum(rank <= 10 for rank in expected) / 6)


def slow_order(model, processor, history, exclude_seen):
    """Item ids by what plain beam search over all of them says, one user alone."""
    inputs = processor([history], exclude_seen=exclude_seen)
    output = model.generate(**inputs, item_trie=processor.item_trie, num_beams=len(processor.catalog))
    return [item["item_id"] for item in processor.post_process_recommendations(output)[0]]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_recommendations_are_kept_and_a_title_may_match(exclude_seen):
    model, processor, splits = make_tiny_recommender(num_thoughts=1, initializer_range=0.2)
    model.eval()
    catalog, examples = processor.catalog, splits["test"].select(range(10))
    catalog.titles = [None if row % 4 == 0 else f"title {row % 7}" for row in range(len(catalog))]
    title_of = dict(zip(catalog.item_ids, catalog.titles, strict=True))
    settings = {"num_beams": len(catalog), "batch_size": 4, "top_k": 61}
    by_title = RecEvaluator(processor, examples, match="title", **settings).evaluate(model, exclude_seen)
    by_item = RecEvaluator(processor, examples, **settings).evaluate(model, exclude_seen)
    expected_titles, expected_items = [], []
    for row, example in enumerate(examples):
        order = slow_order(model, processor, example["history"], exclude_seen)
        kept = [catalog.item_ids[item] for item in by_item.recommendations[row] if item >= 0]
        assert kept == order and by_item.recommendations[row].tolist()[len(order) :] == [-1] * (61 - len(order))
        title = title_of[example["target"]]
        same = [item == example["target"] or (title is not None and title_of[item] == title) for item in order]
        expected_titles.append(same.index(True) + 1)
        expected_items.append(order.index(example["target"]) + 1)
    assert by_title.ranks.tolist() == expected_titles and by_item.ranks.tolist() == expected_items
    assert (by_title.ranks < by_item.ranks).any()
    assert any(title_of[target] is None for target in examples["target"])
    assert (by_title.recommendations == by_item.recommendations).all()


def test_recommendations_take_no_second_search(monkeypatch):
    model, processor, splits = make_tiny_recommender()
    generate, calls = model.generate, []
    monkeypatch.setattr(model, "generate", lambda **given: calls.append(given) or generate(**given))
    examples = splits["test"].select(range(6))
    result = RecEvaluator(processor, examples, num_beams=4, batch_size=3, top_k=5).evaluate(model)
    assert len(calls) == 2 and result.recommendations.shape == (6, 5)
    assert (result.recommendations[:, :4] >= 0).all() and (result.recommendations[:, 4] == -1).all()
    assert RecEvaluator(processor, examples, num_beams=4).evaluate(model).recommendations is None
    few = RecEvaluator(processor, examples, num_beams=4, top_k=3).evaluate(model).recommendations
    assert few.tolist() == result.recommendations[:, :3].tolist()


def test_titles_are_matched_only_where_there_are_some():
    model, processor, splits = make_tiny_recommender()
    processor.catalog.titles = [None] * len(processor.catalog)
    with pytest.raises(ValueError, match="none of the 60 items has a title"):
        RecEvaluator(processor, splits["test"], num_beams=5, match="title").evaluate(model)


def test_excluding_seen_items_ranks_no_lower_and_mode_is_restored():
    model, processor, splits = make_tiny_recommender()
    model.train()
    evaluator = RecEvaluator(processor, splits["test"], num_beams=len(processor.catalog))
    free, unseen = (evaluator.evaluate(model, exclude_seen).ranks for exclude_seen in (False, True))
    assert (unseen <= free).all() and (unseen < free).any() and (unseen > 0).all()
    assert model.training


def test_a_user_who_has_seen_everything_is_named():
    model, processor, splits = make_tiny_recommender()
    rows = splits["test"].select(range(3)).to_list()
    rows[1]["history"] = processor.catalog.item_ids + rows[1]["history"]
    rows[0]["history"] = rows[0]["history"] * len(processor.catalog)  # long, but of few items
    evaluator = RecEvaluator(processor, Dataset.from_list(rows), num_beams=5)
    model.train()
    with pytest.raises(ValueError, match=f"user_id '{rows[1]['user_id']}' \\(example 1\\) has seen all"):
        evaluator.evaluate(model, exclude_seen=True)
    assert model.training
    assert len(evaluator.evaluate(model).ranks) == 3


def test_each_user_has_the_depth_that_the_policy_chose_alone():
    model, processor, splits = make_tiny_recommender()
    settings = LatentReasonerConfig(num_thoughts=3, adaptive_depth=True)
    model = type(model)(type(model.config)(**{**model.config.to_dict(), "reasoner_config": settings})).eval()
    with torch.no_grad():  # a policy that tells users apart
        model.depth_policy.hidden_proj.weight.mul_(50)
        model.depth_policy.out_proj.weight.mul_(50)
    examples = splits["test"]
    result = RecEvaluator(processor, examples, num_beams=5, batch_size=7).evaluate(model)
    expected = [int(model(**processor([history])).depth_logits.argmax()) + 1 for history in examples["history"]]
    assert result.num_thoughts.tolist() == expected and len(set(expected)) > 1
    forced = RecEvaluator(processor, examples, num_beams=5, num_thoughts=2).evaluate(model)
    assert forced.num_thoughts.tolist() == [2] * len(examples)


def test_explicit_reasoning_ranks_after_the_text_that_is_written():
    model, processor, splits = make_tiny_recommender(initializer_range=0.3)
    model.eval()
    examples = splits["test"].select(range(5))
    settings = {"num_beams": len(processor.catalog), "decoder": "explicit_cot", "max_cot_tokens": 6}
    result = RecEvaluator(processor, examples, batch_size=2, **settings).evaluate(model)
    expected = []
    for row in examples:
        ids = processor([row["history"]])["input_ids"][0].tolist()
        for _ in range(6):
            with torch.no_grad():
                hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
                ids.append(int(model.lm_head(hidden).argmax()))
            if ids[-1] == model.config.end_thought_token_id:
                break
        else:
            ids.append(model.config.end_thought_token_id)
        scores = []
        for answer_row in range(len(processor.catalog)):
            answer = torch.from_numpy(processor.catalog.answer_tokens(answer_row)).long()[None]
            with torch.no_grad():
                scores.append(
                    float(model(torch.tensor([ids]), labels=answer, item_trie=processor.item_trie).logps.sum())
                )
        expected.append(
            1
            + sorted(range(len(scores)), key=lambda item: -scores[item]).index(
                int(processor.catalog.rows([row["target"]])[0])
            )
        )
    assert result.ranks.tolist() == expected
    plain = RecEvaluator(processor, examples, num_beams=len(processor.catalog)).evaluate(model)
    assert plain.ranks.tolist() != expected and plain.num_thoughts.tolist() == [0] * 5


def test_a_cutoff_above_the_size_of_the_catalog_is_an_error(plain_folder, title_processor):
    model = Qwen2ForLatentReasoningRec.from_pretrained(plain_folder())
    with pytest.raises(ValueError, match="the cutoff 10 is above the size of the catalog, 9 items"):
        RecEvaluator(title_processor, TITLE_EXAMPLES, ks=(5, 10)).evaluate(model)


def test_cutoffs_go_as_far_as_the_beams():
    _, processor, splits = make_tiny_recommender()
    for num_beams, ks in ((50, (5, 10, 20)), (10, (5, 10)), (3, (3,))):
        assert RecEvaluator(processor, splits["test"], num_beams=num_beams).ks == ks
    with pytest.raises(ValueError, match="ks holds 20, but num_beams is 10"):
        RecEvaluator(processor, splits["test"], num_beams=10, ks=(5, 20))


def test_no_examples_is_an_error():
    _, processor, splits = make_tiny_recommender()
    with pytest.raises(ValueError, match="no examples"):
        RecEvaluator(processor, splits["test"].select([]))


@pytest.mark.parametrize("tied", [False, True])
def test_a_plain_checkpoint_lacks_the_reasoner_alone(plain_folder, tied):
    folder = plain_folder(tie_word_embeddings=tied)
    _, info = Qwen2ForLatentReasoningRec.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    _, info = Qwen2ForLatentReasoningRec.from_pretrained(folder, reasoner_config=ONE_THOUGHT, output_loading_info=True)
    projections = {f"reasoner.{name}_proj.{kind}" for name in "qkv" for kind in ("weight", "bias")}
    assert set(info["missing_keys"]) == projections
    assert not info["unexpected_keys"] and not info["mismatched_keys"]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_zero_shot_prompting_needs_no_training(plain_folder, title_processor, length_penalty):
    """`Base`, decoded as BIGRec and as D³ do."""
    folder = plain_folder(eos_token_id=257)
    model = Qwen2ForLatentReasoningRec.from_pretrained(folder).eval()
    settings = {"normalize": "vocabulary", "length_penalty": length_penalty}
    ranks = RecEvaluator(title_processor, TITLE_EXAMPLES, num_beams=9, ks=(5,), **settings).evaluate(model).ranks
    expected = [slow_rank(model, title_processor, row["history"], row["target"], **settings) for row in TITLE_EXAMPLES]
    assert ranks.tolist() == expected
    other = {**settings, "length_penalty": 1.0 - length_penalty}
    assert (
        ranks.tolist()
        != RecEvaluator(title_processor, TITLE_EXAMPLES, 9, ks=(5,), **other).evaluate(model).ranks.tolist()
    )


def test_thinking_can_be_turned_off(plain_folder, title_processor):
    model = Qwen2ForLatentReasoningRec.from_pretrained(plain_folder(), reasoner_config=ONE_THOUGHT)
    base = Qwen2ForLatentReasoningRec.from_pretrained(plain_folder())

    def ranks(model, **settings):
        return (
            RecEvaluator(title_processor, TITLE_EXAMPLES, num_beams=9, ks=(5,), **settings)
            .evaluate(model)
            .ranks.tolist()
        )

    assert ranks(model, num_thoughts=0) == ranks(base) != ranks(model)
    assert ranks(model, num_thoughts=1) == ranks(model)
    assert model.config.num_thoughts == 1


@torch.no_grad()
def text_embedding(model, tokens):
    return model.model(torch.as_tensor(tokens, dtype=torch.long)[None]).last_hidden_state[0, -1]


@torch.no_grad()
def grounded_rank(model, processor, history, target):
    """Rank of the target by distance to what plain greedy decoding answers."""
    prompt, catalog, end = processor([history])["input_ids"], processor.catalog, processor.tokenizer.eos_token_id
    answer = []
    while len(answer) < processor.item_trie.max_depth:
        ids = torch.cat([prompt[0], torch.tensor(answer, dtype=torch.long)])
        token = int(model.lm_head(text_embedding(model, ids)).argmax())
        if token == end:
            break
        answer.append(token)
    query = text_embedding(model, answer or [end])
    distances = [
        (query - text_embedding(model, catalog.prompt_tokens(row))).norm().item() for row in range(len(catalog))
    ]
    return 1 + sorted(range(len(catalog)), key=distances.__getitem__).index(catalog.rows([target])[0])


def test_grounding_equals_distances_one_by_one(plain_folder, title_processor, monkeypatch):
    model = Qwen2ForLatentReasoningRec.from_pretrained(plain_folder()).eval()
    evaluator = RecEvaluator(title_processor, TITLE_EXAMPLES, num_beams=9, ks=(5,), batch_size=2, decoder="grounding")
    embed_items, calls = model.embed_items, []
    monkeypatch.setattr(model, "embed_items", lambda *args: calls.append(args) or embed_items(*args))
    ranks = evaluator.evaluate(model).ranks
    assert len(calls) == 1
    expected = [grounded_rank(model, title_processor, row["history"], row["target"]) for row in TITLE_EXAMPLES]
    assert ranks.tolist() == expected
    unseen = evaluator.evaluate(model, exclude_seen=True).ranks
    assert (unseen <= ranks).all() and (unseen < ranks).any()
    few = (
        RecEvaluator(title_processor, TITLE_EXAMPLES, num_beams=3, ks=(3,), decoder="grounding").evaluate(model).ranks
    )
    assert few.tolist() == np.where(ranks <= 3, ranks, 0).tolist()


def test_settings_that_a_decoder_does_not_have_are_named(title_processor):
    for settings, message in [
        ({"decoder": "beam"}, r"decoder is 'beam'; choose one of \('constrained', 'grounding', 'explicit_cot'\)"),
        ({"decoder": "explicit_cot", "max_cot_tokens": 0}, "max_cot_tokens is 0; pass a positive number"),
        ({"decoder": "grounding", "length_penalty": 1.0}, "length_penalty is 1.0, but grounding"),
        ({"match": "code"}, r"match is 'code'; choose one of \('item', 'title'\)"),
        ({"top_k": -1}, "top_k is -1"),
        ({"num_beams": 0, "ks": (0,)}, "num_beams is 0; pass a positive number"),
        ({"ks": (0, 10)}, "a cutoff is a whole number from 1, found 0"),
        ({"ks": ()}, "ks is empty; pass at least one cutoff"),
        ({"decoder": "grounding", "normalize": "vocabulary"}, "normalize is 'vocabulary', but grounding"),
    ]:
        with pytest.raises(ValueError, match=message):
            RecEvaluator(title_processor, TITLE_EXAMPLES, **settings)
