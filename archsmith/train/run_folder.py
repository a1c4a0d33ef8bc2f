"""The run directory: its lock, and which phases are finished under which settings."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from archsmith.differences import other_configuration
from archsmith.errors import CheckpointError, ConfigError
from archsmith.files import write_atomically

UNKNOWN = "another process (or its file system has no locks)"
HOLDER = ".holder"  # file that names the process that holds the lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context manager that locks a run directory; the lock of a dead process does not count.

    Raises:
        ConfigError: another process uses it, or it is not writable.
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
    """The process that holds the lock, as it describes itself."""
    try:
        with open(folder / HOLDER, encoding="utf-8") as file:
            return " ".join(file.read(200).split()) or UNKNOWN
    except OSError:
        return UNKNOWN


class RunFolder:
    """Records finished phases in `phases.json`, each with the settings it depended on.

    Args:
        resume: `auto`, `never` (discards phases of an earlier run), or `force` (also continues from
            phases with other settings).

    Raises:
        CheckpointError: a phase was finished under other settings, or one of its files cannot be
            read.
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
        for name in (
            "phases.json", "results.json", "metrics.jsonl", "not_finite.json", "loggers.json",
        ):  # fmt: skip
            (self.path / name).unlink(missing_ok=True)

    def done(self, phase: str, identity: Mapping[str, Any]) -> bool:
        """Whether the phase is finished under exactly these settings."""
        if phase not in self.phases:
            return False
        return not other_configuration(
            self.path / f"({phase})",
            self.phases[phase],
            json.loads(json.dumps(identity)),
            force=self.resume == "force",
        )

    def finish(self, phase: str, identity: Mapping[str, Any]) -> None:
        """Records that the phase is finished."""
        self.phases[phase] = json.loads(json.dumps(identity))
        write_atomically(self.file, json.dumps(self.phases, indent=2).encode())


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run. Raises CheckpointError if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not readable; set resume=never to start over")
    return content
