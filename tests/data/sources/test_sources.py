from __future__ import annotations

import inspect

import pytest

from hf_latentrec.data.sources import SOURCES


NAMES = ["amazon_2014", "amazon_2018", "amazon_2023", "folder", "hub", "movielens", "steam", "table", "yelp"]


def test_names():
    assert list(SOURCES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_all_readers_are_called_alike(name):
    read = SOURCES[name]
    parameters = list(inspect.signature(read).parameters.values())
    assert read.__name__ == f"read_{name}"
    assert [parameter.name for parameter in parameters[:3]] == ["interactions", "items", "work_dir"]
    assert parameters[1].default is None
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[2:])
    needed = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    assert needed == ["interactions", "work_dir"]
