"""All rules in their order, and what each of them dropped."""

from __future__ import annotations

import calendar
import logging
from collections.abc import Callable
from datetime import UTC, date, datetime

import numpy as np

from ..splitting import MIN_INTERACTIONS
from .coding import CodedEvents
from .filters import dense_core, distinct_pairs, newest, without_duplicates
from .report import Counts, RuleOutcome
from .rules import PreparationRules


logger = logging.getLogger(__name__)

Keep = Callable[[CodedEvents], np.ndarray | tuple[np.ndarray, str]]  # which events stay, and a note


def apply_rules(
    events: CodedEvents, rules: PreparationRules, title_words_I: np.ndarray | None
) -> tuple[CodedEvents, list[RuleOutcome]]:
    """
    Drop what the rules drop.

    Args:
        events ([`CodedEvents`]):
            All events of a source.
        rules ([`PreparationRules`]):
            The rules.
        title_words_I (`np.ndarray` of shape `[I]`, *optional*):
            Words in the title of each item, 0 where it has none; `None` where the source knows no titles.

    Returns:
        `tuple[CodedEvents, list[RuleOutcome]]`: what is left, and one outcome per rule, in order.

    Raises:
        `ValueError`: A rule needs what the source lacks, or nothing is left.
    """
    _check_columns(events, rules, title_words_I)
    outcomes: list[RuleOutcome] = []
    events = _apply(events, _steps_before_window(events, rules, title_words_I), outcomes)
    start, end = rules.window
    if rules.min_items is None or len(events) == 0:
        events = _apply(events, _steps_from_window(rules, start, end), outcomes)
    else:
        events = _apply_moving_window(events, rules, outcomes)
    if rules.split == "leave_one_out":
        steps = {f"at least {MIN_INTERACTIONS} events of a user": lambda e: e.lengths() >= MIN_INTERACTIONS}
        events = _apply(events, steps, outcomes)
    if len(events) == 0:
        raise ValueError(_nothing_left(outcomes))
    return events, outcomes


def months_before(day: date, months: int) -> date:
    """
    The same day of the month, so many months earlier; a day that the month lacks becomes its last.

    Example:

    ```python
    >>> from datetime import date
    >>> from hf_latentrec.data.preparation.applying import months_before
    >>> months_before(date(2017, 1, 31), 2).isoformat()
    '2016-11-30'

    ```
    """
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def _check_columns(events: CodedEvents, rules: PreparationRules, title_words_I: np.ndarray | None) -> None:
    timed = {
        "start": rules.start is not None,
        "end": rules.end is not None,
        "split='temporal'": rules.split == "temporal",
    }
    titled = {"require_title": rules.require_title, "max_title_words": rules.max_title_words is not None}
    needs = [(name, "timestamps", events.time_E) for name, used in timed.items() if used]
    needs += [(name, "titles", title_words_I) for name, used in titled.items() if used]
    needs += [("min_rating", "ratings", events.rating_E)] if rules.min_rating is not None else []
    needs += [("split='published'", "a published split", events.split_E)] if rules.split == "published" else []
    for name, what, column in needs:
        if column is None:
            raise ValueError(f"PreparationRules: {name} needs {what}, and the source has none; leave the rule out")
    if rules.min_rating is not None and (missing := int(np.isnan(events.rating_E).sum())):
        raise ValueError(
            f"PreparationRules: min_rating={rules.min_rating}, but {missing:,} of {len(events):,} events have no "
            "rating; leave the rule out, or remove these rows"
        )


def _steps_before_window(
    events: CodedEvents, rules: PreparationRules, title_words_I: np.ndarray | None
) -> dict[str, Keep]:
    steps: dict[str, Keep] = {}
    if rules.min_rating is not None:
        least = np.float32(rules.min_rating)  # as ratings are kept
        steps[f"min_rating={rules.min_rating:g}"] = lambda e: e.rating_E >= least
    if rules.require_title:
        steps["require_title"] = lambda e: (title_words_I > 0)[e.item_E]
    if rules.max_title_words is not None:
        steps[f"max_title_words={rules.max_title_words}"] = lambda e: (title_words_I <= rules.max_title_words)[
            e.item_E
        ]
    if rules.drop_duplicates:
        if events.time_E is None:
            steps["drop_duplicates"] = lambda e: (np.ones(len(e), dtype=bool), "no timestamps: not applied")
        else:
            steps["drop_duplicates"] = without_duplicates
    return steps


def _steps_from_window(rules: PreparationRules, start: date | None, end: date | None) -> dict[str, Keep]:
    steps: dict[str, Keep] = {}
    if start is not None:
        steps[f"start={start}"] = lambda e: e.time_E >= _seconds(start)
    if end is not None:
        steps[f"end={end}"] = lambda e: e.time_E < _seconds(end)
    if rules.repeated != "keep":
        steps[f"repeated={rules.repeated}"] = lambda e: distinct_pairs(e.user_E, e.item_E, rules.repeated)
    if rules.max_interactions is not None:
        steps[f"max_interactions={rules.max_interactions}"] = lambda e: newest(e, rules.max_interactions)
    if rules.k_core is not None:
        steps[f"k_core={rules.k_core}"] = lambda e: _core(e, rules.k_core)
    return steps


def _core(events: CodedEvents, k: int) -> tuple[np.ndarray, str]:
    keep_E, rounds = dense_core(events.user_E, events.item_E, k)
    return keep_E, f"{rounds} rounds"


def _apply(events: CodedEvents, steps: dict[str, Keep], outcomes: list[RuleOutcome]) -> CodedEvents:
    before = outcomes[-1].after if outcomes else Counts.of(events)
    for rule, keep in steps.items():
        kept = keep(events)
        keep_E, note = kept if isinstance(kept, tuple) else (kept, "")
        events = events.select(keep_E)
        after = Counts.of(events)
        logger.info("%s: %s of %s events stay", rule, f"{after.rows:,}", f"{before.rows:,}")
        outcomes.append(RuleOutcome(rule, before, after, note))
        before = after
    return events


def _apply_moving_window(events: CodedEvents, rules: PreparationRules, outcomes: list[RuleOutcome]) -> CodedEvents:
    first_start, end = rules.window
    start, oldest, moves = first_start, float(events.time_E.min()), 0
    while True:
        tried = outcomes[:]
        kept = _apply(events, _steps_from_window(rules, start, end), tried)
        num_items = kept.num_items()
        if num_items >= rules.min_items or _seconds(start) <= oldest:
            break
        start, moves = months_before(start, rules.window_months), moves + 1
    note = f"start moved back from {first_start} to {start} in {moves} steps: {num_items:,} items"
    if num_items < rules.min_items:
        note += f", fewer than min_items={rules.min_items:,}, at the beginning of the data"
        logger.warning("min_items=%d: %s", rules.min_items, note)
    counts = tried[-1].after
    outcomes[:] = [*tried, RuleOutcome(f"min_items={rules.min_items}", counts, counts, note)]
    return kept


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _nothing_left(outcomes: list[RuleOutcome]) -> str:
    first = outcomes[0].before
    last = next(outcome for outcome in outcomes if outcome.after.rows == 0)
    dropped = "; ".join(
        f"{o.rule} {o.before.rows - o.after.rows:,} rows of {o.before.users - o.after.users:,} users"
        for o in outcomes[: outcomes.index(last) + 1]
    )
    return (
        f"nothing is left after {last.rule}, of {first.rows:,} interactions of {first.users:,} users with "
        f"{first.items:,} items. Dropped by each rule: {dropped}. Weaken {last.rule} or a rule before it"
    )


__all__ = ["apply_rules", "months_before"]
