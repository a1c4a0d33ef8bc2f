"""Why a run's result may mean nothing, in the run's own words."""

from collections.abc import Mapping
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
