"""Raw interactions -> a prepared data set: rules, split, report, fingerprint and data card."""

from __future__ import annotations

from .preparing import Preparation, prepare
from .report import Counts, RuleOutcome, format_report
from .rules import PreparationRules


__all__ = ["Counts", "Preparation", "PreparationRules", "RuleOutcome", "format_report", "prepare"]
