"""Configuration of LARES."""

# No `from __future__ import annotations`: `strict` checks types, and passes over those that are text.

from huggingface_hub.dataclasses import strict

from .configuration_sequential import SequentialConfig


AGGREGATIONS = ("add", "concat", "linear")
BACKBONES = ("sasrec", "fmlp", "bsarec", "tedrec")
CAUSAL_BACKBONES = ("sasrec",)  # a pass gives the states of all prefixes; the others look at the whole window


@strict
class LaresConfig(SequentialConfig):
    """
    Settings of [`LaresForSequentialRecommendation`], beyond those of [`SequentialConfig`] (whose `num_hidden_layers`
    it replaces by the layers of its two blocks).

    Args:
        backbone (`str`, *optional*, defaults to `"sasrec"`): what the layers are: `"sasrec"`, `"fmlp"`, `"bsarec"` or
            `"tedrec"`.
        num_pre_layers (`int`, *optional*, defaults to 2): layers of the pre-block; 0 leaves it out.
        num_core_layers (`int`, *optional*, defaults to 2): layers of the recurrent core-block.
        mean_steps (`int`, *optional*, defaults to 4): reasoning steps at inference, and the parameter of their
            distribution in training, Eq. 6.
        frequency_weight (`float`, *optional*, defaults to 0.7): of BSARec's layers, see [`BSARecConfig`].
        num_low_frequencies (`int`, *optional*, defaults to 5): of BSARec's layers.
        text_size (`int`, *optional*, defaults to 1): width of TedRec's text embeddings, see [`TedRecConfig`].
        num_text_experts (`int`, *optional*, defaults to 8): of TedRec's text adaptor.
        text_dropout (`float`, *optional*, defaults to 0.2): of TedRec's text adaptor.
        aggregation (`str`, *optional*, defaults to `"add"`): f of Eq. 5, which joins a state T and the pre-block's
            output H: `"add"`, their mean; `"concat"`, a projection of both side by side; `"linear"`, a weighted sum
            with a learned weight for every dimension of each.
        initial_std (`float`, *optional*, defaults to 1.0): standard deviation of the random state T_0; 0 makes it 0.
        initial_scale (`float`, *optional*, defaults to 3.0): T_0 is multiplied by it.

    Raises:
        ValueError: as [`SequentialConfig`], or for an unknown backbone or aggregation.

    Example:

    ```python
    >>> from hf_latentrec import LaresConfig

    >>> LaresConfig(num_items=100, mean_steps=3).mean_steps
    3

    ```
    """

    model_type = "lares"

    backbone: str = "sasrec"
    num_pre_layers: int = 2
    num_core_layers: int = 2
    mean_steps: int = 4
    frequency_weight: float | int = 0.7
    num_low_frequencies: int = 5
    text_size: int = 1
    num_text_experts: int = 8
    text_dropout: float | int = 0.2
    aggregation: str = "add"
    initial_std: float | int = 1.0
    initial_scale: float | int = 3.0

    def _check(self) -> None:
        super()._check()
        if self.backbone not in BACKBONES:
            raise ValueError(f"LaresConfig: backbone is {self.backbone!r}; choose one of {BACKBONES}")
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"LaresConfig: aggregation is {self.aggregation!r}; choose one of {AGGREGATIONS}")
        for field, least in (("num_pre_layers", 0), ("num_core_layers", 1), ("mean_steps", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"LaresConfig: {field} is {getattr(self, field)}; pass {least} or more")
        if self.backbone == "tedrec" and self.objective != "cross_entropy":
            raise ValueError(
                f"LaresConfig: objective is {self.objective!r}, but backbone 'tedrec' has 'cross_entropy' alone"
            )
        if self.initial_std < 0:
            raise ValueError(f"LaresConfig: initial_std is {self.initial_std}; pass 0 or more")


__all__ = ["AGGREGATIONS", "BACKBONES", "CAUSAL_BACKBONES", "LaresConfig"]
