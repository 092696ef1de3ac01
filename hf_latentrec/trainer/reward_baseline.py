"""The mean reward that LASAR's REINFORCE is relative to."""

from __future__ import annotations

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class RewardBaseline(TrainerCallback, ExportableState):
    """
    Exponential moving average of the rewards of global batches, `b_EMA` of LASAR Eq. 6. As a callback with a state it
    is part of every checkpoint, so a resumed run goes on with it.

    Example:
        >>> baseline = RewardBaseline()
        >>> baseline.current(0.5), baseline.current(0.1)  # nothing seen yet: the batch's own mean
        (0.5, 0.1)
        >>> baseline.update(0.5, decay=0.75), baseline.update(0.1, decay=0.75)
        (0.5, 0.4)
    """

    def __init__(self):
        self.value: float | None = None

    def current(self, mean_reward: float) -> float:
        """The baseline of a batch: what earlier batches left, or its own mean before there was any."""
        return mean_reward if self.value is None else self.value

    def update(self, mean_reward: float, decay: float) -> float:
        """Takes up a batch's mean: `b = decay * b + (1 - decay) * mean_reward`."""
        self.value = decay * self.current(mean_reward) + (1 - decay) * mean_reward
        return self.value

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"value": self.value}}


__all__ = ["RewardBaseline"]
