"""What each rule dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .coding import CodedEvents


@dataclass(frozen=True)
class Counts:
    """Rows (interactions), users and items at one point."""

    rows: int
    users: int
    items: int

    @classmethod
    def of(cls, events: CodedEvents) -> Counts:
        return cls(len(events), events.num_users(), events.num_items())

    @property
    def sparsity(self) -> float:
        """Share of user-item pairs without an interaction: `1 - rows / (users * items)`."""
        return 1 - self.rows / (self.users * self.items)


@dataclass(frozen=True)
class RuleOutcome:
    """
    One rule's work.

    Args:
        rule (`str`):
            The rule with its values, e.g. `"k_core=5"`.
        before ([`Counts`]):
            What there was before it.
        after ([`Counts`]):
            What it left.
        note (`str`, *optional*, defaults to `""`):
            What else is to be said, e.g. the rounds of a k-core.
    """

    rule: str
    before: Counts
    after: Counts
    note: str = ""


def format_report(source: Counts, outcomes: Sequence[RuleOutcome]) -> str:
    """
    The outcomes as a Markdown table: after each rule, what is left and (in brackets) what went.

    Example:

    ```python
    >>> from hf_latentrec.data.preparation.report import Counts, RuleOutcome, format_report
    >>> source = Counts(rows=1200, users=90, items=40)
    >>> print(format_report(source, [RuleOutcome("k_core=5", source, Counts(1000, 80, 40), "3 rounds")]))
    | rule     | rows         | users    | items   | note     |
    |----------|--------------|----------|---------|----------|
    | source   | 1,200        | 90       | 40      |          |
    | k_core=5 | 1,000 (-200)   | 80 (-10) | 40 (-0) | 3 rounds |

    ```
    """
    rows = [("rule", "rows", "users", "items", "note")]
    rows.append(("source", f"{source.rows:,}", f"{source.users:,}", f"{source.items:,}", ""))
    for outcome in outcomes:
        after, before = asdict(outcome.after), asdict(outcome.before)
        changes = (f"{after[name]:,} (-{before[name] - after[name]:,})" for name in after)
        rows.append((outcome.rule, *changes, outcome.note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


__all__ = ["Counts", "RuleOutcome", "format_report"]
