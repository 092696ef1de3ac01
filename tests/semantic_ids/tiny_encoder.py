"""A sentence-transformers model of a few kilobytes, made offline."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


HIDDEN_SIZE = 16
MAX_LENGTH = 64
NUM_WORDS = 40


def make_encoder(folder: Path, seed: int = 0) -> Path:
    """A folder that `SentenceTransformer` opens; it knows `word0` to `word39` and reads 64 tokens."""
    from sentence_transformers import SentenceTransformer

    words = ["[PAD]", "[UNK]", *(f"word{number}" for number in range(NUM_WORDS))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=MAX_LENGTH
    )
    sizes = {
        "hidden_size": HIDDEN_SIZE, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "max_position_embeddings": MAX_LENGTH,
    }  # fmt: skip
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    # Of a plain transformers folder the class makes a model with mean pooling.
    SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "encoder"))
    return folder / "encoder"
