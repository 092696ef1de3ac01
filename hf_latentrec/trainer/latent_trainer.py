"""The base of the trainers of LLM recommenders: the catalog of answers, LoRA, and the model's depth policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from .latent_config import CHECKPOINTING_IS_REFUSED, LatentConfig
from .lora import add_lora, added_token_ids
from .rec_trainer import RecTrainer


class LatentTrainer(RecTrainer):
    """
    [`RecTrainer`] for recommenders such as `Qwen3ForLatentReasoningRec`, whose answers are tokens.

    Args:
        model (`PreTrainedModel`): the recommender.
        args (`LatentConfig`): of the class that `config_class` names.
        item_trie (`ItemTrie`, *optional*): the catalog; by default that of `processing_class`.
        peft_config (`LoraConfig`, *optional*): train LoRA's weights instead of the model's; see [`add_lora`].
        new_token_ids (`Sequence[int]`, *optional*): with `peft_config`, the tokens whose rows are trained too; by
            default those that [`add_item_tokens`] gave the tokenizer of `processing_class`.
        kwargs: as for [`RecTrainer`].

    Raises:
        ValueError: as [`RecTrainer`]; probabilities over the catalog without an item trie, or settings that
            [`add_lora`] refuses.
    """

    config_class: type[LatentConfig] = LatentConfig

    def __init__(
        self,
        model: nn.Module,
        args: LatentConfig,
        *,
        item_trie: Any = None,
        peft_config: Any = None,
        new_token_ids: Sequence[int] | None = None,
        **kwargs,
    ):
        name = type(self).__name__
        check_reasoner_is_used(model, args)
        if peft_config is not None:
            set_seed(args.seed)  # LoRA's first weights are drawn at random
            if new_token_ids is None:
                new_token_ids = added_token_ids(kwargs.get("processing_class"))
            model = add_lora(model, peft_config, new_token_ids)
        elif new_token_ids is not None:
            raise ValueError(f"{name}: new_token_ids are given without a peft_config, but all rows are trained then")
        super().__init__(model=model, args=args, **kwargs)
        # The launch can ask for it, too.
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.activation_checkpointing:
            raise ValueError(f"{name}: {CHECKPOINTING_IS_REFUSED}")
        item_trie = getattr(self.processing_class, "item_trie", None) if item_trie is None else item_trie
        if item_trie is None and self.needs_item_trie:
            raise ValueError(f"{name}: no item trie; pass item_trie=..., or a processing_class that has one")
        self.item_trie = None if item_trie is None else item_trie.to(args.device)
        depth_policy = getattr(self.accelerator.unwrap_model(self.model), "depth_policy", None)
        if depth_policy is not None and not self.trains_depth_policy:
            depth_policy.requires_grad_(False)

    @property
    def needs_item_trie(self) -> bool:
        """Whether training needs the catalog."""
        return self.args.normalize == "catalog"

    @property
    def loss_item_trie(self) -> Any:
        """What the model's forward gets: the trie where probabilities are normalized over the catalog, else None."""
        return self.item_trie if self.args.normalize == "catalog" else None

    @property
    def trains_depth_policy(self) -> bool:
        """Whether a term of the loss reaches the model's depth policy; where none does, it is frozen."""
        return False

    def compute_terms(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """As in [`RecTrainer`], with the trie where probabilities are normalized over the catalog."""
        return super().compute_terms(model, {**inputs, "item_trie": self.loss_item_trie}, num_items_in_batch)


def check_reasoner_is_used(model: nn.Module, args: LatentConfig) -> None:
    """Raises where DDP would stop in the first step, at weights of a reasoner that is not asked for a thought."""
    if args.world_size == 1 or args.ddp_find_unused_parameters or model.config.num_thoughts > 0:
        return
    if any(parameter.requires_grad for parameter in model.reasoner.parameters()):
        raise ValueError(
            "the model's num_thoughts is 0, so no loss reaches the weights of its reasoner, and DDP waits for their "
            "gradients; call model.reasoner.requires_grad_(False), or load the model with "
            'reasoner_config={"reasoner": "feedback"}'
        )


__all__ = ["LatentTrainer", "check_reasoner_is_used"]
