"""What `architecture=<run directory>` provides besides cells: names, seed and images of its run.

The folder may be someone else's, so it is untrusted: values that name code, or that fail
validation, are ignored.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsmith.differences import renamed


@dataclass(frozen=True)
class GivenRun:
    """What the folder records; `data` is None if its settings cannot load the images again."""

    names: Mapping[str, str]  # strategy, space, data; unknown ones are missing
    seed: int | None = None
    data: Mapping[str, Any] | None = None
    fingerprint: str | None = None


def given_run(architecture: Any, known_data: Mapping[str, Mapping[str, Any]]) -> GivenRun | None:
    """What is known about a given architecture; None if none is given.

    known_data: name -> settings, for every data set in `conf/data`.
    """
    if not isinstance(architecture, str):
        return None
    from search_spaces.genotype import PUBLISHED

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
    """The space of an architecture file, and as strategy the first of `of_meta` in its meta."""
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
    """The values that can be part of a folder name."""
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str) and len(value) <= longest and re.fullmatch(r"[\w.-]+", value)
    }


def _readable(settings: Any, known: Mapping[str, Any] | None) -> bool:
    """Whether these are settings of a data set in `conf/data`, with plain values only."""
    if not isinstance(settings, Mapping) or known is None or set(settings) - set(known):
        return False
    fixed = all(settings.get(key) == known[key] for key in ("_target_", "dataset") if key in known)
    return fixed and _plain({k: v for k, v in settings.items() if k != "_target_"})


def _plain(value: Any) -> bool:
    """Whether it contains no Hydra key such as `_target_` and no interpolation."""
    if isinstance(value, Mapping):
        return not any(str(key).startswith("_") for key in value) and _plain(list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(map(_plain, value))
    return not isinstance(value, str) or "${" not in value


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} if there is none, which the caller reports."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
