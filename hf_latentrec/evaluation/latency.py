"""What thinking costs: seconds per user with the thought on, and off, of one model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor


@dataclass(frozen=True)
class Latency:
    """
    Medians over the repeats, of the whole way from history to items.

    Args:
        thinking (`float`): seconds per user with the model's thoughts.
        not_thinking (`float`): seconds per user without.
        num_thoughts (`int`): thoughts of the model, at most where each user has a depth of its own.
        num_users (`int`): users that were measured.
    """

    thinking: float
    not_thinking: float
    num_thoughts: int
    num_users: int

    @property
    def overhead(self) -> float:
        """What thinking adds, as a share of the time without: 0.1 is ten percent."""
        return self.thinking / self.not_thinking - 1


@torch.inference_mode()
def measure_latency(
    model: LatentReasoningMixin,
    processor: LatentRecProcessor,
    histories: Sequence[Sequence[str]],
    *,
    num_users: int = 100,
    batch_size: int = 4,
    num_beams: int = 10,
    repeats: int = 3,
) -> Latency:
    """
    Measures recommending with and without thoughts, in turns, so that both meet the same moods of the machine. By
    default as LatentR³ does (App. G, Fig. 5): 100 users, batches of 4, 10 beams, three times; of the three the median,
    not the mean.

    Args:
        model: the recommender.
        processor (`LatentRecProcessor`): catalog, trie and prompt.
        histories (`list[list[str]]`): item ids of each user; the first `num_users` are taken.
        num_users (`int`, *optional*, defaults to 100): users of one measurement.
        batch_size (`int`, *optional*, defaults to 4): users per batch.
        num_beams (`int`, *optional*, defaults to 10): beams per user.
        repeats (`int`, *optional*, defaults to 3): measurements of each kind, after one batch of each that does not
            count.

    Returns:
        `Latency`: in seconds per user.

    Raises:
        ValueError: a model that does not think, or fewer histories than users.
    """
    if model.config.num_thoughts == 0:
        raise ValueError(
            "measure_latency: the model's num_thoughts is 0, so there is nothing to compare; let it think"
        )
    if len(histories) < num_users:
        raise ValueError(
            f"measure_latency: {len(histories)} histories for {num_users} users; pass more, or a smaller num_users"
        )
    trie = processor.item_trie.to(model.device)
    batches = [list(histories[i : min(i + batch_size, num_users)]) for i in range(0, num_users, batch_size)]

    def seconds_per_user(thoughts: int | None, batches: list) -> float:
        _wait_for(model.device)
        start = time.perf_counter()
        for batch in batches:
            inputs = processor(batch).to(model.device)
            output = model.generate(**inputs, item_trie=trie, num_beams=num_beams, num_thoughts=thoughts)
            processor.post_process_recommendations(output)
        _wait_for(model.device)
        return (time.perf_counter() - start) / num_users

    was_training = model.training
    model.eval()
    measured: dict[int | None, list[float]] = {None: [], 0: []}  # as the model thinks, and not at all
    for thoughts in measured:
        seconds_per_user(thoughts, batches[:1])  # warm up
    for _ in range(repeats):
        for thoughts, seconds in measured.items():
            seconds.append(seconds_per_user(thoughts, batches))
    model.train(was_training)
    thinking, not_thinking = (statistics.median(seconds) for seconds in measured.values())
    return Latency(thinking, not_thinking, model.config.num_thoughts, num_users)


def _wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


__all__ = ["Latency", "measure_latency"]
