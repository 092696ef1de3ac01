"""Reasoning in words, as a baseline: the model writes a text, closes it with `<e>`, and then answers.

`[prompt] text <e> [answer]`: the thoughts' place is taken by tokens, each of which costs a pass.

Shapes: B prompts, L prompt, W prompt with its text.
"""

from __future__ import annotations

import torch
from transformers import BatchFeature, GenerationConfig, PreTrainedModel
from transformers.generation import GenerationMixin


def as_causal_lm(model: PreTrainedModel) -> PreTrainedModel:
    """
    The language model that a recommender is made of, with transformers' own `generate`; the weights are shared.

    Args:
        model: a recommender such as `Qwen3ForLatentReasoningRec`.

    Returns:
        `PreTrainedModel`: such as `Qwen3ForCausalLM`.
    """
    backbone_class = next(
        parent
        for parent in type(model).__mro__
        if issubclass(parent, GenerationMixin) and parent.__module__.startswith("transformers.models.")
    )
    with torch.device("meta"):  # no memory, as its parts are replaced
        language_model = backbone_class(model.config)
    language_model.model, language_model.lm_head = model.model, model.lm_head
    return language_model.train(model.training)


@torch.no_grad()
def write_text(model: PreTrainedModel, inputs: BatchFeature, max_new_tokens: int, pad_token_id: int) -> BatchFeature:
    """
    Prompts with the text that the model writes after each, closed by `<e>`.

    Written greedily with transformers' `generate`. A text that is still going on after `max_new_tokens` tokens is
    closed there.

    Args:
        model: the recommender, in evaluation mode.
        inputs (`BatchFeature`): `input_ids` and `attention_mask` [B, L], padded on the left; what else it holds stays
            as it is.
        max_new_tokens (`int`): tokens of a text at most, `<e>` not counted.
        pad_token_id (`int`): of the tokenizer.

    Returns:
        `BatchFeature`: the same with `input_ids` and `attention_mask` [B, W], padded on the left.

    Raises:
        ValueError: for a model without a token that closes a text, or a number that is not positive.
    """
    end = model.config.end_thought_token_id
    if end is None:
        raise ValueError("write_text: the model's config has no end_thought_token_id, so no text would ever be closed")
    if max_new_tokens < 1:
        raise ValueError(f"write_text: max_new_tokens is {max_new_tokens}; pass a positive number")
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=pad_token_id
    )
    prompt_BL, mask_BL = inputs["input_ids"], inputs["attention_mask"]
    written_BW = as_causal_lm(model).generate(input_ids=prompt_BL, attention_mask=mask_BL, generation_config=settings)[
        :, prompt_BL.shape[1] :
    ]
    # One more column, so that a text that was cut has room for its `<e>`; behind an `<e>` there is only padding.
    written_BW = torch.cat([written_BW, written_BW.new_full((len(written_BW), 1), end)], dim=1)
    after_end_BW = (written_BW == end).cumsum(1) - (written_BW == end).long() > 0
    ids_BW = torch.cat([prompt_BL, written_BW], dim=1)
    mask_BW = torch.cat([mask_BL, (~after_end_BW).to(mask_BL)], dim=1)
    width = int(mask_BW.sum(1).max())
    order_BW = mask_BW.argsort(dim=1, stable=True)[:, -width:]  # padding first, all else as it was
    mask_BW = mask_BW.gather(1, order_BW)
    ids_BW = ids_BW.gather(1, order_BW).masked_fill(mask_BW == 0, pad_token_id)
    return BatchFeature({**inputs, "input_ids": ids_BW, "attention_mask": mask_BW})


__all__ = ["as_causal_lm", "write_text"]
