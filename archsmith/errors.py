"""Failures that a user can act on, each with the exit code that the README documents.

A `ValueError` raised while objects are built from the configuration is a configuration error (exit
code 2).
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Failure(Exception):  # noqa: N818 - the family, not one error
    """One line: what went wrong and where, what was expected, which setting to change."""

    exit_code = 1


class JobError(Failure):
    """Why a job of a sweep failed, with its exit code; can be pickled between processes."""

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
    """The device ran out of memory, even with smaller micro-batches."""

    exit_code = 5


class CheckpointError(Failure):
    """A checkpoint is damaged, or belongs to another configuration."""

    exit_code = 6


class Interrupted(Failure):
    """Stopped on request; everything is saved and the same command resumes the run."""

    exit_code = 75


class ProcessLost(Interrupted):
    """Another process died or stopped responding; the run can resume from the last checkpoint."""


class ConfigError(Failure):
    """A setting is unknown, has the wrong type, is impossible, or conflicts with another."""

    exit_code = 2


def exit_code(error: BaseException) -> int:
    """The exit code that an exception means; 1 if it is not one of ours."""
    return error.exit_code if isinstance(error, Failure) else 1


@contextmanager
def configuring() -> Iterator[None]:
    """A context manager that turns a `ValueError` from building objects into a `ConfigError`."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # torch's error, recognised by name so that torch is not imported
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in NO_MEMORY)
