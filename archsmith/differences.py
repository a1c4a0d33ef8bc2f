"""Nested settings: the differences of two, a digest, and the conversion of older versions."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MOVED = {"strategies.random_search.RandomSearch": "strategies.searchers.random.RandomSearch"}


def differing_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ between two nested configurations."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = sorted({*a, *b}, key=str)
        return [k for n in names for k in differing_keys(a.get(n), b.get(n), f"{prefix}{n}.")]
    return [] if a == b else [prefix.rstrip(".")]


def digest(plain: Any) -> str:
    """Eight hexadecimal digits of a nested value."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]


def renamed(settings: Any) -> Any:
    """The settings with current class paths: before version 0.2, modules `archsmith.*` were called
    `engine.*`, and the random searcher stood elsewhere."""
    if isinstance(settings, Mapping):
        return {name: _target(name, renamed(value)) for name, value in settings.items()}
    return settings


def _target(name: str, value: Any) -> Any:
    if name != "_target_" or not isinstance(value, str):
        return value
    if not value.startswith("engine."):
        return MOVED.get(value, value)
    kind, _, rest = value.removeprefix("engine.").partition(".")
    package = {"final": "archsmith.result", "runtime": "archsmith.train.runtime"}
    return ".".join(filter(None, [package.get(kind, f"archsmith.{kind}"), rest]))
