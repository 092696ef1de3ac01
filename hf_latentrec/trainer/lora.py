"""Training a few weights of a large recommender through PEFT: LoRA, the reasoner, and the rows of new tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor
from ..models.latent_reasoning.tokenization import thought_token_ids


# What PEFT takes for Llama and Qwen; it knows backbones by their model type, and not those of recommenders.
DEFAULT_TARGET_MODULES = ("q_proj", "v_proj")


def add_lora(model: nn.Module, peft_config: LoraConfig, new_token_ids: Sequence[int] = ()) -> PeftModel:
    """
    Wraps a recommender for parameter-efficient training (LatentR³, App. F).

    Trained are LoRA's weights, all weights of the reasoner and the depth policy that were not frozen before, and the
    rows of `new_token_ids` in the input embeddings and the output projection, tied or not; everything else is frozen.
    `model(**batch)` takes the recommender's arguments, `model.config` is its configuration, and [`merge_lora`] gives
    the recommender back.

    Args:
        model (`PreTrainedModel`): a recommender; its layers are changed in place.
        peft_config (`LoraConfig`): which layers are adapted, and how; it is not changed. Without `target_modules`
            these are the query and value projections of attention. `task_type` has no effect.
        new_token_ids (`Sequence[int]`, *optional*): tokens without pretrained embeddings; see [`added_token_ids`].

    Returns:
        `PeftModel`

    Raises:
        ValueError: for other settings than LoRA's, for a model that is wrapped already, for trained rows that are
            named in two places, for tokens beyond the vocabulary, or for an adapter of the output projection.

    Example:
        >>> model = add_lora(model, LoraConfig(r=16), added_token_ids(processor))  # doctest: +SKIP
        >>> model.print_trainable_parameters()  # doctest: +SKIP
    """
    if not isinstance(peft_config, LoraConfig):
        raise ValueError(f"add_lora: peft_config is a {type(peft_config).__name__}; pass a peft.LoraConfig")
    if isinstance(model, PeftModel):
        raise ValueError(
            "add_lora: the model is wrapped by PEFT already; leave peft_config out, or give merge_lora(model)"
        )
    if peft_config.trainable_token_indices is not None:
        raise ValueError(
            "add_lora: peft_config has trainable_token_indices; name these tokens in new_token_ids instead"
        )
    token_ids = sorted({int(token) for token in new_token_ids})
    if token_ids and not 0 <= token_ids[0] <= token_ids[-1] < model.config.vocab_size:
        raise ValueError(
            f"add_lora: new_token_ids run from {token_ids[0]} to {token_ids[-1]}, but the model has "
            f"{model.config.vocab_size} tokens; call model.resize_token_embeddings(len(tokenizer)) first"
        )
    config = copy.deepcopy(peft_config)
    config.task_type = None  # PEFT's wrappers for tasks pass arguments on that recommenders do not take
    if config.target_modules is None and config.target_parameters is None:
        config.target_modules = set(DEFAULT_TARGET_MODULES)
    modules = {"reasoner": model.reasoner, "depth_policy": model.depth_policy}
    whole = [name for name, module in modules.items() if module is not None and any(True for _ in module.parameters())]
    # PEFT trains its copies of these modules as a whole, also what was frozen; their adapter is the default one.
    frozen = [
        f"{name}.modules_to_save.default.{path}"
        for name in whole
        for path, parameter in modules[name].named_parameters()
        if not parameter.requires_grad
    ]
    if whole:
        config.modules_to_save = sorted({*(config.modules_to_save or ()), *whole})
    if token_ids:
        config.trainable_token_indices = {"embed_tokens": token_ids, "lm_head": token_ids}
    adapted = get_peft_model(model, config)
    if isinstance(adapted.get_base_model().lm_head, LoraLayer):
        raise ValueError(
            "add_lora: target_modules name lm_head, but the catalog is scored by its matrix alone, without an adapter;"
            " leave it out, or train it as a whole by modules_to_save=['lm_head']"
        )
    for path in frozen:
        adapted.get_base_model().get_parameter(path).requires_grad_(False)
    return adapted


def merge_lora(model: PeftModel) -> nn.Module:
    """
    The plain recommender with all that was trained in its own weights: it saves and loads like any other, and all of
    it can be trained again.

    Args:
        model (`PeftModel`): from [`add_lora`]; not to be used any more.

    Returns:
        `PreTrainedModel`
    """
    return model.merge_and_unload().requires_grad_(True)


def unwrap_lora(model: nn.Module) -> nn.Module:
    """The recommender itself, its adapters in place; a model without any is returned as it is."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def added_token_ids(processor: LatentRecProcessor) -> list[int]:
    """
    What [`add_item_tokens`] gave the tokenizer: the catalog's codes and the thought markers.

    Args:
        processor (`LatentRecProcessor`): holds tokenizer and catalog.

    Returns:
        `list[int]`: token ids, ascending; none for titles without thought markers.

    Raises:
        ValueError: for anything else, which does not say what tokens are new.
    """
    if not isinstance(processor, LatentRecProcessor):
        raise ValueError(
            f"added_token_ids: processing_class is {type(processor).__name__}, which does not say what tokens are "
            "new; pass a LatentRecProcessor, or new_token_ids=[...] to the trainer (none: [])"
        )
    added = processor.tokenizer.added_tokens_encoder.values()
    markers = [token for token in thought_token_ids(processor.tokenizer).values() if token is not None]
    if processor.catalog.item_tokenization != "semantic_id":  # titles may end with an added token that is pretrained
        return sorted(markers)
    return sorted({*np.intersect1d(processor.catalog.flat_tokens, list(added)).tolist(), *markers})


__all__ = ["add_lora", "added_token_ids", "merge_lora", "unwrap_lora"]
