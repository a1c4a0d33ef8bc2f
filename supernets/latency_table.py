"""A table of latencies: milliseconds of each option where it stands, and of the fixed parts.

A CSV file with a line per place. It may be measured on another device than the one that searches.
"""

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from search_spaces.space import Space
from supernets.final_costs import Cost, Site, cost_tables

FIXED = "fixed parts"  # in place of an option's name: stem, head and what lies between cells
MEDIAN = "median_ms"


def fixed_site(space: Space) -> Site:
    """Where the line of the fixed parts stands: image channels to those of the stem."""
    channels, *size = space.input_shape
    return Site(FIXED, channels, space.stem_channels, 1, *size)


def written(rows: Iterable[tuple[Site, Mapping[str, Any]]]) -> str:
    """The text of a table of these places; each mapping holds `median_ms`, and what else is known
    of the measurement."""
    lines = [site._asdict() | dict(about) for site, about in rows]
    text = StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def read(path: Path) -> dict[Site, float]:
    """Place -> milliseconds. Raises ValueError for a file that is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {_site(row): _milliseconds(row[MEDIAN]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of latencies ({type(error).__name__}: {error}); expected a file "
            "that task=measure_latency wrote"
        ) from error


def latency_cost(space: Space, path: Path) -> Cost:
    """Milliseconds of the space's options and fixed parts, by the table in a file.

    Raises ValueError for a file that is no such table, or that lacks a place of the space.
    """
    table = read(path)

    def milliseconds(site: Site) -> float:
        if site not in table:
            raise ValueError(
                f"{path} has no line of '{site.option}' from {site.c_in} to {site.c_out} channels, "
                f"stride {site.stride}, on {site.height}x{site.width}; measure this space: "
                "task=measure_latency"
            )
        return table[site]

    return Cost(milliseconds(fixed_site(space)), cost_tables(space, milliseconds))


def _site(row: Mapping[str, str]) -> Site:
    option, *numbers = (row[name] for name in Site._fields)
    return Site(option, *map(int, numbers))


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{MEDIAN}: expected milliseconds of at least 0, found {text}")
    return value
