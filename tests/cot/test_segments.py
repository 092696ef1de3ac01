"""Segments, against slow loops."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from datasets import Dataset

from hf_latentrec.cot import load_sentence_encoder, segment_cot, split_sentences


def make(*texts):
    rows = [{"user_id": f"u{row}", "target": None if row == 1 else "a", "cot": text} for row, text in enumerate(texts)]
    return Dataset.from_list(rows)


def random_texts(seed, num_texts=40):
    rng = np.random.default_rng(seed)
    return [" ".join(f"Sentence {rng.integers(30)}." for _ in range(rng.integers(1, 15))) for _ in range(num_texts)]


@pytest.mark.parametrize("max_segments", [1, 3, 8, 20])
def test_sentences_are_joined_evenly(max_segments):
    texts = random_texts(0)
    segments = segment_cot(make(*texts), max_segments=max_segments)
    assert segments["user_id"] == [f"u{row}" for row in range(len(texts))] and segments["target"][:3] == [
        "a",
        None,
        "a",
    ]
    for text, found in zip(texts, segments["segments"], strict=True):
        sentences = split_sentences(text)
        count = min(len(sentences), max_segments)
        bounds = [part * len(sentences) // count for part in range(count + 1)]
        assert found == [" ".join(sentences[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def fake_encoder(texts):
    """A direction per sentence, of any length; `Sentence 0.` has none."""
    numbers = np.array([int(text.split()[1].rstrip(".")) for text in texts])
    return np.stack([np.cos(numbers), np.sin(numbers), numbers % 3], axis=1) * numbers[:, None]


def slow_cut(text, max_segments, min_similarity):
    sentences = split_sentences(text)
    embeddings = fake_encoder(sentences)
    cuts = []
    for place in range(1, len(sentences)):
        a, b = embeddings[place - 1], embeddings[place]
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        similarity = np.float32(a @ b / norm if norm else 0.0)
        if similarity < min_similarity:
            cuts.append((round(float(similarity), 5), place))
    kept = sorted(place for _, place in sorted(cuts)[: max_segments - 1])
    return [" ".join(sentences[a:b]) for a, b in zip([0, *kept], [*kept, None], strict=True)]


@pytest.mark.parametrize(("max_segments", "min_similarity"), [(1, 0.5), (3, 0.5), (8, 0.0), (8, 0.9), (30, 0.7)])
def test_cuts_where_neighbours_are_least_alike(max_segments, min_similarity):
    texts = random_texts(1)
    segments = segment_cot(make(*texts), fake_encoder, max_segments=max_segments, min_similarity=min_similarity)
    assert segments["segments"] == [slow_cut(text, max_segments, min_similarity) for text in texts]


def test_equal_sentences_are_encoded_once():
    asked = []
    segment_cot(
        make("Sentence 1. Sentence 2.", "Sentence 2. Sentence 1."), lambda t: asked.extend(t) or fake_encoder(t)
    )
    assert asked == ["Sentence 1.", "Sentence 2."]


def test_endless_text_is_bounded_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        (row,) = segment_cot(make("Again and again. " * 10_000), max_characters=170)["segments"]
    assert len(row) == 8 and sum(map(len, row)) < 180 and "1 text(s) are longer than 170" in caplog.text


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("One.", {"max_segments": 0}, "max_segments=0"),
        ("One.", {"min_similarity": 2}, "min_similarity=2"),
        ("** **", {}, r"row 0: the text of user 'u0' holds no sentence \(1 such"),
        ("One.", {"encoder": lambda texts: np.zeros(3)}, r"returned \(3,\) for 1 sentences"),
        ("One.", {"encoder": lambda texts: np.full((1, 2), np.nan)}, "not finite"),
    ],
)
def test_bad_input(text, settings, message):
    with pytest.raises(ValueError, match=message):
        segment_cot(make(text), **settings)


def test_a_sentence_transformers_folder(tmp_path):
    """The real class loads a folder, and its embeddings cut text."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs hf_latentrec[cot]")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *(f"word{n}" for n in range(20))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    # Of a plain transformers folder the class makes a model with mean pooling.
    sentence_transformers.SentenceTransformer(str(tmp_path / "bert"), device="cpu").save(str(tmp_path / "st"))

    encoder = load_sentence_encoder(str(tmp_path / "st"), device="cpu")
    assert np.asarray(encoder(["word1", "word2"])).shape == (2, 16)
    (row,) = segment_cot(make("Word1 word2. Word1 word2. Word9."), encoder, min_similarity=0.9999)["segments"]
    assert row[0].startswith("Word1 word2. Word1 word2.")


def test_without_sentence_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_latentrec\[cot\]'"):
        load_sentence_encoder("any")
