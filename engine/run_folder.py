"""The run directory: which phases are finished there, and under which configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint import differing_keys, write_atomically
from engine.errors import CheckpointError


class RunFolder:
    """Remembers finished phases in `phases.json`, each with the settings it depended on.

    Raises:
        CheckpointError: `resume` found a phase that was done under other settings.
    """

    def __init__(self, path: Path, *, resume: bool):
        self.path, self.resume = path, resume
        self.file = path / "phases.json"
        path.mkdir(parents=True, exist_ok=True)
        self.phases: dict[str, Any] = {}
        if resume and self.file.is_file():
            self.phases = json.loads(self.file.read_text())

    def done(self, phase: str, identity: Mapping[str, Any]) -> bool:
        """Whether the phase is finished under just these settings."""
        if phase not in self.phases:
            return False
        differing = differing_keys(self.phases[phase], json.loads(json.dumps(identity)))
        if differing:
            raise CheckpointError(
                f"{self.path}: its {phase} was done under another configuration or data, "
                "differing in "
                f"{', '.join(differing[:8])}; set resume=never to start over, or another "
                "hydra.run.dir"
            )
        return True

    def finish(self, phase: str, identity: Mapping[str, Any]) -> None:
        """Notes that the phase is finished."""
        self.phases[phase] = json.loads(json.dumps(identity))
        write_atomically(self.file, json.dumps(self.phases, indent=2).encode())
