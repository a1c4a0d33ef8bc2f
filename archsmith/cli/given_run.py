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


def given_run(architecture: str, known_data: Mapping[str, Mapping[str, Any]]) -> GivenRun:
    """What is known about a given architecture.

    known_data: name -> settings, for every data set in `conf/data`.
    """
    from search_spaces.genotype import PUBLISHED

    path = Path(architecture)
    if not path.exists():
        path = PUBLISHED / f"{path.name}.json"
    run = path.is_dir()
    file = _object(path / "architecture.json" if run else path)
    meta, space = (one if isinstance(one := file.get(k), dict) else {} for k in ("meta", "space"))
    results, config = _object(path / "results.json"), _object(path / "config.json")
    title = None if run else meta.get("name")  # of a published architecture
    words = {
        "strategy": _word(results.get("strategy"), meta.get("strategy"), title),
        "space": _word(space.get("name")),
        "data": _word(results.get("data")),
    }
    seed, settings = config.get("seed"), renamed(config.get("data"))
    return GivenRun(
        {name: word for name, word in words.items() if word},
        seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None,
        settings if _readable(settings, known_data.get(words["data"] or "")) else None,
        _word(results.get("data_fingerprint")),
    )


def _word(*values: Any) -> str | None:
    """The first of the values that can be part of a folder name."""
    texts = (value for value in values if isinstance(value, str))
    return next((text for text in texts if re.fullmatch(r"[\w.-]{1,64}", text)), None)


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
