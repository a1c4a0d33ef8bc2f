"""Nested settings: the differences of two, a digest, and the conversion of older versions."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsmith.errors import CheckpointError

log = logging.getLogger(__name__)

MOVED = {
    "archsmith.result.baseline.Baseline": "archsmith.result.baseline.HandDesigned",
    "strategies.edge_normalisation.softmax.EdgeSoftmax": (
        "strategies.topology.edge_normalisation.EdgeNormalisation"
    ),
    "strategies.random_search.RandomSearch": "strategies.searchers.random.RandomSearch",
    "strategies.discretisation.strongest.best_candidates": (
        "strategies.discretisation.strongest.best_options"
    ),
}
RENAMED = {"edge_normalisation": "topology"}  # settings of a strategy
ADDED: dict[str, dict[str, Any]] = {  # class -> settings that it has now, as it was before
    "archsmith.data.sets.folder": {"test_share": None},
    "strategies.strategy.Strategy": {
        "regularisation": None,
        "schedule": {"_target_": "strategies.schedules.cosine", "_partial_": True},
        "alpha_schedule": {"_target_": "strategies.schedules.constant", "_partial_": True},
    },
}
ADDED_TO_GROUPS: dict[str, dict[str, Any]] = {  # likewise
    "search": {"score": "training", "signal": False},
    "export": {"latency": False},
}


def differing_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ between two nested configurations."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = sorted({*a, *b}, key=str)
        return [k for n in names for k in differing_keys(a.get(n), b.get(n), f"{prefix}{n}.")]
    return [] if a == b else [prefix.rstrip(".")]


def given(settings: Any) -> Any:
    """The settings without those that are null, which count as missing."""
    if isinstance(settings, Mapping):
        return {name: given(one) for name, one in settings.items() if one is not None}
    return settings


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, without those that are null."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


def value_at(settings: Any, key: str) -> Any:
    """The value of a dotted name in nested settings; None if there is none."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


def digest(plain: Any) -> str:
    """Eight hexadecimal digits of a nested value."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]


def renamed(settings: Any) -> Any:
    """The settings in the terms of this version: class paths (before version 0.2, modules
    `archsmith.*` were called `engine.*`), names of settings, and settings that did not exist."""
    if not isinstance(settings, Mapping):
        return settings
    new = {name: _target(name, renamed(value)) for name, value in settings.items()}
    new |= {
        n: {**more, **new[n]} for n, more in ADDED_TO_GROUPS.items() if isinstance(new.get(n), dict)
    }
    added = ADDED.get(new.get("_target_", ""))
    if added is None:
        return new
    return {**added, **{RENAMED.get(name, name): value for name, value in new.items()}}


def _target(name: str, value: Any) -> Any:
    if name != "_target_" or not isinstance(value, str):
        return value
    if not value.startswith("engine."):
        return MOVED.get(value, value)
    kind, _, rest = value.removeprefix("engine.").partition(".")
    package = {"final": "archsmith.result", "runtime": "archsmith.train.runtime"}
    return ".".join(filter(None, [package.get(kind, f"archsmith.{kind}"), rest]))


def other_configuration(where: Path, saved: Any, present: Any, *, force: bool) -> bool:
    """Whether `saved` belongs to another configuration; logs the keys in which it differs.

    Raises:
        CheckpointError: it does, and `force` is not set.
    """
    differing = differing_keys(renamed(saved), present)
    if not differing:
        return False
    more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
    said = (
        f"{where}: saved under another configuration or data, differing in "
        f"{', '.join(differing[:8])}{more}"
    )
    if not force:
        raise CheckpointError(
            f"{said}; set resume=never to start over, resume=force to go on from it, or another "
            "hydra.run.dir"
        )
    log.warning("%s; taken all the same (resume=force)", said)
    return True
