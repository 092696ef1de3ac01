"""What a recommendation costs: seconds per user, stage by stage and by batch size, with the thought on and off."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from ..models.latent_reasoning.explicit_cot import write_text
from ..models.modes import eval_mode


if TYPE_CHECKING:
    from ..models.lares.sequential_recommender import SequentialRecommender
    from ..models.latent_reasoning.modeling_latent_reasoning import LatentReasoningMixin
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
STAGES = ("encode", "think", "decode", "total")
Histories = Sequence[Sequence[str]]


class Stopwatch:
    """
    Seconds by stage. Nested stages each count their own time in full.

    Args:
        device (`torch.device`): what it was given is done before a stage starts, and before it ends.
    """

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[stage] += self._now() - start

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def read(self) -> dict[str, float]:
        """By stage; decoding is what the others leave of the total."""
        seconds = dict(self.seconds)
        seconds["decode"] = seconds["total"] - seconds["encode"] - seconds["think"]
        return seconds


@dataclass(frozen=True)
class _Way:
    """One way to recommend: what its rows say of its thinking, which stages it has, and how it is done."""

    thinking: bool | str
    stages: tuple[str, ...]
    run: Callable[[Histories, Stopwatch], None]


@torch.inference_mode()
def measure_latency(
    model: LatentReasoningMixin,
    processor: LatentRecProcessor,
    histories: Histories,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_users: int = 100,
    num_beams: int = 10,
    normalize: str = "catalog",
    repeats: int = 3,
    max_cot_tokens: int | None = None,
) -> list[dict[str, Any]]:
    """
    Times a language model from histories to items: as it thinks; without thoughts; and where `max_cot_tokens` is given
    after a text that it writes. All of them take turns, so that they meet the same moods of the machine, after one
    batch of each that does not count. A figure is the median of the repeats. With `batch_sizes=(4,)` this is what
    LatentR³ measures (App. G, Fig. 5: 100 users, batches of 4, 10 beams, three times).

    The stages are those of `generate`, and are timed inside of it: `"encode"`, from histories to the prompts' states;
    `"think"`, the thoughts, or the text; `"decode"`, the search and the listing of items, which is what the other two
    leave of `"total"`. In one repeat they sum to the total, so their medians do but for the noise. An accelerator is
    synchronized at their borders, which costs it what it could have done ahead.

    Args:
        model: the recommender.
        processor (`LatentRecProcessor`): catalog, trie and prompt.
        histories (`list[list[str]]`): item ids of each user; the first are taken.
        batch_sizes (`Sequence[int]`, *optional*, defaults to 1 to 64): users per batch.
        num_users (`int`, *optional*, defaults to 100): users of one measurement, less what does not fill a batch.
        num_beams (`int`, *optional*, defaults to 10): beams per user.
        normalize (`str`, *optional*, defaults to `"catalog"`): see [`LatentReasoningMixin.generate`].
        repeats (`int`, *optional*, defaults to 3): measurements of each kind.
        max_cot_tokens (`int`, *optional*): also time the text that the model writes, of so many tokens at most, in
            place of thoughts (see [`write_text`]).

    Returns:
        `list[dict]`: `stage`, `thinking` (`True`, `False` or `"explicit_cot"`), `batch_size`, `seconds_per_user`,
        `users_per_second`. Of a model that has no thoughts only the rows without.

    Raises:
        ValueError: fewer histories than users, or than the largest batch takes; a number that is not positive; a text
            asked of a model that has no token to end it.
    """
    trie = processor.item_trie.to(model.device)

    def recommend(num_thoughts: int | None, writes_text: bool, batch: Histories, watch: Stopwatch) -> None:
        with watch("encode"):
            inputs = processor(list(batch)).to(model.device)
        if writes_text:
            with watch("think"):
                inputs = write_text(model, inputs, max_cot_tokens, processor.tokenizer.pad_token_id)
        with _watched(model, watch):
            output = model.generate(
                **inputs, item_trie=trie, num_beams=num_beams, normalize=normalize, num_thoughts=num_thoughts
            )
        processor.post_process_recommendations(output)

    kinds = {True: (None, False)} if model.config.num_thoughts > 0 else {}
    kinds[False] = (0, False)
    if max_cot_tokens is not None:
        kinds["explicit_cot"] = (0, True)
    ways = [_Way(thinking, STAGES, partial(recommend, *how)) for thinking, how in kinds.items()]
    return _measure(model, ways, histories, batch_sizes, num_users, repeats)


@torch.inference_mode()
def measure_item_latency(
    model: SequentialRecommender,
    histories: Histories,
    *,
    thinks: bool = False,
    num_steps: Sequence[int] = (),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_users: int = 100,
    top_k: int = 10,
    repeats: int = 3,
) -> list[dict[str, Any]]:
    """
    Times a recommender of item ids from histories to its best items, as [`measure_latency`] does; the total alone.

    Args:
        model (`SequentialRecommender`): the recommender.
        histories (`list[list[str]]`): item ids of each user; the first are taken.
        thinks (`bool`, *optional*, defaults to `False`): what rows say of the model as it is.
        num_steps (`Sequence[int]`, *optional*): for a model that reasons in steps (LARES): also after these numbers of
            them, in place of its own.
        batch_sizes, num_users, repeats: as in [`measure_latency`].
        top_k (`int`, *optional*, defaults to 10): items per user.

    Returns:
        `list[dict]`: as [`measure_latency`]; `thinking` is `thinks`, or `"4 steps"` where the number was given.

    Raises:
        ValueError: as [`measure_latency`].
    """

    def recommend(given: dict[str, int], batch: Histories, watch: Stopwatch) -> None:
        model.recommend(batch, k=top_k, **given)

    named = {f"{steps} step{'' if steps == 1 else 's'}": {"num_steps": steps} for steps in num_steps}
    kinds = {thinks: {}, **named}
    ways = [_Way(thinking, ("total",), partial(recommend, given)) for thinking, given in kinds.items()]
    return _measure(model, ways, histories, batch_sizes, num_users, repeats)


def _measure(
    model: Any, ways: list[_Way], histories: Histories, batch_sizes: Sequence[int], num_users: int, repeats: int
) -> list[dict[str, Any]]:
    """The rows of all ways at all batch sizes."""
    _check(histories, batch_sizes, num_users, repeats)

    def seconds_of(way: _Way, batches: list[Histories]) -> dict[str, float]:
        watch = Stopwatch(model.device)
        with watch("total"):
            for batch in batches:
                way.run(batch, watch)
        return watch.read()

    rows = []
    with eval_mode(model):
        for size in tqdm(batch_sizes, desc="latency", unit="batch size"):
            batches = [histories[start : start + size] for start in range(0, num_users - size + 1, size)]
            for way in ways:
                seconds_of(way, batches[:1])  # warm up
            measured = [[seconds_of(way, batches) for way in ways] for _ in range(repeats)]
            for way, repeated in zip(ways, zip(*measured, strict=True), strict=True):
                for stage in way.stages:
                    seconds = statistics.median(one[stage] for one in repeated) / (len(batches) * size)
                    rows.append(
                        {
                            "stage": stage,
                            "thinking": way.thinking,
                            "batch_size": size,
                            "seconds_per_user": seconds,
                            "users_per_second": 1 / seconds if seconds > 0 else None,
                        }
                    )
    return rows


@contextmanager
def _watched(model: LatentReasoningMixin, watch: Stopwatch) -> Iterator[None]:
    """In the block, the watch tells what `generate` spends in the model's own `encode` and `think`."""

    def timed(name: str, *arguments: Any, **given: Any) -> Any:
        with watch(name):
            return getattr(type(model), name)(model, *arguments, **given)

    for name in ("encode", "think"):
        setattr(model, name, partial(timed, name))
    try:
        yield
    finally:
        del model.encode, model.think


def _check(histories: Histories, batch_sizes: Sequence[int], num_users: int, repeats: int) -> None:
    if len(batch_sizes) == 0:
        raise ValueError("measure_latency: batch_sizes is empty; pass one at least, such as 1")
    if min(batch_sizes) < 1 or repeats < 1:
        raise ValueError(
            f"measure_latency: batch_sizes are {list(batch_sizes)} and repeats {repeats}; pass positive numbers"
        )
    if len(histories) < num_users:
        raise ValueError(
            f"measure_latency: {len(histories)} histories for {num_users} users; pass more, or a smaller num_users"
        )
    if max(batch_sizes) > num_users:
        raise ValueError(
            f"measure_latency: {num_users} users do not fill a batch of {max(batch_sizes)}; pass more users, or "
            "smaller batch_sizes"
        )


__all__ = ["BATCH_SIZES", "measure_item_latency", "measure_latency"]
