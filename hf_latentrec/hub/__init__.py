"""What is published with a model: its card, its files, and the way to the Hub."""

from __future__ import annotations

from .card_facts import CardFacts, DataFacts, describe_model
from .model_card import render_card, write_card
from .publishing import PublishError, publish
from .systems import SYSTEMS, System, system_of


__all__ = [
    "SYSTEMS",
    "CardFacts",
    "DataFacts",
    "PublishError",
    "System",
    "describe_model",
    "publish",
    "render_card",
    "system_of",
    "write_card",
]
