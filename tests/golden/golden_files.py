"""Golden data: what public implementations returned; `golden/README.md` in the shared folder tells.

Two sources hold the same files: `shared` is `$ARCHSMITH_SHARED/golden` (by default the folder
`shared` beside the repository), `excerpts` a few cases of each file, from `make_excerpts.py`.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / os.environ.get("ARCHSMITH_SHARED", "../shared")
FOLDERS = {"excerpts": HERE / "excerpts", "shared": SHARED / "golden"}


@functools.cache
def read(source: str, name: str) -> Any:
    """A golden file of a source: decoded JSON, or key -> array. Cached: treat it as read-only."""
    path = FOLDERS[source] / name
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}
    return json.loads(path.read_text(encoding="utf-8"))


def cases(name: str, find: Callable[[Any], Mapping[str, Any]]) -> Any:
    """Runs a test `(golden, case)` once for each case that `find(file)` names, in either source."""
    parameters = []
    for source, folder in FOLDERS.items():
        found = find(read(source, name)) if folder.is_dir() else {"absent": None}  # `golden` skips
        parameters += [
            pytest.param(source, case, id=f"{source}-{id}") for id, case in found.items()
        ]
    return pytest.mark.parametrize(("golden", "case"), parameters, indirect=["golden"])


def genotype_edges(pairs: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """One cell of a DARTS genotype, two inputs a node, as [(edge, candidate), ...] in its order."""
    return [(f"{state}-{2 + m // 2}", candidate) for m, (candidate, state) in enumerate(pairs)]


def arch_str_edges(arch_str: str) -> list[tuple[str, str]]:
    """A NAS-Bench-201 string as [(edge, candidate), ...] in its order, `none` included."""
    nodes = [node.strip("|").split("|") for node in arch_str.split("+")]
    inputs = [(node, *each.split("~")) for node, row in enumerate(nodes, 1) for each in row]
    return [(f"{source}-{node}", candidate) for node, candidate, source in inputs]


def one_each(edges: Sequence[tuple[str, str]]) -> dict[str, tuple[str]]:
    """Choices of a group whose edges keep one candidate each."""
    assert len(dict(edges)) == len(edges), f"an edge is named twice: {edges}"
    return {edge: (candidate,) for edge, candidate in edges}
