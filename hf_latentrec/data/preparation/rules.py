"""Which events a prepared data set keeps, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from ..splitting import check_ratios


REPEATED = ("keep", "first", "last")
SPLIT_WAYS = ("leave_one_out", "temporal", "published")


@dataclass(frozen=True)
class PreparationRules:
    """
    What is kept of raw interactions. The rules are applied in the order of this list; `None` is off.

    Args:
        min_rating (`float`, *optional*):
            Events rated below this are dropped.
        require_title (`bool`, *optional*, defaults to `False`):
            Drop events with items that have no title. Without it they stay, with the title `""`.
        max_title_words (`int`, *optional*):
            Drop events with items whose cleaned title has more words.
        drop_duplicates (`bool`, *optional*, defaults to `True`):
            Of rows with the same user, item and time only the first counts. Nothing to do where there are no times.
        start (`str`, *optional*):
            ISO date, UTC: events before it are dropped.
        end (`str`, *optional*):
            ISO date, UTC: events at or after its midnight are dropped.
        repeated (`str`, *optional*, defaults to `"keep"`):
            What to do when a user meets an item again: `"keep"` all, or only the `"first"` or the `"last"`.
        max_interactions (`int`, *optional*):
            Keep only so many events of each user, the newest.
        k_core (`int`, *optional*):
            Keep the largest set of events in which every user and every item has at least so many (5 is usual).
        min_items (`int`, *optional*):
            The papers' dynamic window: while fewer items than this remain after the k-core, `start` moves back by
            `window_months`; it stops at the beginning of the data (LatentR3 and FLR: 5,000 items, starting from
            October 2017, with the end fixed at October 2018).
        window_months (`int`, *optional*, defaults to 3):
            Months of one such step.
        split (`str`, *optional*, defaults to `"leave_one_out"`):
            `"leave_one_out"` (users with fewer than 3 events are dropped), `"temporal"`, or `"published"`, the
            `split` that the source brings along.
        ratios (`list[float]`, *optional*, defaults to `[8.0, 1.0, 1.0]`):
            Shares of train, validation and test targets in a temporal split.

    Raises:
        `ValueError`: A value is out of range, or two contradict each other.

    Example:

    ```python
    >>> from hf_latentrec.data.preparation import PreparationRules
    >>> rules = PreparationRules(k_core=5, start="2017-10-01", end="2018-10-01", min_items=5000, split="temporal")
    >>> rules.window_months, rules.ratios
    (3, [8.0, 1.0, 1.0])

    ```
    """

    min_rating: float | None = field(default=None, metadata={"help": "Drop events rated below this."})
    require_title: bool = field(default=False, metadata={"help": "Drop events with items that have no title."})
    max_title_words: int | None = field(
        default=None, metadata={"help": "Drop events with items whose cleaned title has more words."}
    )
    drop_duplicates: bool = field(
        default=True, metadata={"help": "Of rows with the same user, item and time keep the first."}
    )
    start: str | None = field(default=None, metadata={"help": "ISO date (UTC): drop events before it."})
    end: str | None = field(default=None, metadata={"help": "ISO date (UTC): drop events on or after it."})
    repeated: str = field(
        default="keep",
        metadata={
            "help": "A user who meets an item again: 'keep' all, the 'first', or the 'last'.",
            "choices": REPEATED,
        },
    )
    max_interactions: int | None = field(default=None, metadata={"help": "Keep so many events of a user, the newest."})
    k_core: int | None = field(
        default=None, metadata={"help": "Keep what leaves every user and item at least so many events; 5 is usual."}
    )
    min_items: int | None = field(
        default=None,
        metadata={"help": "Dynamic window: move the start back while fewer items than this remain; the papers: 5000."},
    )
    window_months: int = field(default=3, metadata={"help": "Dynamic window: months of one move."})
    split: str = field(
        default="leave_one_out",
        metadata={"help": "'leave_one_out', 'temporal', or 'published' (the source's).", "choices": SPLIT_WAYS},
    )
    ratios: list[float] = field(
        default_factory=lambda: [8.0, 1.0, 1.0],
        metadata={"help": "Temporal split: shares of train, validation and test."},
    )

    def __post_init__(self):
        for name in ("max_title_words", "max_interactions", "k_core", "min_items", "window_months"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"PreparationRules: {name}={value}; pass at least 1, or leave it out")
        for name, known in (("repeated", REPEATED), ("split", SPLIT_WAYS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"PreparationRules: {name}={value!r}; use one of {', '.join(known)}")
        for name in ("start", "end"):
            if isinstance(value := getattr(self, name), date):  # as YAML reads 2017-10-01
                object.__setattr__(self, name, value.isoformat())
        dates = [_date(name, value) for name in ("start", "end") if (value := getattr(self, name)) is not None]
        if dates != sorted(set(dates)):
            raise ValueError(f"PreparationRules: start={self.start} is not before end={self.end}; swap or change them")
        if self.min_items is not None and self.start is None:
            raise ValueError(f"PreparationRules: min_items={self.min_items} moves the start back; pass a start, too")
        check_ratios(self.ratios)
        object.__setattr__(self, "ratios", list(map(float, self.ratios)))  # the same words in all reports

    @property
    def window(self) -> tuple[date | None, date | None]:
        """`start` and `end` as dates."""
        return (self.start and date.fromisoformat(self.start)), (self.end and date.fromisoformat(self.end))


def _date(name: str, value: str) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"PreparationRules: {name}={value!r} is no ISO date; write it like 2017-10-01") from error


__all__ = ["REPEATED", "SPLIT_WAYS", "PreparationRules"]
