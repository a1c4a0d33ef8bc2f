"""The run directory: one process at a time, which phases are finished, under which settings."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from archsmith.errors import CheckpointError, ConfigError
from archsmith.files import write_atomically
from archsmith.train.checkpoint import other_configuration

UNKNOWN = "another process (or its file system has no locks)"
HOLDER = ".holder"  # its file: which process has the folder
RESUME = ("auto", "never", "force")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a run directory; the lock of a dead process is no lock.

    Raises:
        ConfigError: another process runs there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"hydra.run.dir: {folder} is in use by {_holder(folder)}; wait for it, stop it, or set "
            "another"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "its file system has no locks"
        raise ConfigError(
            f"hydra.run.dir: nothing can be written in {folder} ({reason}); set another"
        ) from error
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        said = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
        write_atomically(folder / HOLDER, said.encode())
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    """Who holds the lock, in its own words."""
    try:
        with open(folder / HOLDER, encoding="utf-8") as file:
            return " ".join(file.read(200).split()) or UNKNOWN
    except OSError:
        return UNKNOWN


class RunFolder:
    """Remembers finished phases in `phases.json`, each with the settings it depended on.

    Args:
        resume: `auto`, `never` (forgets what an earlier run finished), or `force` (goes on from
            what was done under other settings).

    Raises:
        CheckpointError: `resume` found a phase that was done under other settings, or a file of
            its own that cannot be read.
    """

    def __init__(self, path: Path, *, resume: str):
        self.path, self.resume = path, resume
        self.file = path / "phases.json"
        path.mkdir(parents=True, exist_ok=True)
        self.phases: dict[str, Any] = {}
        if resume == "never":
            self._forget()
        elif self.file.is_file():
            self.phases = read_object(self.file)

    def _forget(self) -> None:
        for name in ("phases.json", "results.json", "metrics.jsonl", "not_finite.json"):
            (self.path / name).unlink(missing_ok=True)

    def done(self, phase: str, identity: Mapping[str, Any]) -> bool:
        """Whether the phase is finished under just these settings."""
        if phase not in self.phases:
            return False
        return not other_configuration(
            self.path / f"({phase})",
            self.phases[phase],
            json.loads(json.dumps(identity)),
            force=self.resume == "force",
        )

    def finish(self, phase: str, identity: Mapping[str, Any]) -> None:
        """Notes that the phase is finished."""
        self.phases[phase] = json.loads(json.dumps(identity))
        write_atomically(self.file, json.dumps(self.phases, indent=2).encode())


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run. Raises CheckpointError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not readable; set resume=never to start over")
    return content
