"""Full-catalog evaluation: beam search for every user, ranks per user, metrics over users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from ..models.latent_reasoning.argument_checks import check_grounding
from ..models.latent_reasoning.explicit_cot import write_text
from .metrics import ranking_metrics


if TYPE_CHECKING:
    from ..models.latent_reasoning.item_trie import ItemTrie
    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor

# How seen items are treated, by the name that tables and rank files carry.
PROTOCOLS = {"nothing filtered": False, "seen items excluded": True}
DECODERS = ("constrained", "grounding", "explicit_cot")


@dataclass
class EvaluationResult:
    """
    Ranks of one protocol, in the order of the examples.

    Args:
        user_ids (`list[str]`): one per example.
        ranks (`np.ndarray` [users]): 1-based rank of the target, 0 where it is not among the candidates.
        metrics (`dict[str, float]`): HR@K and NDCG@K.
        num_thoughts (`np.ndarray` [users]): how many thoughts each example had, its depth.
    """

    user_ids: list[str]
    ranks: np.ndarray
    metrics: dict[str, float]
    num_thoughts: np.ndarray


class RecEvaluator:
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
        ks (`tuple[int, ...]`, *optional*): cutoffs of the metrics.
        normalize (`str`, *optional*, defaults to `"catalog"`): see [`LatentReasoningMixin.generate`].
        length_penalty (`float`, *optional*, defaults to 0.0): see [`LatentReasoningMixin.generate`].
        decoder (`str`, *optional*, defaults to `"constrained"`): beam search under the trie, or `"grounding"`: the
            `num_beams` items whose texts are nearest to a free answer. Every evaluation embeds the catalog anew.
            `"explicit_cot"`: the model writes a text first (see [`write_text`]), and beam search follows it.
        num_thoughts (`int`, *optional*): think for this many steps instead of the model's own number; 0 turns
            thinking off.
        max_cot_tokens (`int`, *optional*, defaults to 256): where a text of `"explicit_cot"` is cut.

    Raises:
        ValueError: for no examples, an unknown decoder, or a setting that the decoder does not have.
    """

    def __init__(
        self,
        processor: LatentRecProcessor,
        examples: Dataset,
        num_beams: int = 50,
        batch_size: int = 64,
        ks: tuple[int, ...] = (5, 10, 20),
        normalize: str = "catalog",
        length_penalty: float = 0.0,
        decoder: str = "constrained",
        num_thoughts: int | None = None,
        max_cot_tokens: int = 256,
    ):
        if len(examples) == 0:
            raise ValueError("RecEvaluator: there are no examples; pass a split with at least one user")
        if decoder not in DECODERS:
            raise ValueError(f"RecEvaluator: decoder is {decoder!r}; choose one of {DECODERS}")
        if decoder == "grounding":
            check_grounding(normalize=normalize, length_penalty=length_penalty)
        if max_cot_tokens < 1:
            raise ValueError(f"RecEvaluator: max_cot_tokens is {max_cot_tokens}; pass a positive number")
        self.processor, self.examples, self.ks = processor, examples, ks
        self.num_beams, self.batch_size, self.decoder = num_beams, batch_size, decoder
        self.normalize, self.length_penalty, self.num_thoughts = normalize, length_penalty, num_thoughts
        self.max_cot_tokens = max_cot_tokens

    @torch.inference_mode()
    def evaluate(
        self, model: LatentReasoningMixin, exclude_seen: bool = False, description: str = ""
    ) -> EvaluationResult:
        """
        Args:
            model: the unwrapped recommender.
            exclude_seen (`bool`, *optional*, defaults to `False`): recommend only items that are not in the history.
            description (`str`, *optional*): of the progress bar.

        Returns:
            `EvaluationResult`: the same on every process.

        Raises:
            ValueError: with `exclude_seen`, for a user who has seen the whole catalog.
        """
        state = PartialState()
        lengths = np.array([len(history) for history in self.examples["history"]])
        if exclude_seen:
            self._check_something_is_unseen(lengths)
        was_training = model.training
        model.eval()
        # Users of similar history length share a batch, so little is padded; every process takes every n-th batch.
        by_length = np.argsort(-lengths, kind="stable")
        batches = [by_length[i : i + self.batch_size] for i in range(0, len(by_length), self.batch_size)]
        mine = batches[state.process_index :: state.num_processes]
        trie = self.processor.item_trie.to(model.device)
        item_embeddings = model.embed_items(trie, self.batch_size) if self.decoder == "grounding" else None
        results = []
        for rows in tqdm(mine, desc=description or "evaluate", disable=not state.is_main_process, unit="batch"):
            results.append((rows, *self._rank_batch(model, trie, item_embeddings, self.examples[rows], exclude_seen)))
        model.train(was_training)
        ranks, num_thoughts = np.zeros((2, len(self.examples)), dtype=np.int64)
        for rows, batch_ranks, batch_num_thoughts in gather_object(results):
            ranks[rows], num_thoughts[rows] = batch_ranks, batch_num_thoughts
        return EvaluationResult(list(self.examples["user_id"]), ranks, ranking_metrics(ranks, self.ks), num_thoughts)

    def _rank_batch(
        self,
        model: LatentReasoningMixin,
        trie: ItemTrie,
        item_embeddings: torch.Tensor | None,
        batch: dict[str, list],
        exclude_seen: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank and depth of each example of a batch."""
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
        ranks = self.processor.rank_of(output, self.processor.catalog.rows(batch["target"]))
        return ranks, output.num_thoughts.cpu().numpy()

    def _check_something_is_unseen(self, history_lengths: np.ndarray) -> None:
        """Before the first batch, and on every process: one that stopped alone would leave the others waiting."""
        num_items = len(self.processor.catalog)
        for row in np.flatnonzero(history_lengths >= num_items).tolist():
            example = self.examples[row]
            if len(set(example["history"])) >= num_items:
                raise ValueError(
                    f"RecEvaluator: user_id {example['user_id']!r} (example {row}) has seen all {num_items} items, so "
                    "exclude_seen=True leaves nothing to rank; leave the user out, or pass exclude_seen=False"
                )


__all__ = ["PROTOCOLS", "EvaluationResult", "RecEvaluator"]
