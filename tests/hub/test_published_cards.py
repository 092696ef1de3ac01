"""The cards in model_cards/ are what the facts beside them say, and their figures are measured ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_latentrec.hub import SYSTEMS, CardFacts, render_card


ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "model_cards"
MEASURED = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
BY_FACTS = ("latentr3", "flr", "lares")


@pytest.mark.parametrize("name", BY_FACTS)
def test_a_card_is_written_from_its_facts(name):
    facts = CardFacts.load(CARDS / "facts" / f"{name}.json")
    assert facts.system == name in SYSTEMS
    expected = render_card(facts, "path/to/checkpoint", remote_code=True)
    assert (CARDS / f"{name}.md").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("name", BY_FACTS)
def test_every_row_of_results_was_measured(name):
    facts = CardFacts.load(CARDS / "facts" / f"{name}.json")
    start = f"{SYSTEMS[name].name} on Amazon Scientific"
    section = next(part for part in re.split(r"\n## ", MEASURED) if part.startswith(start))
    for setting, metrics in facts.results.items():
        row, protocol = setting.rsplit(", ", 1)
        table = section.split(f"| {protocol} | ", 1)[1]
        assert f"| {row} | {' | '.join(metrics.values())} |" in table.split("\n\n", 1)[0], setting
    assert len(facts.results) in (10, 12)


@pytest.mark.parametrize("name", ["lasar", *BY_FACTS])
def test_the_metadata_are_valid(name):
    card = ModelCard.load(CARDS / f"{name}.md", ignore_metadata_errors=False)
    assert card.data.library_name == "hf_latentrec" and name in card.data.tags
    assert f"[{name}.md]({name}.md)" in (CARDS / "README.md").read_text(encoding="utf-8")
