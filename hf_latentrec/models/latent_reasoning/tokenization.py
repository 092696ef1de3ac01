"""Tokenizers of recommenders: a small one from scratch, item and thought tokens for any, plain text for titles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast


PAD_TOKEN = "<|pad|>"
EOS_TOKEN = "<|endoftext|>"
START_THOUGHT_TOKEN = "<|start_thought|>"
THOUGHT_TOKEN = "<|thought|>"
END_THOUGHT_TOKEN = "<|end_thought|>"
SPECIAL_TOKENS = (PAD_TOKEN, EOS_TOKEN)
THOUGHT_TOKENS = (START_THOUGHT_TOKEN, THOUGHT_TOKEN, END_THOUGHT_TOKEN)


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """
    A tokenizer that needs no training data, for small models from scratch: one token per UTF-8 byte.

    Returns:
        `PreTrainedTokenizerFast`: 256 byte symbols, then `<|pad|>` (256) and `<|endoftext|>` (257); no BOS.

    Example:
        >>> tokenizer = build_byte_tokenizer()
        >>> len(tokenizer), tokenizer.decode(tokenizer("Café").input_ids)
        (258, 'Café')
    """
    return _with_special_tokens(_byte_level_backend())


def build_bpe_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """
    A byte-level BPE trained on the catalog's own titles, so that a small model from scratch reads them in few tokens.

    Same texts in the same order, same tokenizer. Any text can be encoded, whether or not it was trained on.

    Args:
        texts (iterable of `str`): Titles to learn from.
        vocab_size (`int`): Tokens at most, the two special ones included; fewer where no pair of symbols is left that
            occurs twice.

    Returns:
        `PreTrainedTokenizerFast`: the 256 byte symbols of [`build_byte_tokenizer`] under the same ids, then the merged
        ones, then `<|pad|>` and `<|endoftext|>`; no BOS.

    Raises:
        `ValueError`: no text, or a vocabulary too small for the bytes.

    Example:
        >>> tokenizer = build_bpe_tokenizer(["desk lamp", "desk fan"], vocab_size=262)
        >>> tokenizer.tokenize("desk mug")
        ['desk', 'Ġ', 'm', 'u', 'g']
    """
    smallest = len(_byte_symbols()) + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(
            f"build_bpe_tokenizer: vocab_size is {vocab_size}, but the bytes and the special tokens alone are "
            f"{smallest}; pass more, or use build_byte_tokenizer()"
        )
    texts = list(texts)
    if not any(texts):
        raise ValueError("build_bpe_tokenizer: there is no text to learn from; pass the titles of the catalog")
    backend = _byte_level_backend()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=_byte_symbols(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _with_special_tokens(backend)


def add_item_tokens(
    tokenizer: PreTrainedTokenizerFast,
    semantic_ids: Iterable[Sequence[str]] = (),
    levels: Sequence[Sequence[str]] = (),
) -> range:
    """
    Adds the tokens of semantic IDs, and the three thought markers after them, to a tokenizer, in place.

    Code tokens are plain added tokens (special ones would vanish from decoded text), ordered by level, then by number,
    as one compact range: an embedding or a projection of them is a slice. A second call with the same codes changes
    nothing. The model's embeddings are the caller's to resize.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): The tokenizer to extend.
        semantic_ids (iterable of `list[str]`, *optional*): Code tokens of every item, level by level. Without any,
            only the markers are added.
        levels (`list[list[str]]`, *optional*): All tokens of each level, those that no item has yet included, so that
            items can be added to a trained model ([`LatentRecProcessor.with_items`]). Without it, those in use.

    Returns:
        `range`: ids of the code tokens.

    Raises:
        `ValueError`: the tokenizer already holds some of the tokens elsewhere, so that they would be no range; or an
            item has a token that is not one of its level.

    Example:
        >>> tokenizer = build_byte_tokenizer()
        >>> add_item_tokens(tokenizer, [["<a_10>", "<b_0>"], ["<a_9>", "<b_0>"]])
        range(258, 261)
        >>> tokenizer.convert_ids_to_tokens([258, 259, 260, 261])
        ['<a_9>', '<a_10>', '<b_0>', '<|start_thought|>']
    """
    level_of = {token: level for level, tokens in enumerate(levels) for token in tokens}
    for codes in semantic_ids:
        for level, token in enumerate(codes):
            if levels and level_of.get(token) != level:
                raise ValueError(
                    f"add_item_tokens: the codes {list(codes)} hold {token!r} at level {level}, which is none of that "
                    "level's tokens; take codes and levels from the same semantic IDs"
                )
            level_of[token] = min(level, level_of.get(token, level))
    codes = sorted(level_of, key=lambda token: (level_of[token], _number(token), token))

    vocabulary = tokenizer.get_vocab()
    known = [vocabulary[token] for token in codes if token in vocabulary]
    if known and known != list(range(known[0], known[0] + len(codes))):
        raise ValueError(
            f"add_item_tokens: the tokenizer holds {len(known)} of the {len(codes)} code tokens already, from id "
            f"{min(known)} to {max(known)}, so they cannot be one range; start from a tokenizer without item tokens"
        )
    first = known[0] if known else len(tokenizer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in codes])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in THOUGHT_TOKENS], True)
    return range(first, first + len(codes))


def thought_token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """
    Ids of the thought markers, under the names that model configurations use.

    Returns:
        `dict`: `start_thought_token_id`, `thought_token_id`, `end_thought_token_id`; None for what was not added.
    """
    names = ("start_thought_token_id", "thought_token_id", "end_thought_token_id")
    added = tokenizer.added_tokens_encoder
    return {name: added.get(token) for name, token in zip(names, THOUGHT_TOKENS, strict=True)}


def encode_plain_text(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """
    Token ids of texts in which nothing is an added or special token, so that no title can steer the model.

    `split_special_tokens=True` would still match plain added tokens, such as the codes of other items; therefore the
    tokenizer's model runs here without its added vocabulary.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): A tokenizer with a `tokenizers` backend.
        texts (`list[str]`): Texts.

    Returns:
        `list[list[int]]`: ids, without special tokens before or after.

    Example:
        >>> tokenizer = build_byte_tokenizer()
        >>> len(encode_plain_text(tokenizer, ["<|endoftext|>"])[0])
        13
    """
    backend = tokenizer.backend_tokenizer
    plain = Tokenizer(backend.model)
    plain.normalizer, plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    return [encoding.ids for encoding in plain.encode_batch(list(texts), add_special_tokens=False)]


def _byte_symbols() -> list[str]:
    """The printable characters that stand for the 256 bytes."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _byte_level_backend() -> Tokenizer:
    """One token per UTF-8 byte, without special tokens."""
    backend = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(_byte_symbols())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_special_tokens(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD_TOKEN, eos_token=EOS_TOKEN, clean_up_tokenization_spaces=False
    )


def _number(token: str) -> int:
    """The number in a code token (`<b_122>` -> 122), so that 9 stands before 10."""
    match = re.search(r"\d+", token)
    return int(match.group()) if match else -1


__all__ = [
    "END_THOUGHT_TOKEN",
    "START_THOUGHT_TOKEN",
    "THOUGHT_TOKEN",
    "add_item_tokens",
    "build_bpe_tokenizer",
    "build_byte_tokenizer",
    "encode_plain_text",
    "thought_token_ids",
]
