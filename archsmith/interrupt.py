"""Signals that ask a run to stop: they set a flag that every phase polls where it can stop safely.

People and schedulers send SIGTERM and SIGINT; Slurm can send SIGUSR1 before the time limit
(`--signal=USR1@60`); submitit has it send SIGUSR2.
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
STOP_FILE = "ARCHSMITH_STOP_FILE"  # by this file a sweep stops the processes of its jobs
_asked = threading.Event()
_listening = False


def requested() -> bool:
    """Whether this process, or the sweep process that started it, was asked to stop."""
    return _asked.is_set() or (STOP_FILE in os.environ and os.path.exists(os.environ[STOP_FILE]))


def check(phase: str) -> None:
    """Raises Interrupted if the run was asked to stop; for code that has nothing to save."""
    if requested():
        raise Interrupted(f"{phase}: stopped; what was saved is kept, run the same command again")


def is_listening() -> bool:
    """Whether a signal to this process sets the flag: inside `listening`."""
    return _listening


@contextmanager
def listening() -> Iterator[None]:
    """A context manager: the first signal sets the flag, a second one ends the process as usual.

    The outermost process also writes a stop file that its child processes check.
    """
    global _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may install handlers
        return
    file = None
    if STOP_FILE not in os.environ:
        file = Path(tempfile.gettempdir(), f"archsmith-{secrets.token_hex(8)}.stop")
        os.environ[STOP_FILE] = str(file)

    def ask(number: int, frame: object) -> None:
        _asked.set()
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)  # handled by the kernel: Python may be busy
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
    """For worker processes: the parent handles signals that are sent to the whole group."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
