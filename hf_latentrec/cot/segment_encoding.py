"""Segments as a model reads them: their tokens, and the state at the last one.

Shapes: S segments, L tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def encode_with_codes(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """
    Token ids of texts in which the items' codes (`<a_128>`) are their tokens and all else is plain text.

    A teacher must not steer the model: thought markers, EOS, padding, and other added tokens without a number, such as
    `<think>`, are spelled out. Codes are the tokenizer's added tokens that are not special and hold a digit.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): a tokenizer with a `tokenizers` backend and the items' tokens.
        texts (`list[str]`): texts.

    Returns:
        `list[list[int]]`: ids, without special tokens before or after.

    Example:
        >>> from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer
        >>> tokenizer = build_byte_tokenizer()
        >>> _ = add_item_tokens(tokenizer, [["<a_1>", "<b_2>"]])
        >>> encode_with_codes(tokenizer, ["<a_1><b_2>", "a<a_1>"]), len(encode_with_codes(tokenizer, ["<|pad|>"])[0])
        ([[258, 259], [64, 258]], 7)
    """
    codes = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if not token.special and any(letter.isdigit() for letter in token.content)
    }
    backend = tokenizer.backend_tokenizer
    plain = Tokenizer(backend.model)
    plain.normalizer, plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    plain.add_tokens([AddedToken(code, special=False, normalized=False) for code in codes])
    # Here the codes have ids of their own, right behind the model's vocabulary.
    real = {index: codes[token.content] for index, token in plain.get_added_tokens_decoder().items()}
    encoded = plain.encode_batch(list(texts), add_special_tokens=False)
    return [[real.get(index, index) for index in encoding.ids] for encoding in encoded]


@torch.inference_mode()
def last_token_states(
    model: PreTrainedModel, token_ids: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """
    The backbone's last hidden state, after the final norm, at the last token of each sequence, each encoded alone.

    Sequences of similar length share a batch. They are padded behind their end, where a causal model never looks, so
    a state does not depend on its batch.

    Args:
        model (`PreTrainedModel`): a recommender in eval mode.
        token_ids (`list[list[int]]`): sequences of at least one token.
        batch_size (`int`): sequences per pass.

    Yields:
        `tuple`: rows of the sequences `np.ndarray` [B] and their states `torch.Tensor` [B, D], on the CPU.
    """
    lengths = np.array([len(ids) for ids in token_ids])
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows_B = order[start : start + batch_size]
        lengths_B = torch.from_numpy(lengths[rows_B])
        tokens_BL = torch.zeros(len(rows_B), int(lengths_B.max()), dtype=torch.long)
        real_BL = torch.arange(tokens_BL.shape[1]) < lengths_B[:, None]
        tokens_BL[real_BL] = torch.tensor([index for row in rows_B for index in token_ids[row]])
        states_BLD = model.model(input_ids=tokens_BL.to(model.device), use_cache=False).last_hidden_state
        last_B = lengths_B.to(states_BLD.device) - 1
        yield rows_B, states_BLD[torch.arange(len(rows_B), device=last_B.device), last_B].cpu()


__all__ = ["encode_with_codes", "last_token_states"]
