"""How tabular benchmarks name the architectures of a space: the columns that name one, as text.

A name is the values of these columns, joined by commas. Sources: Dong et al. 2021,
arXiv:2009.00437 (NATS-Bench); Sukthanker et al. 2024, arXiv:2312.10440, public code.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.genotype import to_nasbench201

# Units of the published widths, at which the table's networks were trained.
CONV_MACRO_UNITS = (8, 16, 32, 64)
CELLS, EDGES = ("normal", "reduce"), ("0-1", "0-2", "1-2")  # of entangled_cell


@dataclass(frozen=True)
class Form:
    """How a table names architectures.

    columns: that name one. values: an architecture -> their values. known: the names of networks
    that need no search, by description. failed: the accuracy, in %, of those that the table leaves
    out because their training failed; None: it leaves out none.
    """

    columns: Sequence[str]
    values: Callable[[Architecture], Sequence[str]]
    known: Callable[[Collection[str]], Mapping[str, list[str]]]
    failed: float | None = None


def _conv_macro(architecture: Architecture) -> list[str]:
    """`c1`..`c4` in channels of the published space, whatever the size searched; `k1`..`k4`."""
    from search_spaces.conv_macro import KERNEL, WIDTH  # which imports torch

    def numbers(choice: str) -> list[int]:
        rows = sorted(architecture.choices[choice].items(), key=lambda row: int(row[0][0]))
        return [int(option.rpartition("_")[2]) for _, (option,) in rows]

    widths = zip(numbers(WIDTH), CONV_MACRO_UNITS, strict=True)
    return [str(multiple * unit) for multiple, unit in widths] + list(map(str, numbers(KERNEL)))


def _entangled_cell(architecture: Architecture) -> list[str]:
    """The operation on each edge of the normal, then of the reduction cell."""
    return [architecture.choices[kind][edge][0] for kind in CELLS for edge in EDGES]


def _cells_of_one_operation(names: Collection[str]) -> dict[str, list[str]]:
    edges = {name: name.split(",") for name in names}
    alone = {
        operations[0]: name
        for name, operations in edges.items()
        if len(operations) == len(CELLS) * len(EDGES) and len(set(operations)) == 1
    }
    return {f"cells of {operation} alone": [name] for operation, name in alone.items()}


def _largest_stacks(names: Collection[str]) -> dict[str, list[str]]:
    widest = ",".join(str(4 * unit) for unit in CONV_MACRO_UNITS)
    return {
        f"the largest network with kernels of {k}": [name]
        for k in (3, 5, 7)
        if (name := f"{widest},{k},{k},{k},{k}") in names
    }


def _cells_of_convolutions(names: Iterable[str]) -> dict[str, list[str]]:
    operations = {name: set(re.findall(r"([^|+]+)~\d", name)) for name in names}
    kinds = {
        "cells of convolutions alone": {"nor_conv_1x1", "nor_conv_3x3"},
        "cell of 3x3 convolutions alone": {"nor_conv_3x3"},
    }
    return {
        said: [name for name, used in operations.items() if used and used <= kind]
        for said, kind in kinds.items()
    }


# space -> form
FORMS = {
    "nasbench201": Form(["architecture"], lambda a: [to_nasbench201(a)], _cells_of_convolutions),
    "conv_macro": Form(
        ["c1", "c2", "c3", "c4", "k1", "k2", "k3", "k4"], _conv_macro, _largest_stacks, failed=10.0
    ),
    "entangled_cell": Form(
        [f"{kind}_{edge.replace('-', '_')}" for kind in CELLS for edge in EDGES],
        _entangled_cell,
        _cells_of_one_operation,
    ),
}


def form_for(architecture: Architecture) -> Form:
    """The form of tables of its space. Raises ValueError for a space without tables."""
    space = architecture.space["name"]
    if space not in FORMS:
        raise ValueError(f"there is no form of tables for space {space}; known: {', '.join(FORMS)}")
    return FORMS[space]


def name_of(architecture: Architecture) -> str:
    """The architecture's name in tables of its space. Raises ValueError as `form_for`."""
    return ",".join(form_for(architecture).values(architecture))


def form_of(columns: Collection[str]) -> Form | None:
    """The form of a table with these columns; None if there is none."""
    fitting = (form for form in FORMS.values() if set(form.columns) <= set(columns))
    return next(fitting, None)


def without_search(names: Collection[str]) -> dict[str, list[str]]:
    """Description -> the names of networks that need no search, of any form."""
    found: dict[str, list[str]] = {}
    for form in FORMS.values():
        found |= {said: some for said, some in form.known(names).items() if some}
    return found
