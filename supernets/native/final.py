"""The native form of a final network's cell: own CPU kernels for the operations they know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from supernets.chains import Chain, chain
from supernets.layout import channels_first
from supernets.mixed_op import ChosenOps
from supernets.mixture import GroupMixture
from supernets.native.build import library
from supernets.native.cell import NativeCell, native
from supernets.native.source import Source, kind_of
from supernets.network import CellModule

Place = tuple[int, int]  # an edge, and where the operation stands on it


@dataclass(frozen=True)
class Alike:
    """Operations of one kind on the edges out of one source, and the kernel that runs them."""

    places: Sequence[Place]
    source: Source
    gates: Tensor  # ones, (places, 1)

    def __call__(self, x: Tensor, keeps: Sequence[Tensor | None]) -> dict[Place, Tensor]:
        """x (B, C, H, W), per operation what drop-path keeps, (B, 1, 1, 1) -> outputs."""
        keep = None
        if any(k is not None for k in keeps):
            ones = x.new_ones(x.size(0))
            keep = torch.stack([ones if k is None else k.flatten() for k in keeps], 1)
        return dict(zip(self.places, self.source(x, self.gates, None, keep), strict=True))


@dataclass(frozen=True)
class Plan:
    """How a cell runs what leaves one source."""

    edges: list[tuple[int, nn.Module]]  # in the reference's order
    bundles: list[Alike] = field(default_factory=list)
    owned: set[Place] = field(default_factory=set)  # what the bundles run


class NativeFinal:
    """A `Form` of a final network's cell: operations of one kind out of one source run together.

    What the kernels do not know runs in torch, on maps with channels first. Drop-path draws as the
    reference does, number for number.
    """

    def __init__(self, cell: CellModule):
        self.module = cell
        self.plans: dict[int, Plan] = {}
        self._inputs = NativeCell(cell)  # a supernet's cell takes its inputs the same way

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeFinal":
        return type(self)(memo[id(self.module)])  # a form is copied with its cell

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self._inputs.preprocessed(inputs)

    def from_node(
        self, source: int, x: Tensor, mixture: GroupMixture | None
    ) -> list[tuple[int, Tensor]]:
        """As `CellModule.from_node`."""
        if not native(x, 2):
            return self.module.from_node(source, channels_first(x), mixture)
        if source not in self.plans:
            self.plans[source] = plan(self.module, source)
        edges, bundles, owned = (p := self.plans[source]).edges, p.bundles, p.owned
        found: dict[Place, Tensor] = {}
        keeps: dict[Place, Tensor | None] = {}
        for e, edge in edges:
            if type(edge) is not ChosenOps:
                found[e, 0] = edge(channels_first(x))
                continue
            for o, op in enumerate(edge.ops):
                y = None if (e, o) in owned else outside(op, x)
                keeps[e, o] = keep = edge.keep(op, x)
                if y is not None:
                    found[e, o] = y if keep is None else y * keep
        for alike in bundles:
            found |= alike(x, [keeps[place] for place in alike.places])
        return [(self.module.cell.edges[e].target, found[e, o]) for e, o in sorted(found)]


def outside(op: nn.Module, x: Tensor) -> Tensor:
    """What the kernels do not run, in torch."""
    return x if type(op) is nn.Identity else op(channels_first(x))


def plan(cell: CellModule, source: int) -> Plan:
    """Operations whose layers have the same settings form a bundle, if the kernels know them."""
    names = [(e, cell.cell.edges[e].name) for e in cell.cell.outgoing(source)]
    found = Plan([(e, cell.edges[name]) for e, name in names if name in cell.edges])
    groups: dict[tuple[object, ...], list[tuple[Place, Chain]]] = {}
    for e, edge in found.edges:
        for o, op in enumerate(edge.ops if type(edge) is ChosenOps else ()):
            layers = chain(op)
            if layers:
                alike = cell.cell.edges[e].strided, *map(repr, layers)
                groups.setdefault(alike, []).append(((e, o), layers))
    kernels = library()
    for (strided, *_), members in groups.items():
        places, chains = zip(*members, strict=True)
        stride = 2 if strided else 1
        kind = kind_of(chains, stride)
        if kernels is None or kind is None:
            continue
        run = Source(kernels, [kind], len(places), stride=stride, k=1)
        found.bundles.append(Alike(places, run, torch.ones(len(places), 1)))
        found.owned.update(places)
    return found
