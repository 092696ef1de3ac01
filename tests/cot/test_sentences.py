"""Where sentences end."""

from __future__ import annotations

import pytest

from hf_latentrec.cot import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ("Costs 1.5 oz. or 3.50 dollars. Cheap.", ["Costs 1.5 oz. or 3.50 dollars.", "Cheap."]),
        ("Dr. Kim and Mrs. Lee, i.e. Two, vs. Others. End.", ["Dr. Kim and Mrs. Lee, i.e. Two, vs. Others.", "End."]),
        ("Has vitamin C. Likes oil.", ["Has vitamin C.", "Likes oil."]),
        ("J. Smith wrote. Fine.", ["J. Smith wrote.", "Fine."]),
        ('He said "yes." Then left.', ['He said "yes."', "Then left."]),
        ("Next: <a_1><b_2>. <a_3> is out.", ["Next: <a_1><b_2>.", "<a_3> is out."]),
        ("First line\nSecond line", ["First line", "Second line"]),
        ("Wrapped at a\nword. Next.", ["Wrapped at a word.", "Next."]),
        ("Ends.\nlower case opens.", ["Ends.", "lower case opens."]),
        ("- one\n- two\n\n* three", ["one", "two", "three"]),
        ("1. First thing. Done.\n2) Second.", ["1. First thing.", "Done.", "2) Second."]),
        ("## Evidence\nOils.\n**Intent**\nA cleanser.", ["Evidence Oils.", "Intent A cleanser."]),
        ("Step 1: Evidence\nOils.\nStep 2 Intent\n\nMore.", ["Step 1: Evidence Oils.", "Step 2 Intent More."]),
        ("Step 1: Evidence\nProducts:\nOils.", ["Step 1: Evidence Products: Oils."]),
        ("Step 1: Buys oil. Likes it.", ["Step 1: Buys oil.", "Likes it."]),
        ("Recommendation: <a_1><b_2>", ["Recommendation: <a_1><b_2>"]),
        ("All said.\nRecommendation:", ["All said. Recommendation:"]),
        ("Recommendation:", ["Recommendation:"]),
        ("\n  \n***\n# \n", []),
    ],
)  # fmt: skip
def test_cases(text, sentences):
    assert split_sentences(text) == sentences


def test_the_papers_case():
    text = """Step 1: Extraction of Behavioral Evidence
Product types: Hydrating serum (hyaluronic acid), eye gel, anti-aging
moisturizer. Key concerns: Dryness, fine lines; emphasis
on deep hydration.
Step 3: Inference of User Intent and Goal Formulation
The user is building a routine.
Recommendation: <a_125><b_109><c_135><d_125>"""
    assert split_sentences(text) == [
        "Step 1: Extraction of Behavioral Evidence Product types: Hydrating serum (hyaluronic acid), eye gel, "
        "anti-aging moisturizer.",
        "Key concerns: Dryness, fine lines; emphasis on deep hydration.",
        "Step 3: Inference of User Intent and Goal Formulation The user is building a routine.",
        "Recommendation: <a_125><b_109><c_135><d_125>",
    ]


def test_no_word_is_lost():
    text = "Step 1: A\nOne, two. Three e.g. Four!\n\nFive:\nsix. Dr. Seven <a_1>."
    assert " ".join(split_sentences(text)).split() == text.split()
