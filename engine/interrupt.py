"""Signals that ask a run to stop: they set a flag, and every phase looks at it where it can stop.

SIGTERM and SIGINT are what people and schedulers send; SIGUSR1 is what Slurm can send before the
end of the time (`--signal=USR1@60`).
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_asked = threading.Event()


def requested() -> bool:
    """Whether the run was asked to stop."""
    return _asked.is_set()


def check(phase: str) -> None:
    """Raises Interrupted if the run was asked to stop; for places that have nothing to save."""
    if requested():
        raise Interrupted(f"{phase}: stopped; what was saved is kept, run the same command again")


@contextmanager
def listening() -> Iterator[None]:
    """Within it the first signal sets the flag; a second one has its usual effect: the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return

    def ask(number: int, frame: object) -> None:
        _asked.set()
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)  # left to the kernel: Python may be busy

    before = [signal.signal(one, ask) for one in SIGNALS]
    try:
        yield
    finally:
        _asked.clear()
        for one, handler in zip(SIGNALS, before, strict=True):
            signal.signal(one, handler)


def ignore_signals(worker: int) -> None:
    """For a worker process: a signal to the whole group is its parent's to answer."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
