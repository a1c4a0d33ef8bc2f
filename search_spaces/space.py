"""A search space as data: which candidates may join which nodes, and which cell stands at which
layer.

There is no torch here: a space only says what may be built. `supernets.network` builds it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from search_spaces.settings import Range


@dataclass(frozen=True)
class Edge:
    """An edge of a cell; `strided` edges halve the resolution in a reduction cell."""

    source: int
    target: int
    candidates: tuple[str, ...]
    strided: bool = False

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"


@dataclass(frozen=True)
class Cell:
    """A DAG: states 0..inputs-1 come from earlier layers, then `nodes` sums; edges in node-major
    order.

    `keep` is how many incoming edges a node of a discrete architecture has, each with one candidate
    other than `none`; `None` means one candidate on every edge, `none` included.
    """

    inputs: int
    nodes: int
    edges: tuple[Edge, ...]
    keep: int | None
    output: str = "concat"  # of all nodes, or "last" node

    @property
    def out_nodes(self) -> int:
        return self.nodes if self.output == "concat" else 1

    def incoming(self, target: int) -> list[int]:
        """Positions in `edges` of the edges into a node."""
        return [e for e, edge in enumerate(self.edges) if edge.target == target]

    def outgoing(self, source: int) -> list[int]:
        return [e for e, edge in enumerate(self.edges) if edge.source == source]

    @property
    def targets(self) -> range:
        return range(self.inputs, self.inputs + self.nodes)

    @property
    def width(self) -> int:
        """O: the most candidates on an edge; shorter rows are padded, dead from the start."""
        return max(len(edge.candidates) for edge in self.edges)


@dataclass(frozen=True)
class Layer:
    """One position of the skeleton: a cell, or (`cell=None`) a fixed residual block."""

    cell: str | None
    group: str | None  # layers of one group share their alphas
    channels: int
    reduction: bool


@dataclass(frozen=True)
class Space:
    """Cells, the layers they stand at, and the shapes at both ends.

    `settings` are the numbers and names that `family` needs to build the same space again; they
    are what an architecture file stores. `operations` maps a candidate's name to its constructor.
    """

    name: str
    family: Callable[..., "Space"]
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    layers: tuple[Layer, ...]
    operations: Mapping[str, Callable[..., Any]]
    input_shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    stem: str  # a name in supernets.skeleton.STEMS
    stem_channels: int
    preprocess: bool  # ReLU-conv-BN on each cell input
    head: str  # a name in supernets.skeleton.HEADS
    affine: bool = True  # whether batch norms before cells of final networks have scale and shift
    extra_operations: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, Cell]:
        """Group name -> the cell its layers hold, in order of first appearance."""
        return {la.group: self.cells[la.cell] for la in self.layers if la.group and la.cell}

    def resize(self, **changes: Any) -> "Space":
        """The same space with other settings, such as `layers`, `channels` or `classes`."""
        return self.family(**{**self.settings, **changes}, operations=self.extra_operations)


def complete_edges(
    inputs: int,
    nodes: int,
    candidates: Sequence[str | Sequence[str]],
    *,
    reduction: bool = False,
) -> tuple[Edge, ...]:
    """Joins each node to all states before it; candidates for all edges, or one list an edge."""
    if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
        raise ValueError(f"candidates: expected a list of names, found {candidates!r}")
    pairs = [(j, i) for i in range(inputs, inputs + nodes) for j in range(i)]
    same = isinstance(candidates[0], str)
    rows: list[Any] = [candidates] * len(pairs) if same else list(candidates)
    if len(rows) != len(pairs):
        raise ValueError(
            f"candidates: {len(rows)} lists for {len(pairs)} edges; give one list, or one an edge"
        )
    return tuple(
        Edge(j, i, tuple(row), strided=reduction and j < inputs)
        for (j, i), row in zip(pairs, rows, strict=True)
    )


# Bounds keep a machine responsive that reads an architecture file of unknown origin.
MOST_LAYERS = 1000
Nodes = Annotated[int, Range(ge=1, le=64)]
Channels = Annotated[int, Range(ge=1, le=10_000)]


def known_operations(
    family: Mapping[str, Callable[..., Any]],
    extra: Mapping[str, Callable[..., Any]],
    edges: Sequence[Edge],
) -> dict[str, Callable[..., Any]]:
    """The constructors an edge may name. Raises ValueError for unknown or redefined candidates."""
    clash = sorted(set(family) & set(extra))
    if clash:
        raise ValueError(f"operations: '{clash[0]}' is a candidate already; choose another name")
    operations = {**family, **extra}
    for edge in edges:
        if not edge.candidates:
            raise ValueError(f"candidates: edge {edge.name} has none; name at least one")
        if len(set(edge.candidates)) < len(edge.candidates):
            raise ValueError(
                f"candidates: named twice on edge {edge.name}: {list(edge.candidates)}"
            )
        if set(edge.candidates) == {"none"}:
            raise ValueError(
                f"candidates: edge {edge.name} has only 'none', which passes nothing on; "
                f"add one of {', '.join(name for name in operations if name != 'none')}"
            )
        for name in edge.candidates:
            if name not in operations:
                raise ValueError(f"candidates: unknown '{name}'; known: {', '.join(operations)}")
    return operations
