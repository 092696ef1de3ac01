"""What a model looked at when it thought about one user: attention over the history, factors, gates.

Shapes: T iterations, R rows (F factors, or N thoughts), L prompt, S slots, I history items, D hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models.modes import eval_mode
from .factors import attention_on_items, check_thinks, cosine_matrix, disentanglement_score, off_diagonal_mean


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor


EXPLANATION_FILE = "explanation.json"


@dataclass(frozen=True, eq=False)
class Explanation:
    """
    One user's history as a model's thoughts see it. A row is a factor (FLR) or a thought (the others).

    Args:
        reasoner (`str`): of the model.
        rows (`list[str]` [R]): names of the rows: `"factor 1"`, or `"thought 1"`.
        item_ids (`list[str]` [I]): the history as it entered the prompt, oldest first.
        titles (`list[str | None]` [I]): of the items; None where there is none.
        attentions (`np.ndarray` [T, R, I]): attention on each item, summed over its tokens, of every iteration (one
            for reasoners without iterations).
        elsewhere (`np.ndarray` [T, R]): the rest of each row: on other text of the prompt and on the thoughts.
        gates (`np.ndarray` [T, R], *optional*): weight of each factor; None for thoughts, which are not weighed.
        correlation (`np.ndarray` [R, R]): cosines between the factors of the last iteration, or between the
            embeddings of the thoughts.
        mean_abs_correlation (`float`, *optional*): mean |.| off the diagonal of `correlation`; None for one row.
        disentanglement_score (`float`): of the last iteration; see [`disentanglement_score`].
    """

    reasoner: str
    rows: list[str]
    item_ids: list[str]
    titles: list[str | None]
    attentions: np.ndarray
    elsewhere: np.ndarray
    gates: np.ndarray | None
    correlation: np.ndarray
    mean_abs_correlation: float | None
    disentanglement_score: float

    @property
    def labels(self) -> list[str]:
        """What to call the items: the title, or the id where there is none."""
        return [title or item_id for title, item_id in zip(self.titles, self.item_ids, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    def save(self, folder: str | Path) -> Path:
        """Writes `explanation.json` into a folder, which is made where it does not exist, and returns its path."""
        path = Path(folder) / EXPLANATION_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False), encoding="utf-8")
        return path


@torch.inference_mode()
def explain(model: LatentReasoningMixin, processor: LatentRecProcessor, history: Sequence[str]) -> Explanation:
    """
    Looks into the thoughts of any latent model about one user.

    What a row's attention is depends on the reasoner. `"factorized_attention"`: that of each factor.
    `"latent_attention"`: the reasoner's attention, from which each thought is made. `"feedback"` has no attention of
    its own: that of the backbone's last layer from the slot of each thought, averaged over heads.

    Args:
        model: the recommender.
        processor (`LatentRecProcessor`): catalog and prompt.
        history (`list[str]`): item ids of the user, oldest first; the newest `max_history` enter the prompt.

    Returns:
        `Explanation`

    Raises:
        ValueError: an empty history, an unknown item, or a model that does not think.

    Example:
        >>> from hf_latentrec import ItemCatalog, LatentRecProcessor, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
        >>> from hf_latentrec.models.latent_reasoning.tokenization import build_byte_tokenizer
        >>> tokenizer = build_byte_tokenizer()
        >>> items = [{"item_id": "B1", "title": "Soap"}, {"item_id": "B2", "title": "Towel"}]
        >>> catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title")
        >>> config = Qwen3LatentRecConfig(
        ...     vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, head_dim=8,
        ...     num_attention_heads=2, num_key_value_heads=2,
        ...     reasoner_config={"reasoner": "feedback", "num_thoughts": 2, "thought_markers": False},
        ... )
        >>> model = Qwen3ForLatentReasoningRec(config)
        >>> explanation = explain(model, LatentRecProcessor(tokenizer, catalog), ["B2", "B1"])
        >>> explanation.rows, explanation.titles, explanation.attentions.shape
        (['thought 1', 'thought 2'], ['Towel', 'Soap'], (1, 2, 2))
    """
    check_thinks(model, "explain")
    if isinstance(history, str) or len(history) == 0:
        raise ValueError(f"explain: history is {history!r}; pass a list of item ids, at least one")
    reasoner = model.config.reasoner_config.reasoner
    has_factors = reasoner == "factorized_attention"
    inputs = processor([history]).to(model.device)
    with eval_mode(model):
        output = model(**inputs)
        if reasoner == "feedback":
            attention_TRS = _backbone_attention(model, inputs["input_ids"], output.thought_embeds)[None]
        else:
            # An entry is an iteration with a row per factor, or a thought with one row.
            attention_TRS = torch.cat(output.factor_attentions, dim=0 if has_factors else 1)

    token_items_1L = torch.from_numpy(processor.token_items([history])).to(model.device)
    attention_TRI = attention_on_items(attention_TRS, token_items_1L.expand(len(attention_TRS), -1))
    vectors_RD = (output.factors[-1] if has_factors else output.thought_embeds)[0]
    correlation_RR = cosine_matrix(vectors_RD)
    R, num_items = len(vectors_RD), attention_TRI.shape[-1]
    num_items_1 = torch.tensor([num_items], device=model.device)
    item_ids = list(history)[-num_items:]
    return Explanation(
        reasoner=reasoner,
        rows=[f"{'factor' if has_factors else 'thought'} {row + 1}" for row in range(R)],
        item_ids=item_ids,
        titles=[processor.catalog.titles[row] for row in processor.catalog.rows(item_ids)],
        attentions=attention_TRI.cpu().numpy(),
        elsewhere=(attention_TRS.float().sum(-1) - attention_TRI.sum(-1)).clamp(min=0.0).cpu().numpy(),
        gates=torch.cat(output.factor_gates).float().cpu().numpy() if has_factors else None,
        correlation=correlation_RR.cpu().numpy(),
        mean_abs_correlation=float(off_diagonal_mean(correlation_RR.abs())) if R > 1 else None,
        disentanglement_score=float(disentanglement_score(attention_TRI[-1:], num_items_1)[0]),
    )


def _backbone_attention(
    model: LatentReasoningMixin, input_ids_1L: torch.Tensor, thought_embeds_1ND: torch.Tensor
) -> torch.Tensor:
    """Attention [N, S] of the last layer from each thought's slot, in `[prompt] <s> thoughts` read at once."""
    embeds = model.get_input_embeddings()
    parts = [embeds(input_ids_1L)]
    if model.config.reasoner_config.thought_markers:
        parts.append(embeds(input_ids_1L.new_tensor([[model.config.start_thought_token_id]])))
    with _eager_attention(model):
        output = model.model(
            inputs_embeds=torch.cat([*parts, thought_embeds_1ND], dim=1), output_attentions=True, use_cache=False
        )
    return output.attentions[-1][0].mean(0)[-thought_embeds_1ND.shape[1] :]


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """The only implementation that returns what it attends to; the model's own is back afterwards."""
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


__all__ = ["Explanation", "explain"]
