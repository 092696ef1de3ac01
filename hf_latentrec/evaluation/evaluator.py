"""Full-catalog evaluation of language models: beam search for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from ..models.latent_reasoning.argument_checks import check_grounding
from ..models.latent_reasoning.explicit_cot import write_text
from .metrics import default_cutoffs
from .ranking_evaluator import RankedBatch, RankingEvaluator


if TYPE_CHECKING:
    import torch

    from ..models.latent_reasoning.catalog import ItemCatalog
    from ..models.latent_reasoning.item_trie import ItemTrie
    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor

DECODERS = ("constrained", "grounding", "explicit_cot")


class RecEvaluator(RankingEvaluator):
    """
    Ranks the whole catalog for every example, on all processes of the launch: by beam search under the trie, by
    grounding free answers, or by beam search after a text that the model writes.

    BIGRec's beam search is `num_beams=10, normalize="vocabulary", length_penalty=1.0`; D³'s, without its ensemble,
    the same with `length_penalty=0.0`. Zero-shot prompting (`Base`) is any of these with a pretrained model that was
    not trained further, and an instruction as the processor's template.

    Args:
        processor (`LatentRecProcessor`): catalog, trie and prompt.
        examples (`datasets.Dataset`): rows of `user_id, history, target`.
        num_beams (`int`, *optional*, defaults to 50): beams per user; an item beyond them has no rank.
        batch_size (`int`, *optional*, defaults to 64): users per batch and process.
        ks (`tuple[int, ...]`, *optional*): cutoffs of the metrics; by default 5, 10 and 20, as far as the beams go.
        normalize (`str`, *optional*, defaults to `"catalog"`): see [`LatentReasoningMixin.generate`].
        length_penalty (`float`, *optional*, defaults to 0.0): see [`LatentReasoningMixin.generate`].
        decoder (`str`, *optional*, defaults to `"constrained"`): beam search under the trie, or `"grounding"`: the
            `num_beams` items whose texts are nearest to a free answer. Every evaluation embeds the catalog anew.
            `"explicit_cot"`: the model writes a text first (see [`write_text`]), and beam search follows it.
        num_thoughts (`int`, *optional*): think for this many steps instead of the model's own number; 0 turns
            thinking off.
        max_cot_tokens (`int`, *optional*, defaults to 256): where a text of `"explicit_cot"` is cut.
        top_k (`int`, *optional*, defaults to 0): keep this many recommended items of every user; there are as many as
            beams, and more where items share a token sequence.
        match (`str`, *optional*, defaults to `"item"`): what a hit is, see [`RankingEvaluator`].

    Raises:
        ValueError: for no examples, an unknown decoder or match, a setting that the decoder does not have, no beams,
            no cutoff, or one that is below 1 or above the number of beams.
    """

    def __init__(
        self,
        processor: LatentRecProcessor,
        examples: Dataset,
        num_beams: int = 50,
        batch_size: int = 64,
        ks: tuple[int, ...] | None = None,
        normalize: str = "catalog",
        length_penalty: float = 0.0,
        decoder: str = "constrained",
        num_thoughts: int | None = None,
        max_cot_tokens: int = 256,
        top_k: int = 0,
        match: str = "item",
    ):
        if num_beams < 1:
            raise ValueError(f"RecEvaluator: num_beams is {num_beams}; pass a positive number of beams per user")
        if ks is not None and max(ks, default=0) > num_beams:
            raise ValueError(
                f"RecEvaluator: ks holds {max(ks)}, but num_beams is {num_beams}, and an item beyond the beams has no "
                "rank; pass more beams or smaller cutoffs"
            )
        super().__init__(examples, batch_size, default_cutoffs(num_beams) if ks is None else ks, top_k, match)
        if decoder not in DECODERS:
            raise ValueError(f"RecEvaluator: decoder is {decoder!r}; choose one of {DECODERS}")
        if decoder == "grounding":
            check_grounding(normalize=normalize, length_penalty=length_penalty)
        if max_cot_tokens < 1:
            raise ValueError(f"RecEvaluator: max_cot_tokens is {max_cot_tokens}; pass a positive number")
        self.processor, self.num_beams, self.decoder = processor, num_beams, decoder
        self.normalize, self.length_penalty, self.num_thoughts = normalize, length_penalty, num_thoughts
        self.max_cot_tokens = max_cot_tokens

    @property
    def split_fingerprint(self) -> str | None:
        """Of the split that the processor was made for."""
        return self.processor.split_fingerprint

    def catalog(self, model: LatentReasoningMixin) -> ItemCatalog:
        return self.processor.catalog

    def prepare(self, model: LatentReasoningMixin) -> tuple[ItemTrie, torch.Tensor | None]:
        """The trie on the model's device and, for grounding, the embeddings of all items."""
        trie = self.processor.item_trie.to(model.device)
        return trie, model.embed_items(trie, self.batch_size) if self.decoder == "grounding" else None

    def rank_batch(
        self,
        model: LatentReasoningMixin,
        prepared: tuple[ItemTrie, torch.Tensor | None],
        batch: dict[str, list],
        exclude_seen: bool,
        item_groups: np.ndarray | None,
    ) -> RankedBatch:
        trie, item_embeddings = prepared
        inputs = self.processor(batch["history"], return_tensors="pt", exclude_seen=exclude_seen).to(model.device)
        if self.decoder == "explicit_cot":
            inputs = write_text(model, inputs, self.max_cot_tokens, self.processor.tokenizer.pad_token_id)
        output = model.generate(
            **inputs,
            item_trie=trie,
            num_beams=self.num_beams,
            normalize=self.normalize,
            length_penalty=self.length_penalty,
            num_thoughts=self.num_thoughts,
            item_embeddings=item_embeddings,
        )
        return RankedBatch(
            self.processor.rank_of(output, self.processor.catalog.rows(batch["target"]), item_groups),
            output.num_thoughts.cpu().numpy(),
            self.processor.recommended_rows(output, self.top_k) if self.top_k else None,
        )


__all__ = ["DECODERS", "RecEvaluator"]
