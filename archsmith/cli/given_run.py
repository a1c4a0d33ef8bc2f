"""What `architecture=<run directory>` brings besides cells: the names, seed and images of its run.

The folder may be somebody else's: nothing of it names code, and what is odd in it is not taken.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsmith.differences import renamed
from search_spaces.genotype import PUBLISHED


@dataclass(frozen=True)
class GivenRun:
    """A folder's word for itself; `data` is None where its images cannot be read again by it."""

    names: Mapping[str, str]  # strategy, space, data: those that are known
    seed: int | None = None
    data: Mapping[str, Any] | None = None
    fingerprint: str | None = None


def given_run(architecture: Any, known_data: Mapping[str, Mapping[str, Any]]) -> GivenRun | None:
    """What is known of a given architecture; None where there is none.

    known_data: name -> the settings of every kind of images that we can read.
    """
    if not isinstance(architecture, str):
        return None
    path = Path(architecture)
    if not path.exists():
        path = PUBLISHED / f"{path.name}.json"
    if not path.is_dir():
        return GivenRun(_names_of_file(path, {"name", "strategy"}))
    names = _names_of_file(path / "architecture.json", {"strategy"})
    results, config = _object(path / "results.json"), _object(path / "config.json")
    names |= _words({"strategy": results.get("strategy"), "data": results.get("data")})
    seed, settings = config.get("seed"), renamed(config.get("data"))
    return GivenRun(
        names,
        seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None,
        settings if _readable(settings, known_data.get(names.get("data", ""))) else None,
        _words({"found": results.get("data_fingerprint")}, longest=64).get("found"),
    )


def _names_of_file(path: Path, of_meta: set[str]) -> dict[str, str]:
    """The space of an architecture file, and the first of these that its meta knows."""
    file = _object(path)
    meta, space = file.get("meta"), file.get("space")
    said = (
        [meta.get(key) for key in sorted(of_meta, reverse=True)] if isinstance(meta, dict) else []
    )
    strategy = next((value for value in said if value), None)
    return _words(
        {"strategy": strategy, "space": space.get("name") if isinstance(space, dict) else None}
    )


def _words(found: Mapping[str, Any], longest: int = 60) -> dict[str, str]:
    """Those that can be part of a folder's name."""
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str) and len(value) <= longest and re.fullmatch(r"[\w.-]+", value)
    }


def _readable(settings: Any, known: Mapping[str, Any] | None) -> bool:
    """Whether settings of images are those of a kind that we know, with values and no more."""
    if not isinstance(settings, Mapping) or known is None or set(settings) - set(known):
        return False
    fixed = all(settings.get(key) == known[key] for key in ("_target_", "dataset") if key in known)
    return fixed and _plain({k: v for k, v in settings.items() if k != "_target_"})


def _plain(value: Any) -> bool:
    """No name of code, and nothing that would be resolved."""
    if isinstance(value, Mapping):
        return not any(str(key).startswith("_") for key in value) and _plain(list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(map(_plain, value))
    return not isinstance(value, str) or "${" not in value


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is none: who needs it says what is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
