"""In which settings two configurations differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def differing_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two nested configurations differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = sorted({*a, *b}, key=str)
        return [k for n in names for k in differing_keys(a.get(n), b.get(n), f"{prefix}{n}.")]
    return [] if a == b else [prefix.rstrip(".")]


def digest(plain: Any) -> str:
    """Eight hexadecimal digits of a nested value."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]
