"""Checkpoints that survive a kill at any moment: written beside, synced, renamed, checksummed."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.errors import CheckpointError

log = logging.getLogger(__name__)

KEPT = 2


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file by one of this content, or leaves the old one untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def differing_keys(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two nested configurations differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = sorted({*a, *b}, key=str)
        return [k for n in names for k in differing_keys(a.get(n), b.get(n), f"{prefix}{n}.")]
    return [] if a == b else [prefix.rstrip(".")]


class Checkpoints:
    """The newest checkpoints of one phase in `<folder>/<phase>_<step>.pt`, with a manifest of
    checksums.

    `identity` is what a checkpoint must agree with (configuration, fingerprint of the data), plain
    JSON values.
    """

    def __init__(self, folder: Path, phase: str, identity: Mapping[str, Any]):
        self.folder, self.phase = folder, phase
        self.identity = json.loads(json.dumps(identity))
        self.manifest = folder / f"{phase}_manifest.json"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, then the manifest that names it, then removes the oldest."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "step": step, "state": state}, buffer)
        content = buffer.getvalue()
        name = f"{self.phase}_{step:06d}.pt"
        write_atomically(self.folder / name, content)
        entries = [e for e in self._entries() if e["file"] != name]
        entries.append({"file": name, "step": step, "sha256": hashlib.sha256(content).hexdigest()})
        write_atomically(self.manifest, json.dumps(entries[-KEPT:], indent=2).encode())
        for old in entries[:-KEPT]:
            (self.folder / old["file"]).unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The state of the newest intact checkpoint, on the CPU; None where there is none.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest belongs to another
                configuration.
        """
        entries = self._entries()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                log.warning("%s is damaged or missing; the checkpoint before it is used", path)
                continue
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            differing = differing_keys(saved["identity"], self.identity)
            if differing:
                raise CheckpointError(
                    f"{path}: saved under another configuration or data, differing in "
                    f"{', '.join(differing[:8])}; set resume=never to start over, or another "
                    "hydra.run.dir"
                )
            return saved["state"]
        if entries:
            raise CheckpointError(
                f"{self.folder}: no intact checkpoint among {len(entries)}; set resume=never to "
                "start over"
            )
        return None

    def clear(self) -> None:
        """Forgets every checkpoint of this phase."""
        for entry in self._entries():
            (self.folder / entry["file"]).unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)

    def _entries(self) -> list[dict[str, Any]]:
        if not self.manifest.is_file():
            return []
        try:
            return list(json.loads(self.manifest.read_text()))
        except ValueError:
            raise CheckpointError(
                f"{self.manifest}: not readable; set resume=never to start over"
            ) from None
