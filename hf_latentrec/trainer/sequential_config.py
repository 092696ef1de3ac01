"""Settings of the trainers of item-ID recommenders."""

from __future__ import annotations

from dataclasses import dataclass, field

from .contrastive_losses import SIMILARITIES
from .rec_config import RecConfig


CONTRASTIVE = ("none", "cl4srec", "duorec")


@dataclass
class SequentialTrainingConfig(RecConfig):
    """
    Settings of [`SequentialTrainer`]; see [`RecConfig`].

    Args:
        contrastive (`str`, *optional*, defaults to `"none"`):
            A contrastive loss beside the model's own: `"cl4srec"` compares two augmentations of each history,
            `"duorec"` the history under another dropout with another history that has the same target.
        contrastive_weight (`float`, *optional*, defaults to 0.1): its weight.
        temperature (`float`, *optional*, defaults to 1.0): similarities are divided by it.
        similarity (`str`, *optional*, defaults to `"dot"`): `"dot"` or `"cosine"`.
        same_user_negatives (`bool`, *optional*, defaults to `False`):
            Whether the other samples of a user in a batch are negatives of contrastive losses, too. A packed row
            brings all prefixes of a history into one batch; of samples drawn one by one, as published, hardly two are
            of one user.

    A batch of `per_device_train_batch_size` rows holds that many histories of a packed data set, with all their
    targets. `learning_rate` is 1e-3 and `lr_scheduler_type` `"constant"` by default.

    Raises:
        ValueError: as [`RecConfig`]; for an unknown choice or a number out of range.
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of AdamW."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule of the learning rate."})
    per_device_train_batch_size: int = field(
        default=256, metadata={"help": "Rows of a batch: histories with all their targets, where they are packed."}
    )
    contrastive: str = field(
        default="none",
        metadata={"help": "A contrastive loss beside the model's own.", "choices": list(CONTRASTIVE)},
    )
    contrastive_weight: float = field(default=0.1, metadata={"help": "Weight of the contrastive loss."})
    temperature: float = field(default=1.0, metadata={"help": "What similarities are divided by."})
    similarity: str = field(
        default="dot", metadata={"help": "What contrastive losses compare by.", "choices": list(SIMILARITIES)}
    )
    same_user_negatives: bool = field(
        default=False, metadata={"help": "Contrast a user's samples with each other, too, where they share a batch."}
    )

    def __post_init__(self):
        super().__post_init__()
        name = type(self).__name__
        for setting, choices in (("contrastive", CONTRASTIVE), ("similarity", SIMILARITIES)):
            if getattr(self, setting) not in choices:
                raise ValueError(f"{name}: {setting} is {getattr(self, setting)!r}; choose one of {choices}")
        if self.temperature <= 0:
            raise ValueError(f"{name}: temperature is {self.temperature}; pass a positive number")
        if self.contrastive_weight < 0:
            raise ValueError(f"{name}: contrastive_weight is {self.contrastive_weight}; pass 0 or more")


__all__ = ["CONTRASTIVE", "SequentialTrainingConfig"]
