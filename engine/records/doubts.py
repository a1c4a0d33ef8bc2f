"""Why a run's result may mean nothing, in the run's own words."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """What the engine warns of meanwhile, each line once: a console scrolls away."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in lines:
                lines.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logger = logging.getLogger("engine")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
