"""What every item-ID recommender is configured by."""

# No `from __future__ import annotations`: `strict` checks types, and passes over those that are text.

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


OBJECTIVES = ("cross_entropy", "sampled_softmax", "bce")


@strict
class SequentialConfig(PreTrainedConfig):
    """
    Settings that all item-ID recommenders share; the base of their configurations.

    Args:
        num_items (`int`, *optional*, defaults to 1): items of the catalog, I.
        max_history (`int`, *optional*, defaults to 20): newest items of a history that the model reads.
        hidden_size (`int`, *optional*, defaults to 64): width of item embeddings and states, D.
        intermediate_size (`int`, *optional*, defaults to 256): width of the feed-forward blocks.
        num_hidden_layers (`int`, *optional*, defaults to 2): layers.
        num_attention_heads (`int`, *optional*, defaults to 2): attention heads.
        hidden_act (`str`, *optional*, defaults to `"gelu"`): activation of the feed-forward blocks.
        dropout (`float`, *optional*, defaults to 0.5): on embeddings and on the output of every block.
        attention_dropout (`float`, *optional*, defaults to 0.5): on attention weights.
        layer_norm_eps (`float`, *optional*, defaults to 1e-12): of the layer normalizations.
        initializer_range (`float`, *optional*, defaults to 0.02): standard deviation of the first weights.
        objective (`str`, *optional*, defaults to `"cross_entropy"`): what the next item is learned by:
            `"cross_entropy"` over the whole catalog, `"sampled_softmax"` against `num_negatives` random items, or
            `"bce"` (binary cross entropy of the item and of `num_negatives` random ones).
        num_negatives (`int`, *optional*, defaults to 1): random items of the two sampled objectives.
        split_fingerprint (`str`, *optional*): fingerprint of the data split that the model was trained on.
        items_fingerprint (`str`, *optional*): fingerprint of the items that the model was saved with; set by saving.

    Raises:
        ValueError: for a value out of range, heads that do not divide the width, or an unknown objective.

    Example:

    ```python
    >>> from hf_latentrec import LaresConfig

    >>> LaresConfig(num_items=100, hidden_size=32).hidden_size
    32

    ```
    """

    num_items: int = 1
    max_history: int = 20
    hidden_size: int = 64
    intermediate_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    hidden_act: str = "gelu"
    dropout: float | int = 0.5
    attention_dropout: float | int = 0.5
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    objective: str = "cross_entropy"
    num_negatives: int = 1
    split_fingerprint: str | None = None
    items_fingerprint: str | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        name = type(self).__name__
        sizes = (
            "num_items",
            "max_history",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
        for field in sizes:
            if getattr(self, field) < 1:
                raise ValueError(f"{name}: {field} is {getattr(self, field)}; pass a positive number")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"{name}: hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{self.num_attention_heads}; change one of them"
            )
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{name}: {field} is {getattr(self, field)}; pass a value in [0, 1)")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"{name}: objective is {self.objective!r}; choose one of {OBJECTIVES}")
        if self.num_negatives < 1:
            raise ValueError(f"{name}: num_negatives is {self.num_negatives}; pass a positive number")


__all__ = ["OBJECTIVES", "SequentialConfig"]
