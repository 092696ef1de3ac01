"""Ids that an error about an unknown one offers."""

import difflib
import random
from pathlib import Path

import pytest

from hf_latentrec.models.lares import similar_ids as of_lares
from hf_latentrec.models.latent_reasoning import similar_ids as of_language_models
from hf_latentrec.models.latent_reasoning.similar_ids import NUM_CANDIDATES, similar_ids


@pytest.mark.parametrize(("unknown", "closest"), [("B0123", "B01234"), ("b01234", "B01234"), (7, "i7"), ("B99", "B9")])
def test_the_likeliest_mistake_comes_first(unknown, closest):
    assert similar_ids(unknown, ["i1", "B01234", "B9", "i7", "B0999"])[0] == closest


def test_few_ids_are_all_compared():
    known = [f"{random.Random(i).randrange(10**6)}" for i in range(NUM_CANDIDATES)]
    assert similar_ids("31x415", known) == difflib.get_close_matches("31x415", known, n=3, cutoff=0.0)


def test_of_many_ids_one_that_shares_most_letters_is_found():
    known = [f"A{number:08d}" for number in range(20_000)]
    assert similar_ids("B00012345", known, num_ids=1) == ["A00012345"]


def test_no_known_ids():
    assert similar_ids("x", []) == []


def test_both_copies_are_the_same():
    assert Path(of_lares.__file__).read_text() == Path(of_language_models.__file__).read_text()
