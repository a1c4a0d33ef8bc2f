"""Settings of the wrong type, found by comparing them with the defaults they replace."""

import math
from collections.abc import Iterator, Mapping
from typing import Any


def check_types(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ValueError for the first setting whose type cannot be meant.

    A default of null says nothing, a setting of null is left to whoever takes it, and so is a list
    in the place of a number, or true and false in the place of a word (`auto`).
    """
    for key, value, default in _pairs(found, defaults, ""):
        expected = _expected(value, default)
        if expected:
            raise ValueError(f"{key}: expected {expected} (as {default!r}), found {value!r}")


def _pairs(found: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> Iterator[Any]:
    for name in found.keys() & defaults.keys():
        key, value, default = f"{prefix}{name}", found[name], defaults[name]
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from _pairs(value, default, f"{key}.")
        else:
            yield key, value, default


def _expected(value: Any, default: Any) -> str | None:
    """What is expected instead of the value, or None where it may pass."""
    if isinstance(default, Mapping):
        return "settings in {}"
    if value is None or default is None:
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        if isinstance(value, list):
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number and math.isfinite(value) else "a finite number"
    if isinstance(default, list):
        return None if isinstance(value, list) else "a list in []"
    return None if isinstance(value, str | bool) else "a word"
