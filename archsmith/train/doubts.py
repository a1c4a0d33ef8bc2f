"""Reasons to doubt a run's result, as recorded by the run."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.train.record import Results

FIELDS = ("degenerate", "undecided", "test_doubt")  # in results.json, null or a sentence


def doubts(results: Mapping[str, Any]) -> list[str]:
    """The doubts recorded in `results.json`; older files have none."""
    return [results[name] for name in FIELDS if results.get(name)]


def interval(results: Mapping[str, Any]) -> str:
    """The interval of the test accuracy, `91.20% to 96.75%, 540 images`; empty if unknown."""
    if not results.get("test_interval"):
        return ""
    low, high = results["test_interval"]
    return f"{100 * low:.2f}% to {100 * high:.2f}%, {results['test_images']} images"


class Warnings(logging.Handler):
    """A handler that collects a run's warnings, each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.results: Results | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.add([record.getMessage()])

    def add(self, lines: Sequence[str]) -> None:
        new = [line for line in lines if line not in self.lines]
        self.lines += new
        if self.results is not None and new:
            self.results.update(warnings=self.lines)

    def keep_in(self, results: "Results") -> None:
        """Writes the warnings to `results.json` from now on, after those that are already there, so
        that a resumed run keeps its earlier warnings."""
        lines, self.lines = self.lines, list(results.fields["warnings"] or [])
        self.results = results
        self.add(lines)
        results.update(warnings=self.lines)


@contextmanager
def warnings_kept() -> Iterator[Warnings]:
    """A context manager that collects our warnings."""
    handler, logger = Warnings(), logging.getLogger("archsmith")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
