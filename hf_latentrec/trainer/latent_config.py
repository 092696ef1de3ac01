"""Settings that the trainers of LLM recommenders share."""

from __future__ import annotations

from dataclasses import dataclass, field

from .rec_config import RecConfig


NORMALIZATIONS = ("vocabulary", "catalog")
CHECKPOINTING_IS_REFUSED = (
    "gradient (activation) checkpointing drops the cache that thoughts and answers attend to; leave it off and make "
    "per_device_train_batch_size smaller"
)


@dataclass
class LatentConfig(RecConfig):
    """
    Settings of [`LatentTrainer`]; see [`RecConfig`].

    Args:
        normalize (`str`, *optional*, defaults to `"vocabulary"`):
            Over what an answer token's probability is normalized: `"vocabulary"`, or `"catalog"`, the tokens that
            continue to an item at this place. `"catalog"` needs an item trie.

    `use_cache` is True, other than in [`~transformers.TrainingArguments`]: thoughts and answers attend to the cached
    prompt.

    Raises:
        ValueError: for settings that a recommender's trainer would ignore or cannot follow.
    """

    use_cache: bool = field(
        default=True, metadata={"help": "Keep True: thoughts and answers attend to the cached prompt."}
    )
    normalize: str = field(
        default="vocabulary",
        metadata={
            "help": "Over what an answer token's probability is normalized: the 'vocabulary', or the 'catalog', the "
            "tokens that continue to an item.",
            "choices": list(NORMALIZATIONS),
        },
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        if self.normalize not in NORMALIZATIONS:
            raise ValueError(f"{name}: normalize is {self.normalize!r}; choose one of {NORMALIZATIONS}")
        # transformers 5.23 renamed it to activation_checkpointing and keeps the old name as a mirror.
        if self.gradient_checkpointing or (self.fsdp_plugin_args or {}).get("activation_checkpointing"):
            raise ValueError(f"{name}: {CHECKPOINTING_IS_REFUSED}")
        if self.neftune_noise_alpha is not None:
            raise ValueError(
                f"{name}: neftune_noise_alpha is {self.neftune_noise_alpha}, but NEFTune's noise is made for padded "
                "rows, and the tokens of answers are embedded without padding; leave it None"
            )
        if not self.use_cache:
            raise ValueError(
                f"{name}: use_cache is False, but thoughts and answers attend to the cache; leave it True"
            )


__all__ = ["NORMALIZATIONS", "LatentConfig"]
