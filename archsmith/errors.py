"""The failures a user can do something about, each with the exit code the README promises.

A `ValueError` raised while configuration becomes objects is a configuration error (exit code 2).
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Failure(Exception):  # noqa: N818 - the family, not one error
    """Says in one line what went wrong, where, what was expected, and which setting to change."""

    exit_code = 1


class JobError(Failure):
    """Why a job of a sweep failed, with its exit code: it can be sent between processes."""

    def __init__(self, line: str, exit_code: int):
        super().__init__(line, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class DataError(Failure):
    """The images are missing, damaged, or cannot be split as asked."""

    exit_code = 3


class NumbersError(Failure):
    """A loss, weight or alpha became NaN or infinite."""

    exit_code = 4


class OutOfMemory(Failure):
    """The device's memory did not suffice, even after one reduction."""

    exit_code = 5


class CheckpointError(Failure):
    """A checkpoint is damaged, or belongs to another configuration."""

    exit_code = 6


class Interrupted(Failure):
    """Stopped on request; everything is saved, the same command continues."""

    exit_code = 75


class ProcessLost(Interrupted):
    """Another process died or fell silent; the last checkpoint is kept, and continues."""


class ConfigError(Failure):
    """A setting is unknown, of the wrong type, impossible, or in conflict with another."""

    exit_code = 2


@contextmanager
def configuring() -> Iterator[None]:
    """While configuration becomes objects, a wrong value is the user's to mend: a `ConfigError`."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # torch's, by its name: what trains nothing does without torch
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in NO_MEMORY)
