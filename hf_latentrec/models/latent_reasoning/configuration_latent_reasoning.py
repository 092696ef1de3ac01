"""Configurations of the LLM recommenders: one per backbone, with one nested configuration of the reasoner."""

# No `from __future__ import annotations`: `strict` checks types, and passes over those that are text.

from dataclasses import asdict, dataclass, fields

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, Qwen2Config, Qwen3Config


# The reasoners, and whether their thoughts stand between markers where nothing else is said.
REASONERS = {"feedback": True, "latent_attention": False, "factorized_attention": False}
DEFAULT_NUM_FACTORS, DEFAULT_NUM_ITERATIONS = 4, 2


@strict
@dataclass(kw_only=True)
class LatentReasonerConfig:
    """
    How a recommender thinks between the prompt and the answer.

    Args:
        reasoner (`str`, *optional*, defaults to `"feedback"`):
            What makes the next thought. `"feedback"` feeds the last hidden state back as the next input embedding
            (LASAR Eq. 3, Coconut); `"latent_attention"` attends to all hidden states so far (LatentR³ Eq. 3);
            `"factorized_attention"` refines one thought in place by several factors (FLR Eq. 2 to 4).
        num_thoughts (`int`, *optional*, defaults to 0):
            Number N of thoughts. 0 is the no-reasoning baseline: the answer follows the prompt directly.
            `"factorized_attention"` has one at most. With `adaptive_depth` the most that a prompt may have, N_max.
        adaptive_depth (`bool`, *optional*, defaults to `False`):
            Whether every prompt has its own number of thoughts, from 1 to `num_thoughts`, which a policy head reads
            off the hidden state before the first thought (LASAR, section 2.2; 8 there).
        thought_markers (`bool`, *optional*):
            Whether the thoughts stand between two marker tokens, `[prompt] <s> thoughts <e> [answer]`, or directly
            between prompt and answer. By default as in the papers: with markers for `"feedback"`, without for the
            others.
        num_factors (`int`, *optional*):
            Factors F of `"factorized_attention"`, at most the hidden size; 4 by default (FLR: 3 for CDs, else 4).
        num_iterations (`int`, *optional*):
            How often `"factorized_attention"` refines its thought, T; 2 by default.

    Raises:
        ValueError: for an unknown reasoner, numbers out of range, settings of another reasoner or a key that is not a
            setting.

    Example:

    ```python
    >>> from hf_latentrec import LatentReasonerConfig

    >>> LatentReasonerConfig(num_thoughts=4).num_thoughts
    4

    ```
    """

    reasoner: str = "feedback"
    num_thoughts: int = 0
    adaptive_depth: bool = False
    thought_markers: bool | None = None
    num_factors: int | None = None
    num_iterations: int | None = None

    def __post_init__(self):
        if self.reasoner not in REASONERS:
            raise ValueError(
                f"LatentReasonerConfig: reasoner {self.reasoner!r} is unknown; choose one of {tuple(REASONERS)}"
            )
        if self.num_thoughts < 0:
            raise ValueError(
                f"LatentReasonerConfig: num_thoughts is {self.num_thoughts}; pass 0 (no reasoning) or a positive "
                "number"
            )
        if self.adaptive_depth and (self.num_thoughts == 0 or self.refines_in_place):
            raise ValueError(
                f"LatentReasonerConfig: adaptive_depth is set with reasoner {self.reasoner!r} and num_thoughts "
                f"{self.num_thoughts}; it chooses between 1 and num_thoughts thoughts that follow each other, so pass "
                "the most that there may be (8 in LASAR), or adaptive_depth=False"
            )
        if self.thought_markers is None:
            self.thought_markers = REASONERS[self.reasoner]
        if self.refines_in_place:
            self._check_factors()
        elif self.num_factors is not None or self.num_iterations is not None:
            raise ValueError(
                f"LatentReasonerConfig: num_factors is {self.num_factors} and num_iterations {self.num_iterations}, "
                f'but reasoner {self.reasoner!r} has neither; leave them out, or choose "factorized_attention"'
            )

    def _check_factors(self):
        self.num_factors = DEFAULT_NUM_FACTORS if self.num_factors is None else self.num_factors
        self.num_iterations = DEFAULT_NUM_ITERATIONS if self.num_iterations is None else self.num_iterations
        for name in ("num_factors", "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"LatentReasonerConfig: {name} is {getattr(self, name)}; pass a positive number")
        self.num_steps(self.num_thoughts)

    @property
    def refines_in_place(self) -> bool:
        """Whether a thought is refined in its slot, instead of one following the other."""
        return self.reasoner == "factorized_attention"

    def num_steps(self, num_thoughts: int) -> int:
        """How often the reasoner is asked for a thought, which is also the number of passes that thinking takes."""
        if not self.refines_in_place:
            return num_thoughts
        if num_thoughts > 1:
            raise ValueError(
                f"num_thoughts is {num_thoughts}, but reasoner 'factorized_attention' refines one thought; pass 1, "
                "and the number of refinements as num_iterations"
            )
        return num_thoughts * self.num_iterations

    def num_slots(self, num_thoughts: int) -> int:
        """How many tokens thinking adds to a prompt at most: steps, two markers, what a refined slot starts from."""
        return self.num_steps(num_thoughts) + 3

    @classmethod
    def from_dict(cls, settings: dict) -> "LatentReasonerConfig":
        """The configuration of a plain dictionary; a key that is not a setting is an error."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"LatentReasonerConfig: unknown setting(s) {unknown}; known: {known}")
        return cls(**settings)


@dataclass(kw_only=True)
class LatentRecConfigMixin:
    """
    What every recommender adds to the configuration of its backbone.

    Args:
        reasoner_config (`LatentReasonerConfig` or `dict`, *optional*):
            The nested configuration of the reasoner; a model without one does not reason. A dictionary that is
            assigned later, as by `from_pretrained`, changes the settings that it names; with another `reasoner` it
            starts from that one's defaults.
        embedding_dropout (`float`, *optional*, defaults to 0.0):
            Dropout probability on token embeddings while training (for small models trained from scratch).
        start_thought_token_id (`int`, *optional*): the token `<s>` that opens the thoughts.
        end_thought_token_id (`int`, *optional*): the token `<e>` that closes them.
    """

    reasoner_config: LatentReasonerConfig | dict | None = None
    embedding_dropout: float | int = 0.0
    start_thought_token_id: int | None = None
    end_thought_token_id: int | None = None

    def __post_init__(self, **kwargs):
        num_thoughts = kwargs.pop("num_thoughts", None)
        if self.reasoner_config is None:
            self.reasoner_config = LatentReasonerConfig()
        super().__post_init__(**kwargs)
        if num_thoughts is not None:
            self.num_thoughts = num_thoughts
        self._check()

    def __setattr__(self, name: str, value):
        # `from_pretrained(..., reasoner_config={...})` assigns it to a configuration that is complete: what it leaves
        # out stays. Settings of one reasoner mean nothing to another, which starts from its own defaults.
        if name == "reasoner_config" and isinstance(value, dict):
            current = self.reasoner_config
            if current is not None and value.get("reasoner", current.reasoner) == current.reasoner:
                value = {**asdict(current), **value}
            value = LatentReasonerConfig.from_dict(value)
        super().__setattr__(name, value)

    @property
    def num_thoughts(self) -> int:
        """Number N of thoughts (the reasoner's setting, at hand where the model reads it)."""
        return self.reasoner_config.num_thoughts

    @num_thoughts.setter
    def num_thoughts(self, value: int):
        if self.reasoner_config.adaptive_depth and value != self.num_thoughts:
            raise ValueError(
                f"num_thoughts is set to {value}, but the model's depth policy chooses from 1 to {self.num_thoughts}; "
                "pass generate(num_thoughts=...) to force a depth, or load the model with "
                f'reasoner_config={{"num_thoughts": {value}, "adaptive_depth": False}} to be without the policy'
            )
        self.reasoner_config = {"num_thoughts": value}

    def to_dict(self) -> dict:
        """As in transformers, with the nested configuration as a plain dictionary."""
        return {**super().to_dict(), "reasoner_config": asdict(self.reasoner_config)}

    def _check(self):
        name = type(self).__name__
        if not 0.0 <= self.embedding_dropout < 1.0:
            raise ValueError(f"{name}: embedding_dropout is {self.embedding_dropout}; pass a value in [0, 1)")
        if "sliding_attention" in (getattr(self, "layer_types", None) or []):
            raise ValueError(
                f"{name}: sliding-window attention is not supported, because a branch attends to the whole prompt "
                "through one explicit mask; set use_sliding_window=False"
            )


@strict
class Qwen2LatentRecConfig(LatentRecConfigMixin, Qwen2Config):
    """Configuration of [`Qwen2ForLatentReasoningRec`]: `Qwen2Config` and the fields of [`LatentRecConfigMixin`]."""

    model_type = "qwen2_latentrec"


@strict
class Qwen3LatentRecConfig(LatentRecConfigMixin, Qwen3Config):
    """Configuration of [`Qwen3ForLatentReasoningRec`]: `Qwen3Config` and the fields of [`LatentRecConfigMixin`]."""

    model_type = "qwen3_latentrec"


@strict
class LlamaLatentRecConfig(LatentRecConfigMixin, LlamaConfig):
    """Configuration of [`LlamaForLatentReasoningRec`]: `LlamaConfig` and the fields of [`LatentRecConfigMixin`]."""

    model_type = "llama_latentrec"


__all__ = ["LatentReasonerConfig", "LlamaLatentRecConfig", "Qwen2LatentRecConfig", "Qwen3LatentRecConfig"]
