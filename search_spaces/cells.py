"""Cells: directed acyclic graphs whose edges are the rows of a choice, stacked in layers.

Source: Liu et al. 2019, arXiv:1806.09055, section 2.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.choice import Choice, Option, Row
from search_spaces.space import Space


@dataclass(frozen=True)
class Edge(Row):
    """An edge of a cell; `strided` edges halve the resolution in a reduction cell."""

    strided: bool = False

    @property
    def stride(self) -> int:
        return 2 if self.strided else 1


@dataclass(frozen=True)
class Cell(Choice):
    """A DAG: states 0..inputs-1 come from earlier layers, then `nodes` sums; edges in node-major
    order. `keep`: see `Choice`.
    """

    inputs: int
    nodes: int
    edges: tuple[Edge, ...]
    keep: int | None
    output: str = "concat"  # of all nodes, or "last" node

    @property
    def rows(self) -> tuple[Edge, ...]:
        return self.edges

    @property
    def targets(self) -> range:  # type: ignore[override]
        return range(self.inputs, self.inputs + self.nodes)

    @property
    def outputs(self) -> range:
        """The states that make up the output, in order."""
        return self.targets if self.output == "concat" else self.targets[-1:]


@dataclass(frozen=True)
class Layer:
    """One position of the skeleton: a cell, or (`cell=None`) a fixed residual block."""

    cell: str | None
    group: str | None  # the choice that layers of one group share
    channels: int
    reduction: bool
    row: int | None = None  # the only row of the choice that this layer reads; None: all rows

    @property
    def place(self) -> str:
        """What distinguishes the layer's operations from those of other layers."""
        if self.row is not None:
            return f"{self.group} {self.row}"
        alone = self.cell in (None, self.group)
        return f"{self.group}" if alone else f"{self.group} {self.cell}"


@dataclass(frozen=True, kw_only=True)
class CellSpace(Space):
    """Cells, and the layers they stand at.

    `preprocess`: whether a ReLU-conv-BN stands on each input of a cell.
    """

    cells: Mapping[str, Cell]
    layers: tuple[Layer, ...]
    preprocess: bool
    builder = "supernets.network:Stacks"

    @property
    def choices(self) -> dict[str, Choice]:
        return dict(self.groups)

    @property
    def body(self) -> list[str]:
        """Those of normal cells, if there are any: reduction cells may well hold poolings alone."""
        normal = {layer.group for layer in self.layers if not layer.reduction}
        return [name for name in self.groups if name in normal] or list(self.groups)

    @property
    def groups(self) -> dict[str, Cell]:
        """Group name -> the cell its layers hold, in order of first appearance."""
        return {la.group: self.cells[la.cell] for la in self.layers if la.group and la.cell}


def complete_edges(
    inputs: int,
    nodes: int,
    candidates: Sequence[str | Option] | Sequence[Sequence[str | Option]],
    *,
    reduction: bool = False,
) -> tuple[Edge, ...]:
    """Joins each node to all states before it; candidates for all edges, or one list an edge."""
    if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
        raise ValueError(f"candidates: expected a list of names, found {candidates!r}")
    pairs = [(j, i) for i in range(inputs, inputs + nodes) for j in range(i)]
    same = isinstance(candidates[0], str | Option)
    rows: list[Any] = [candidates] * len(pairs) if same else list(candidates)
    if len(rows) != len(pairs):
        raise ValueError(
            f"candidates: {len(rows)} lists for {len(pairs)} edges; give one list, one an edge, or "
            "another number of nodes"
        )
    return tuple(
        Edge(j, i, tuple(map(Option.of, row)), strided=reduction and j < inputs)
        for (j, i), row in zip(pairs, rows, strict=True)
    )
