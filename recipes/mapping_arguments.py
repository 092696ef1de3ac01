"""Arguments that are JSON on the command line and mappings in a config file."""

from __future__ import annotations

import json


def read_mapping(name: str, value: dict | str | None) -> dict | None:
    """The mapping that an argument holds; what is wrong with it is told by the argument's `name`."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is no JSON ({error}): {value}") from error
    if not isinstance(value, dict | None):
        raise ValueError(f"{name} is {value!r}; pass a mapping from names to values")
    return value


__all__ = ["read_mapping"]
