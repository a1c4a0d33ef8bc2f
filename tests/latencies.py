"""Tables of whole architectures for tests: a space of 2^6 cells, two devices."""

import itertools
import os
from pathlib import Path

import pytest

from search_spaces.architecture import Architecture
from search_spaces.genotype import to_nasbench201
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space

OPTIONS = ("none", "skip_connect", "nor_conv_3x3")
DATA = Path(__file__).parents[1] / os.environ.get("ARCHSMITH_SHARED", "../shared") / "data"


def small(candidates: tuple[str, ...] = OPTIONS[1:]) -> Space:
    return nasbench201(
        layers=5, nodes=3, channels=4, candidates=list(candidates), operations={},
        input_shape=(3, 8, 8), classes=2,
    )  # fmt: skip


def every(space: Space) -> list[Architecture]:
    """All architectures; the options of the last edge change fastest."""
    rows = space.choices["cell"].rows
    return [
        Architecture.of(space, {"cell": {r.name: (n,) for r, n in zip(rows, names, strict=True)}})
        for names in itertools.product(*(row.names for row in rows))
    ]


def convolutions(one: Architecture) -> list[str]:
    """The edges with a 3x3 convolution."""
    return [row for row, (name,) in one.choices["cell"].items() if name == "nor_conv_3x3"]


def sums(one: Architecture) -> float:
    """2 ms, and 1 ms for each convolution, 0.5 ms more on edge 0-1."""
    kept = convolutions(one)
    return 2.0 + len(kept) + 0.5 * ("0-1" in kept)


def parallel(one: Architecture) -> float:
    """1 ms, and 1 ms if there is any convolution: no sum."""
    return 1.0 + bool(convolutions(one))


def written(path: Path, space: Space, lacking: int = 0) -> Path:
    """A table of both devices, without the first `lacking` architectures."""
    lines = [f"{to_nasbench201(one)},{sums(one)},{parallel(one)}" for one in every(space)[lacking:]]
    path.write_text("\n".join(["architecture,phone,watch", *lines, ""]))
    return path


def shared(name: str) -> Path:
    """A file of the shared data; the test is skipped where it is absent."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {path}: the tables of NAS-Bench-201 are not distributed with this code")
    return path
