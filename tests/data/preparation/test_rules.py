from __future__ import annotations

from dataclasses import fields

import pytest

from hf_latentrec.data.preparation import PreparationRules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k_core": 0}, "k_core=0; pass at least 1"),
        ({"max_title_words": 0}, "max_title_words=0"),
        ({"max_interactions": -1}, "max_interactions=-1"),
        ({"repeated": "once"}, "repeated='once'; use one of keep, first, last"),
        ({"split": "random"}, "split='random'; use one of leave_one_out, temporal, published"),
        ({"start": "October 2017"}, "start='October 2017' is no ISO date"),
        ({"start": 20171001}, "start=20171001 is no ISO date"),
        ({"start": "2018-01-01", "end": "2017-01-01"}, "start=2018-01-01 is not before end=2017-01-01"),
        ({"start": "2018-01-01", "end": "2018-01-01"}, "is not before"),
        ({"min_items": 5000}, "min_items=5000 moves the start back; pass a start"),
        ({"min_items": 5, "start": "2018-01-01", "window_months": 0}, "window_months=0"),
        ({"ratios": (8, 2)}, "three positive numbers"),
        ({"ratios": (8, float("nan"), 1)}, "three positive numbers"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        PreparationRules(**settings)


def test_ratios_are_told_the_same_way():
    assert PreparationRules(ratios=(8, 1, 1)) == PreparationRules()


def test_every_field_has_help():
    assert all(field.metadata["help"] for field in fields(PreparationRules))
