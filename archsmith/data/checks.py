"""Checks of the settings of data sets."""

from typing import Any


def require(holds: bool, setting: str, found: Any, expected: str) -> None:
    """Raises ValueError unless `holds`; `setting` is its name below `data`."""
    if not holds:
        raise ValueError(f"data.{setting}: {found!r}, expected {expected}")


def is_whole(value: Any, least: int) -> bool:
    """Whether it is an int of at least `least`; true and false do not count."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def require_share(setting: str, value: float) -> None:
    require(0 < value < 1, setting, value, "a share above 0 and below 1")
