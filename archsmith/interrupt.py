"""Signals that ask a run to stop: they set a flag, and every phase looks at it where it can stop.

SIGTERM and SIGINT are what people and schedulers send; SIGUSR1 is what Slurm can send before the
end of the time (`--signal=USR1@60`), and SIGUSR2 what submitit has it send.
"""

import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archsmith.errors import Interrupted

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")  # the last two are not on Windows
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
STOP_FILE = "ARCHSMITH_STOP_FILE"  # by it the process of a sweep tells those that run its jobs
_asked = threading.Event()
_listening = False


def requested() -> bool:
    """Whether this process, or the one that started it for a job of a sweep, was asked to stop."""
    return _asked.is_set() or (STOP_FILE in os.environ and os.path.exists(os.environ[STOP_FILE]))


def check(phase: str) -> None:
    """Raises Interrupted if the run was asked to stop; for places that have nothing to save."""
    if requested():
        raise Interrupted(f"{phase}: stopped; what was saved is kept, run the same command again")


@contextmanager
def listening() -> Iterator[None]:
    """Within it the first signal sets the flag; a second one has its usual effect: the end.

    The outermost process also leaves a file for those that it started.
    """
    global _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return
    file = None
    if STOP_FILE not in os.environ:
        file = Path(tempfile.gettempdir(), f"archsmith-{secrets.token_hex(8)}.stop")
        os.environ[STOP_FILE] = str(file)

    def ask(number: int, frame: object) -> None:
        _asked.set()
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)  # left to the kernel: Python may be busy
        if file:
            file.touch()

    before = [signal.signal(one, ask) for one in SIGNALS]
    _listening = True
    try:
        yield
    finally:
        _listening = False
        _asked.clear()
        if file:
            del os.environ[STOP_FILE]
            file.unlink(missing_ok=True)
        for one, handler in zip(SIGNALS, before, strict=True):
            signal.signal(one, handler)


def ignore_signals(worker: int) -> None:
    """For a worker process: a signal to the whole group is its parent's to answer."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
