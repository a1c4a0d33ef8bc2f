"""Why a run's result may mean nothing, in the run's own words."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.train.record import Results

FIELDS = ("degenerate", "undecided", "test_doubt")  # of results.json, each null or a sentence


def doubts(results: Mapping[str, Any]) -> list[str]:
    """What `results.json` says against its own numbers; a file of before it did so says nothing."""
    return [results[name] for name in FIELDS if results.get(name)]


def interval(results: Mapping[str, Any]) -> str:
    """`91.20% to 96.75%, 540 images`: of the test accuracy; empty where it is not known."""
    if not results.get("test_interval"):
        return ""
    low, high = results["test_interval"]
    return f"{100 * low:.2f}% to {100 * high:.2f}%, {results['test_images']} images"


class Warnings(logging.Handler):
    """What a run warns of, each line once: a console scrolls away."""

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
        """Writes them to `results.json` from now on, behind those that are there: a run that is
        continued has not lost what was said before it was stopped."""
        lines, self.lines = self.lines, list(results.fields["warnings"] or [])
        self.results = results
        self.add(lines)
        results.update(warnings=self.lines)


@contextmanager
def warnings_kept() -> Iterator[Warnings]:
    """Within, our warnings are kept."""
    handler, logger = Warnings(), logging.getLogger("archsmith")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
