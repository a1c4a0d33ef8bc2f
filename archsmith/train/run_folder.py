"""The run directory: its lock, and which phases are finished under which settings."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from archsmith.errors import CheckpointError, ConfigError
from archsmith.files import write_atomically
from archsmith.train.checkpoint import other_configuration

RESUME = ("auto", "never", "force")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context manager that locks a run directory; the lock of a dead process does not count.

    Raises:
        ConfigError: another process uses it, or it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held, then closed
    except OSError as error:
        raise ConfigError(
            f"hydra.run.dir: nothing can be written in {folder} ({error.strerror}); set another"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = " ".join(file.read(200).split()) or "another process"
            raise ConfigError(
                f"hydra.run.dir: {folder} is in use by {who}; wait for it, stop it, or set another"
            ) from None
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        yield
        file.truncate(0)


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
        for name in ("phases.json", "results.json", "metrics.jsonl", "not_finite.json"):
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
