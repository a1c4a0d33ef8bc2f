"""A logger: where the numbers, pictures and results of a run go besides its own files."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves.

    Args:
        results: the content of `results.json`.
        changed: the settings that the command line changes, as dotted names.
        files: those worth keeping beside the numbers.
    """

    results: Mapping[str, Any]
    changed: Sequence[str]
    files: Sequence[Path]


class Logger:
    """Receives what a run measures; a method does nothing unless it is overridden.

    Epochs count from 1, as on the console; those of a searcher are its architectures.

    Args:
        folder: the run's.
        settings: of the run, by dotted names.
    """

    package: ClassVar[str]  # which must be installed

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self.settings = folder, settings

    def scalars(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """The numbers of an epoch."""

    def image(self, phase: str, epoch: int, name: str, pixels: np.ndarray) -> None:
        """A picture (H, W, 3) uint8; `name` is such as `cells/normal`."""

    def histogram(self, phase: str, epoch: int, name: str, values: Tensor) -> None:
        """The distribution of some values; `name` is such as `alphas/normal`."""

    def resume(self, phase: str, epoch: int, dropped: Mapping[int, Mapping[str, Any]]) -> None:
        """The phase continues after this epoch; 0: it begins.

        Later epochs were sent before and will be sent again; `dropped` has their numbers.
        """

    def pause(self) -> None:
        """A phase has ended: everything has to be written."""

    def finish(self, outcome: Outcome) -> None:
        """All phases are finished; may be called again by a later command in the same folder."""

    def end(self, exit_code: int) -> None:
        """The process leaves the run, with this exit code (`archsmith.errors`)."""


class Loggers:
    """The loggers of a run. One that fails is left out from then on, with a warning: it never stops
    the run."""

    def __init__(self, members: Sequence[Logger] = ()):
        self.members = list(members)

    def __bool__(self) -> bool:
        return bool(self.members)

    def tell(self, send: Callable[[Logger], None]) -> None:
        """Calls `send` with each logger."""
        for member in tuple(self.members):
            try:
                send(member)
            except Exception as error:  # a server that is away must not stop the search
                self.members.remove(member)
                log.warning(
                    "loggers: %s fails (%s: %s); the run goes on without it",
                    member.package, type(error).__name__, " ".join(str(error).split())[:300],
                )  # fmt: skip
