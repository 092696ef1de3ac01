"""What is published with a model: its card, its files, and the way to the Hub."""

from __future__ import annotations

from .card_facts import CardFacts, DataFacts, describe_model
from .integrity import check_files, write_checksums
from .model_card import render_card, write_card
from .publishing import PublishError, publish
from .systems import SYSTEMS, System, system_of


__all__ = [
    "SYSTEMS",
    "CardFacts",
    "DataFacts",
    "PublishError",
    "System",
    "check_files",
    "describe_model",
    "publish",
    "render_card",
    "system_of",
    "write_card",
    "write_checksums",
]
