"""What loggers on a server have in common: the run they continue, and no epoch sent twice."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsmith.files import write_atomically
from archsmith.loggers.logger import Logger

FILE = "loggers.json"
PROJECT = "archsmith"  # where runs go unless the library's own variables name another place
CLOCK = "seconds"  # is not the same when an epoch is repeated


class Tracker(Logger):
    """A logger whose points cannot be deleted: an epoch that a resumed run repeats with the same
    numbers is not sent again.

    `run_id` is the server's name of the run; it is kept in the run's folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        super().__init__(folder, settings)
        self._sent: dict[tuple[str, int], Mapping[str, Any]] = {}
        stored = _stored(folder)
        self.run_id = self.start(stored.get(self.package))
        if self.run_id != stored.get(self.package):
            ids = {**stored, self.package: self.run_id}
            write_atomically(folder / FILE, json.dumps(ids, indent=2).encode())

    @abstractmethod
    def start(self, run_id: str | None) -> str:
        """Continues the run of this name, or starts one; returns its name."""

    @abstractmethod
    def send(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """Sends the numbers of an epoch."""

    def resume(self, phase: str, epoch: int, dropped: Mapping[int, Mapping[str, Any]]) -> None:
        self._sent.update({(phase, later): values for later, values in dropped.items()})

    def scalars(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        before = self._sent.pop((phase, epoch), None)
        if before is None or not _same(before, values):
            self.send(phase, epoch, values)


def numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """The results that are numbers."""
    return {
        name: value
        for name, value in results.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "seed"
    }


def _same(before: Mapping[str, Any], now: Mapping[str, float]) -> bool:
    return all(now.get(name) == value for name, value in before.items() if name != CLOCK)


def _stored(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
